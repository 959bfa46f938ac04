"""A whole service: Redis, a gateway, a worker for each task, started as a user starts them."""

from collections.abc import Iterator

import pytest

from tests.support.processes import gateway, worker
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import Stubs


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A server of these tests alone: a call that names no model means the only one."""
    with redis_server(embedded_binary()) as url:
        yield url


@pytest.fixture(scope="session")
def address(redis_url, embedding_checkpoint, rerank_checkpoint) -> Iterator[str]:
    with (
        worker(redis_url, embedding_checkpoint),
        worker(redis_url, rerank_checkpoint),
        gateway(redis_url, "--max-wait-s", "600") as (_, found),
    ):
        yield found


@pytest.fixture(scope="session")
def stubs(address) -> Iterator[Stubs]:
    found = Stubs(address)
    yield found
    found.channel.close()
