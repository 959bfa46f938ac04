"""What tests of a gateway share: a Redis of each module's own, and a worker that serves `emb` there."""

from collections.abc import Iterator

import pytest

from tests.support.echo import EchoWorker, eventually
from tests.support.redis_servers import embedded_binary, redis_server


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server(embedded_binary()) as url:
        yield url


@pytest.fixture(scope="module")
def shared_worker(redis_url) -> Iterator[EchoWorker]:
    with EchoWorker(redis_url, "emb") as worker:
        yield worker


@pytest.fixture
def worker(shared_worker) -> Iterator[EchoWorker]:
    """Answers, has no jobs, and has seen none."""
    eventually(lambda: shared_worker.num_queued() == 0)
    shared_worker.jobs.clear()
    yield shared_worker
    shared_worker.answer = None
    shared_worker.release()
