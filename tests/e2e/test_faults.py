"""Processes die and clients go away; calls are answered all the same, or refused with a time to try again."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import psutil
import pytest
import redis

from jobqueue.keys import QueueKeys
from qwen3.inference.v1 import embedding_pb2, model_pb2
from tests.support.processes import gateway, running, worker
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import TIMEOUT_S, Stubs, refusal, unpack

SHORT_LEASE = ("--lease-s", "1")
GIVE_UP_S = 60
EXIT_HUNG = 70


@pytest.fixture
def server() -> Iterator[str]:
    with redis_server(embedded_binary()) as url:
        yield url


@pytest.fixture
def stubs(server) -> Iterator[Stubs]:
    with gateway(server) as (_, address):
        found = Stubs(address)
        yield found
        found.channel.close()


def eventually(condition) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def state_of(stubs: Stubs) -> int:
    models = stubs.models.ListModels(model_pb2.ListModelsRequest()).models
    return models[0].state if models else model_pb2.MODEL_STATE_UNSPECIFIED


def await_state(stubs: Stubs, state: int) -> None:
    eventually(lambda: state_of(stubs) == state)


def queue_of(stubs: Stubs) -> QueueKeys:
    (model,) = stubs.models.ListModels(model_pb2.ListModelsRequest()).models
    return QueueKeys(f"{model.id}@{model.revision}")


def is_idle(server: str, keys: QueueKeys) -> bool:
    """Nothing waits, runs or is counted."""
    with redis.Redis.from_url(server) as client:
        depth = [int(value) for value in client.hvals(keys.depth)]
        pending = [client.xpending(keys.lane(lane), "workers")["pending"] for lane in ("hi", "lo")]
        return sum(depth) == client.xlen(keys.lane("hi")) == client.xlen(keys.lane("lo")) == sum(pending) == 0


def test_a_killed_workers_calls_are_answered_by_the_next_one(server, stubs, embedding_checkpoint):
    texts = ["kill -9 " + "a long text that takes a while " * 60] * 8
    with worker(server, embedding_checkpoint) as victim, ThreadPoolExecutor(16) as pool:
        await_state(stubs, model_pb2.MODEL_STATE_READY)
        expected = stubs.vectors(["kill -9 " + "a long text that takes a while " * 60])[0]
        keys = queue_of(stubs)
        victim.signal(signal.SIGSTOP)  # so that it surely dies with jobs in its hands
        calls = [pool.submit(stubs.embed, texts) for _ in range(16)]
        with redis.Redis.from_url(server) as client:
            eventually(lambda: client.xlen(keys.lane("hi")) >= 16)
        victim.signal(signal.SIGCONT)
        with redis.Redis.from_url(server) as client:
            eventually(lambda: client.xpending(keys.lane("hi"), "workers")["pending"] > 0)
        victim.signal(signal.SIGKILL)
        victim.wait()
        assert not all(call.done() for call in calls)
        with worker(server, embedding_checkpoint):
            answers = [call.result(timeout=GIVE_UP_S) for call in calls]
    for answer in answers:
        assert (unpack(answer) @ expected).min() >= 0.999999
    eventually(lambda: is_idle(server, keys))


def test_without_a_live_worker_a_call_is_refused_at_once_with_a_time_to_retry(server, stubs, embedding_checkpoint):
    with pytest.raises(grpc.RpcError) as unknown:
        stubs.embed(["a"])
    assert refusal(unknown.value).reason == "NO_WORKER"
    with worker(server, embedding_checkpoint) as only:
        await_state(stubs, model_pb2.MODEL_STATE_READY)
        assert only.stop() == 0
    await_state(stubs, model_pb2.MODEL_STATE_UNAVAILABLE)
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        stubs.embed(["a"])
    found = refusal(error.value)
    assert time.monotonic() - started < TIMEOUT_S / 2
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert found.retry_s > 0
    assert int(found.trailers["grpc-retry-pushback-ms"]) == found.retry_s * 1000


def test_a_wakeable_models_call_waits_for_a_worker_to_come(server, stubs, embedding_checkpoint):
    with worker(server, embedding_checkpoint, "--scale-to-zero") as first:
        await_state(stubs, model_pb2.MODEL_STATE_READY)
        assert first.stop() == 0
    await_state(stubs, model_pb2.MODEL_STATE_UNAVAILABLE)
    keys = queue_of(stubs)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(stubs.embed, ["wake up"])
        with redis.Redis.from_url(server) as client:
            eventually(lambda: client.xlen(keys.lane("hi")) == 1)
        with worker(server, embedding_checkpoint, "--scale-to-zero"):
            assert len(call.result(timeout=GIVE_UP_S).embeddings) == 1


def test_sigterm_drains_a_worker_and_its_waiting_jobs_go_to_another(server, stubs, embedding_checkpoint):
    texts = ["drain " + "a long text that takes a while " * 60] * 8
    with worker(server, embedding_checkpoint) as leaving, ThreadPoolExecutor(12) as pool:
        await_state(stubs, model_pb2.MODEL_STATE_READY)
        keys = queue_of(stubs)
        calls = [pool.submit(stubs.embed, texts) for _ in range(12)]
        with redis.Redis.from_url(server) as client:
            eventually(lambda: client.xpending(keys.lane("hi"), "workers")["pending"] > 0)
        with worker(server, embedding_checkpoint):
            assert leaving.stop() == 0
            answers = [call.result(timeout=GIVE_UP_S) for call in calls]
        assert all(len(answer.embeddings) == 8 for answer in answers)
        with redis.Redis.from_url(server) as client:
            assert client.xlen(keys.dead) == 0
    eventually(lambda: is_idle(server, keys))


def test_a_client_that_goes_away_takes_its_waiting_jobs_with_it(server, stubs, embedding_checkpoint):
    with worker(server, embedding_checkpoint) as only:
        await_state(stubs, model_pb2.MODEL_STATE_READY)
        keys = queue_of(stubs)
        only.signal(signal.SIGSTOP)
        request = embedding_pb2.EmbedRequest(inputs=["a"] * 4)
        calls = [stubs.embedding.Embed.future(request) for _ in range(5)]
        with redis.Redis.from_url(server) as client:
            eventually(lambda: client.xlen(keys.lane("hi")) == 5)
            for call in calls:
                call.cancel()
            eventually(lambda: client.xlen(keys.lane("hi")) == 0)
        only.signal(signal.SIGCONT)
        eventually(lambda: is_idle(server, keys))
        assert len(stubs.embed(["still there"]).embeddings) == 1


def test_a_call_past_its_deadline_leaves_nothing_behind(server, stubs, embedding_checkpoint):
    with worker(server, embedding_checkpoint) as only:
        await_state(stubs, model_pb2.MODEL_STATE_READY)
        keys = queue_of(stubs)
        only.signal(signal.SIGSTOP)
        with pytest.raises(grpc.RpcError) as error:
            stubs.embed(["too late"], timeout_s=1)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with redis.Redis.from_url(server) as client:
            eventually(lambda: client.xlen(keys.lane("hi")) == 0)
        only.signal(signal.SIGCONT)
        eventually(lambda: is_idle(server, keys))


def test_a_worker_and_a_gateway_outlive_the_loss_of_all_data(server, stubs, embedding_checkpoint):
    """The worker joins and announces its model again by itself."""
    with worker(server, embedding_checkpoint) as survivor:
        await_state(stubs, model_pb2.MODEL_STATE_READY)
        before = stubs.vectors(["before and after"])
        with redis.Redis.from_url(server) as client:
            client.flushall()
        after = []
        eventually(lambda: _embeds(stubs, after, "before and after"))
        assert np.allclose(after[0], before, atol=1e-6)
        assert survivor.stop() == 0


def _embeds(stubs: Stubs, vectors: list[np.ndarray], text: str) -> bool:
    """Whether it does, for the moment: until the gateway has looked again, it may think that there is no worker."""
    try:
        vectors.append(stubs.vectors([text]))
    except grpc.RpcError:
        return False
    return True


@pytest.mark.parametrize(
    ("model", "reason"),
    [("no/such folder", "no/such folder"), ("missing-model", "missing-model")],
)
def test_a_worker_that_cannot_serve_says_why(server, model, reason):
    with running("worker", model, "--redis", server) as process:
        assert process.wait() == 1
        assert reason in process.log
        assert "Traceback" not in process.log


def test_a_worker_refuses_a_redis_that_could_lose_jobs(embedding_checkpoint):
    with (
        redis_server(embedded_binary(), "--maxmemory-policy", "allkeys-lru") as url,
        running("worker", str(embedding_checkpoint), "--redis", url) as process,
    ):
        assert process.wait() == 1
        assert "maxmemory-policy" in process.log


def test_a_worker_that_disagrees_with_a_live_one_of_its_queue_is_refused(server, embedding_checkpoint):
    with (
        worker(server, embedding_checkpoint),
        running("worker", str(embedding_checkpoint), "--redis", server, "--max-input-tokens", "64") as other,
    ):
        assert other.wait() == 1
        assert "max_input_tokens 64, a live worker has 32768" in other.log


def test_a_worker_whose_heartbeat_dies_ends(server, embedding_checkpoint):
    with worker(server, embedding_checkpoint, *SHORT_LEASE) as alive, redis.Redis.from_url(server) as client:
        client.delete("models")
        client.set("models", "of another application")
        assert alive.wait() == 1
        assert "the heartbeat died" in alive.log


def test_sigterm_before_a_worker_works_ends_it_at_once(embedding_checkpoint):
    with running("worker", str(embedding_checkpoint), "--redis", "unix:///nowhere") as process:
        eventually(lambda: "waiting for redis" in process.log)
        assert process.stop() == 0


def embed_once_there_is_a_worker(stubs: Stubs, texts: list[str]) -> embedding_pb2.EmbedResponse:
    """Try again as one is told to: a lease so short is over between two beats where the machine is busy."""
    while True:
        try:
            return stubs.embed(texts)
        except grpc.RpcError as error:
            found = refusal(error)
            assert found.reason == "NO_WORKER"
            time.sleep(found.retry_s)


def test_a_worker_whose_batch_hangs_ends_itself_and_another_answers_the_call(server, stubs, embedding_checkpoint):
    """It does not hang here, but it takes much longer than the setting allows."""
    with ThreadPoolExecutor(1) as pool:
        with worker(server, embedding_checkpoint, "--lease-s", "0.3", "--max-batch-s", "0.05") as hung:
            await_state(stubs, model_pb2.MODEL_STATE_READY)
            call = pool.submit(embed_once_there_is_a_worker, stubs, ["word " * 8000])
            assert hung.wait() == EXIT_HUNG
            assert "hung batch" in hung.log
        with worker(server, embedding_checkpoint):
            assert len(call.result().embeddings) == 1


def test_a_wedged_redis_is_noticed_and_does_not_hold_up_a_stop(server, stubs, embedding_checkpoint):
    with worker(server, embedding_checkpoint) as alive:
        await_state(stubs, model_pb2.MODEL_STATE_READY)
        with redis.Redis.from_url(server) as client:
            process = psutil.Process(client.info("server")["process_id"])
        process.suspend()
        try:
            with pytest.raises(grpc.RpcError) as error:
                stubs.embed(["a"], timeout_s=30)
            assert refusal(error.value).reason == "QUEUE_AWAY"
            alive.signal(signal.SIGTERM)
            assert alive.wait() in (0, 1)
        finally:
            process.resume()
