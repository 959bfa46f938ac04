"""The service's processes, started as a user starts them."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

READY_LIMIT_S = 120.0
EXIT_LIMIT_S = 120.0


class Process:
    """A child that says `ready ...` on stdout. Its stderr is kept in a file."""

    def __init__(self, *command: str, env: dict[str, str] | None = None) -> None:
        self._stderr = tempfile.NamedTemporaryFile(mode="w+", suffix=".log")  # noqa: SIM115 - closed in kill()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=os.environ | (env or {}),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return Path(self._stderr.name).read_text()

    def ready(self) -> str:
        """Wait for the ready line; what it says."""
        alarm = threading.Timer(READY_LIMIT_S, self._process.kill)
        alarm.start()
        line = self._process.stdout.readline()
        alarm.cancel()
        assert line.startswith("ready "), f"not ready: {line!r}\n{self.log}"
        return line.removeprefix("ready ").strip()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(EXIT_LIMIT_S)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._stderr.close()


@contextlib.contextmanager
def running(*command: str, env: dict[str, str] | None = None) -> Iterator[Process]:
    process = Process(*command, env=env)
    try:
        yield process
    finally:
        process.kill()


@contextlib.contextmanager
def gateway(redis_url: str, *options: str) -> Iterator[tuple[Process, str]]:
    """A gateway on a free port, and its address."""
    with running("gateway", "--redis", redis_url, "--listen", "127.0.0.1:0", *options) as process:
        yield process, process.ready()


@contextlib.contextmanager
def worker(redis_url: str, model: Path, *options: str) -> Iterator[Process]:
    """A worker that is ready."""
    with running("worker", str(model), "--redis", redis_url, *options) as process:
        process.ready()
        yield process
