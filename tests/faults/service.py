"""The gateways and workers of a row. A keeper starts workers again that end, as an orchestrator does."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.children import HOST, Child, free_port
from tests.faults.redis_servers import Redis
from tests.faults.waiting import until

MOST_STARTS = 500
MAX_JOB_TOKENS = 600  # some calls are split
DRAIN_LIMIT_S = 20.0
_BAD_WORDS = ("Traceback", '"event": "bug"', "was never retrieved", "was destroyed but it is pending")


class Gateway:
    """One gateway at an address that stays its own when it is started again."""

    def __init__(self, redis: Redis, folder: Path, number: int, options: Sequence[str]) -> None:
        self.address = f"{HOST}:{free_port()}"
        self._folder, self._name = folder, f"gateway-{number}"
        self._command = [sys.executable, "-m", "gateway", "--redis", redis.url, "--listen", self.address]
        self._command += ["--max-job-tokens", str(MAX_JOB_TOKENS), "--log-level", "warning", *options]
        self.child = self._start()

    def _start(self) -> Child:
        return Child(self._command, folder=self._folder, name=self._name)

    async def start_again(self) -> None:
        self.child = self._start()
        await self.child.until_ready()


class Worker:
    """A place for a worker, which is filled again as soon as it is empty."""

    def __init__(self, command: Sequence[str], folder: Path, name: str, env: Mapping[str, str]) -> None:
        self._command, self._folder, self._name, self._env = command, folder, name, env
        self.exits: list[int] = []
        self.child = self._start()

    def _start(self) -> Child:
        return Child(self._command, folder=self._folder, name=self._name, env=self._env)

    async def keep(self) -> None:
        """Start it again whenever it ends, until cancelled."""
        while len(self.exits) < MOST_STARTS:
            status = await self.child.until_exited(give_up_s=float("inf"))
            self.exits.append(status)
            self.child = self._start()

    async def until_replaced(self, num_exits: int) -> None:
        """Its `num_exits`th end has come, and the next one works."""
        await until(lambda: len(self.exits) >= num_exits and self.child.is_ready, what=f"{self._name} works again")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """How a row's worker is started."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What runs in a row. `folder` holds every process's output."""

    redis: Redis
    folder: Path
    gateways: list[Gateway] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    keepers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def children(self) -> list[Child]:
        """Those that run now."""
        return [*(gateway.child for gateway in self.gateways), *(worker.child for worker in self.workers)]

    def count_ends(self, status: int) -> int:
        """How many workers have ended with this exit status."""
        return sum(worker.exits.count(status) for worker in self.workers)

    def bad_lines(self) -> list[str]:
        """What no process should ever log."""
        return [
            f"{path.stem}: {line[:300]}"
            for path in sorted(self.folder.glob("*.log"))
            for line in path.read_text(errors="replace").splitlines()
            if any(word in line for word in _BAD_WORDS)
        ]

    async def stop(self) -> list[str]:
        """Drain every process; what did not end in order."""
        await asyncio.gather(*(worker.until_replaced(len(worker.exits)) for worker in self.workers))
        await self.keep_no_more()
        ends = await asyncio.gather(*(_stop(child) for child in self.children))
        return [end for end in ends if end]

    async def keep_no_more(self) -> None:
        """Workers that end from now on stay ended."""
        for keeper in self.keepers:
            keeper.cancel()
        await asyncio.gather(*self.keepers, return_exceptions=True)


@contextlib.asynccontextmanager
async def service(
    redis: Redis, folder: Path, *, workers: Sequence[WorkerPlan], num_gateways: int, gateway_options: Sequence[str]
) -> AsyncIterator[Service]:
    """Everything is ready inside, and gone after it, whatever happens."""
    found = Service(redis=redis, folder=folder)
    try:
        for number in range(num_gateways):
            found.gateways.append(Gateway(redis, folder, number, gateway_options))
        for number, plan in enumerate(workers):
            command = [*plan.command, "--redis", redis.url]
            found.workers.append(Worker(command, folder, f"worker-{number}", plan.env))
        await asyncio.gather(*(child.until_ready() for child in found.children))
        found.keepers.extend(asyncio.create_task(worker.keep()) for worker in found.workers)
        yield found
    finally:
        await found.keep_no_more()
        for child in found.children:
            child.kill()


async def _stop(child: Child) -> str:
    try:
        child.signal(signal.SIGTERM)
        status = await child.until_exited(give_up_s=DRAIN_LIMIT_S)
    except TimeoutError as error:
        return str(error)
    return "" if status == 0 else f"{child.log.stem} ended with {status}"
