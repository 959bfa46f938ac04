"""A whole service: Redis, a gateway, a worker for each task, started as a user starts them."""

from collections.abc import Iterator

import pytest

from tests.support.processes import gateway, worker
from tests.support.wire import Stubs


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
