"""Child processes that cannot be left behind: each in a group of its own, and tied to the life of this process."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.faults.waiting import until

ROOT = Path(__file__).parents[2]
EXIT_LIMIT_S = 15.0
READY = "ready "
HOST = "127.0.0.1"
PORTS = (12_000, 32_000)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now.

    It lies below those that the kernel gives to outgoing connections, so that it can be listened on again after a
    kill, and leaves room for a cluster's second port, 10,000 above it.
    """
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((HOST, port))
            return port


class Child:
    """A running program. Its output is kept in `NAME.out` and `NAME.log` of `folder`, beside that of its forerunners.

    Start it from the main thread: the kernel ends it when the thread that made it ends.
    """

    def __init__(
        self, command: Sequence[str], *, folder: Path, name: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._out, self.log = folder / f"{name}.out", folder / f"{name}.log"
        tether = [sys.executable, "-m", "runtime.tether", str(os.getpid())]
        with self._out.open("wb") as out, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*tether, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    @property
    def is_ready(self) -> bool:
        """Whether it runs and has said so."""
        return self.exit_status is None and self._out.read_text().startswith(READY)

    async def until_ready(self) -> None:
        await until(lambda: self.is_ready or self.exit_status is not None, what=f"{self.log.stem} is ready")
        if not self.is_ready:
            raise RuntimeError(f"{self.log.stem} ended with {self.exit_status}:\n{self.tail()}")

    async def until_exited(self, *, give_up_s: float = EXIT_LIMIT_S) -> int:
        await until(lambda: self.exit_status is not None, what=f"{self.log.stem} ends", give_up_s=give_up_s)
        return self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return await self.until_exited()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it and whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]
