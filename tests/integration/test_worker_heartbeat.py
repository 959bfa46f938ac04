"""The heartbeat's own pulse, which liveness goes by."""

import pytest

from jobqueue.connection import connect
from jobqueue.consumer import Consumer
from jobqueue.messages import Operation
from tests.support.echo import announcement, eventually, tokenizer_json
from worker.heartbeat import Heartbeat


@pytest.mark.parametrize("with_redis", [True, False])
def test_a_heart_beats_whether_redis_is_there_or_not(with_redis, redis_url, tmp_path):
    announced, beats = announcement("heart"), []
    with connect(redis_url if with_redis else f"unix://{tmp_path}/nobody.sock") as client:
        consumer = Consumer(client, announced.queue, "w", lease_ms=60_000, max_jobs=1)
        tokenizer = tokenizer_json(Operation.EMBED)
        with Heartbeat(client, consumer, announced, tokenizer, interval_s=0.01, beating=lambda: beats.append(None)):
            eventually(lambda: len(beats) > 2)
        num_beats = len(beats)
        if with_redis:
            consumer.leave()
    assert len(beats) == num_beats, "it has stopped"
