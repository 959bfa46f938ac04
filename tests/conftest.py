"""What every kind of test shares: two small checkpoints and a Redis, made once for the whole run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.redis_servers import binaries, embedded_binary, redis_server

settings.register_profile("untimed", deadline=None)  # a busy machine pauses for longer than any deadline
settings.load_profile("untimed")

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads collapse where cores are shared
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes start: the first compiles for the others


@pytest.fixture(scope="session")
def embedding_checkpoint(tmp_path_factory) -> Path:
    """A Qwen3 embedding checkpoint: 4 layers, 128 wide, seed 0, read-only."""
    return _made(tmp_path_factory, "embedding")


@pytest.fixture(scope="session")
def rerank_checkpoint(tmp_path_factory) -> Path:
    """A Qwen3 rerank checkpoint of the same shape and weights, read-only."""
    return _made(tmp_path_factory, "rerank")


def _made(tmp_path_factory: pytest.TempPathFactory, task: str) -> Path:
    from worker.make_checkpoint import make_checkpoint  # noqa: PLC0415 - torch is slow to import
    from worker.model.checkpoint import ModelTask  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("checkpoint") / f"tiny-{task}"
    make_checkpoint(folder, task=ModelTask(task), seed=0)
    return folder


@pytest.fixture(scope="session", params=binaries(), ids=["embedded", "own"][: len(binaries())])
def any_redis_url(request) -> Iterator[str]:
    """A server of each kind that this machine has; tests that share it take model names of their own."""
    with redis_server(request.param) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The embedded server; tests that share it take model names of their own."""
    with redis_server(embedded_binary()) as url:
        yield url
