"""A child process: its `ready` line, its last words, and a stop that leaves nothing behind."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import structlog

from runtime.errors import ServiceError

_log = structlog.get_logger()

_READY = b"ready "
_NUM_LAST_LINES = 20
_TAIL_BYTES = 16 * 1024
_CHUNK_BYTES = 64 * 1024


@dataclass(slots=True)
class StopRequest:
    """What the operator's signals ask for: the first to drain, the second to kill at once."""

    drain: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def signal(self) -> None:
        (self.hurry if self.drain.is_set() else self.drain).set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A child to be: its name in messages, what starts it, and whether it is heard only when it dies."""

    name: str
    command: tuple[str, ...]
    is_quiet: bool = False


class Child:
    """A running program in a session of its own, so that a terminal's Ctrl-C reaches only its parent.

    What it writes goes to our stderr as it is, unless it is quiet, except for the line `ready WORDS` on its stdout,
    which sets `ready`.
    """

    def __init__(
        self,
        program: Program,
        process: asyncio.subprocess.Process,
        *,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
    ) -> None:
        self.name = program.name
        self.ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process = process
        self._is_quiet = program.is_quiet
        self._tail = b""
        self._life = asyncio.create_task(self._live(stdout, stderr))

    @classmethod
    async def start(cls, program: Program, environment: Mapping[str, str]) -> Self:
        """Start it with `environment` as the whole of its own. Nothing is awaited once the process exists."""
        stdout, stdout_fd = await _pipe()
        stderr, stderr_fd = await _pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "runtime.tether", str(os.getpid()), *program.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout_fd,
                stderr=stderr_fd,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(stdout_fd)
            os.close(stderr_fd)
        _log.info("child_started", child=program.name, pid=process.pid)
        return cls(program, process, stdout=stdout, stderr=stderr)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_exited(self) -> bool:
        return self._life.done()

    async def exited(self) -> int:
        """Its exit status (negative: the signal that killed it), once all its output has been read."""
        return await asyncio.shield(self._life)

    async def until_ready(self) -> str:
        """The words of its ready line. Raises ServiceError if it exits before."""
        either: tuple[asyncio.Future[Any], ...] = (self.ready, self._life)
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self.ready.done():
            return self.ready.result()
        raise self.death("before it was ready")

    def death(self, when: str) -> ServiceError:
        """An error that tells how it ended, with its last lines; for a child that has exited."""
        lines = self._tail.decode(errors="replace").splitlines()[-_NUM_LAST_LINES:]
        last_words = "\n".join(["; its last lines:", *lines]) if lines else ""
        return ServiceError(f"{self.name} ended {when} with exit status {self._life.result()}{last_words}")

    async def stop(self, *, hurry: asyncio.Event, limit_s: float) -> None:
        """SIGTERM, and SIGKILL to its whole session once `hurry` is set or `limit_s` seconds are over."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        hurried = asyncio.create_task(hurry.wait())
        try:
            await asyncio.wait([self._life, hurried], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not self._life.done():
                _log.warning("child_killed", child=self.name, pid=self.pid)
        finally:
            hurried.cancel()
            self._kill_session()
        _log.info("child_stopped", child=self.name, exit_status=await self._life)

    async def _live(self, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader) -> int:
        async with asyncio.TaskGroup() as group:
            group.create_task(_each_line(stdout, self._hear))
            group.create_task(_each_chunk(stderr, self._forward))
            status = await self._process.wait()
            self._kill_session()  # what it started and left would hold the pipes open
        return status

    def _kill_session(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _hear(self, line: bytes) -> None:
        if line.startswith(_READY) and not self.ready.done():
            self.ready.set_result(line.removeprefix(_READY).decode().strip())
        else:
            self._forward(line)

    def _forward(self, output: bytes) -> None:
        self._tail = (self._tail + output)[-_TAIL_BYTES:]
        if self._is_quiet:
            return
        sys.stderr.buffer.write(output)
        sys.stderr.buffer.flush()


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    """A pipe's two ends. asyncio's own would make wait() last until grandchildren close them, too."""
    read_fd, write_fd = os.pipe()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", buffering=0)
    )
    return reader, write_fd


async def _each_chunk(reader: asyncio.StreamReader, use: Callable[[bytes], None]) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        use(chunk)


async def _each_line(reader: asyncio.StreamReader, use: Callable[[bytes], None]) -> None:
    """Lines of any length, where StreamReader.readline has a limit."""
    rest = b""
    while chunk := await reader.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            use(line + b"\n")
    if rest:
        use(rest)
