"""Several processes that listen on one address: started, watched, and replaced one by one.

1. The parent, which never speaks gRPC, reserves the address, so that port 0 is chosen once and nobody else takes it.
2. It starts the processes side by side. Each listens for itself, and the kernel spreads connections over them.
3. Once all are ready, it says so. One that dies is started again.
4. When asked to, it replaces them one by one: the new one is ready before the old one is told to drain. Where it does
   not become ready, the old one stays.
5. At the end all drain at once. Should the parent be killed, the kernel tells its children to drain.
"""

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client.multiprocess import mark_process_dead

from gateway.config import GatewaySettings
from runtime.children import Child, Program, StopRequest
from runtime.errors import ServiceError, SettingError
from runtime.metrics import SHARED_FOLDER
from runtime.restarts import RestartPolicy

STOP_MARGIN_S = 15.0  # beyond what a process gives itself
READY_LIMIT_S = 120.0  # for one that replaces another

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Requests:
    """What the operator's signals ask for."""

    stop: StopRequest = field(default_factory=StopRequest)
    restart: asyncio.Event = field(default_factory=asyncio.Event)


async def serve_in_processes(
    settings: GatewaySettings, arguments: Sequence[str], requests: Requests, announce: Callable[[str], None]
) -> None:
    """Run `settings.processes` gateways that read `arguments` as ours were read, until they are to stop.

    `announce` is called once, with HOST:PORT. Raises SettingError for an address in use, ServiceErrors in an
    ExceptionGroup where the processes do not stay alive.
    """
    with _reserved_addresses(settings) as addresses, tempfile.TemporaryDirectory(prefix="qwen3-") as folder:
        plan = _Plan(
            program=_program(settings, addresses, arguments),
            metrics_folder=folder,
            stop=requests.stop,
            stop_limit_s=settings.lame_duck_s + settings.drain_grace_s + STOP_MARGIN_S,
        )
        places = [_Place(plan) for _ in range(settings.processes)]
        try:
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(_keep(places, requests, lambda: announce(addresses["listen"])))
                await requests.stop.drain.wait()
                keeping.cancel()
        finally:
            requests.stop.drain.set()  # whatever ended it, the operator's next signal is the one that hurries
            await _all(place.stop() for place in places)


async def _keep(places: Sequence["_Place"], requests: Requests, announce: Callable[[], None]) -> None:
    """Never returns. Raises ServiceErrors in an ExceptionGroup."""
    async with asyncio.TaskGroup() as watchers:
        await _all(place.open(watchers) for place in places)
        announce()
        while True:
            await requests.restart.wait()
            requests.restart.clear()
            await _restart(places, again=requests.restart)


async def _restart(places: Sequence["_Place"], *, again: asyncio.Event) -> None:
    """One by one. A new process that does not come up ends it, and the old ones serve on."""
    log.info("restarting")
    try:
        for place in places:
            await place.replace(again)
    except ServiceError as error:
        log.error("not restarted", error=str(error))  # noqa: TRY400 - the traceback would only lead here
    else:
        log.info("restarted")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What all processes have in common."""

    program: Program
    metrics_folder: str
    stop: StopRequest
    stop_limit_s: float
    policy: RestartPolicy = field(default_factory=RestartPolicy)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, SHARED_FOLDER: self.metrics_folder}


class _Place:
    """One of the processes: that which serves, and those before and after it as long as they run."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._running: set[Child] = set()
        self._draining: dict[Child, asyncio.Task[None]] = {}
        self._deaths_s: list[float] = []
        self._changing = asyncio.Lock()

    async def open(self, watchers: asyncio.TaskGroup) -> None:
        """Start the first one, and come back once it is ready; `watchers` start it again whenever it dies."""
        self._watchers = watchers
        self._serving = await self._start()
        await self._serving.until_ready()

    async def replace(self, again: asyncio.Event) -> None:
        """Start a successor, and once it is ready let the old one drain.

        Raises ServiceError where it ends, takes too long, or is not ready when a restart is asked for `again`.
        """
        successor = await self._start()
        try:
            await _until_ready(successor, again)
        except ServiceError:
            if not successor.has_exited:
                await self._drain(successor)  # it listens, and may have calls
            raise
        async with self._changing:
            old, self._serving = self._serving, successor
        await self._drain(old)

    async def stop(self) -> None:
        await _all(self._drain(child) for child in self._running)

    async def _start(self) -> Child:
        child = await Child.start(self._plan.program, self._plan.environment)
        self._running.add(child)
        self._watchers.create_task(self._watch(child))
        return child

    async def _drain(self, child: Child) -> None:
        """Asked once, since a second signal would cut its calls; and it goes on, should who waits for it give up."""
        if child not in self._draining:
            stopping = child.stop(hurry=self._plan.stop.hurry, limit_s=self._plan.stop_limit_s)
            self._draining[child] = asyncio.create_task(stopping)
        await asyncio.shield(self._draining[child])

    async def _watch(self, child: Child) -> None:
        """Start another one if it dies unasked. Raises ServiceError where that happens too often."""
        await child.exited()
        self._running.discard(child)
        self._draining.pop(child, None)
        mark_process_dead(child.pid, self._plan.metrics_folder)  # type: ignore[no-untyped-call]  # the library's
        if child is self._serving:
            await asyncio.sleep(self._delay_s(child))
            async with self._changing:
                if child is self._serving:
                    self._serving = await self._start()

    def _delay_s(self, dead: Child) -> float:
        """Seconds until the next one may start."""
        self._deaths_s.append(time.monotonic())
        policy = self._plan.policy
        delay_s = policy.delay_s(self._deaths_s)
        if delay_s is None:
            raise dead.death(f"for the {policy.max_deaths}th time in {policy.window_s:.0f} s")
        log.warning("process died", pid=dead.pid, restart_in_s=delay_s)
        return delay_s


def _program(settings: GatewaySettings, addresses: Mapping[str, str], arguments: Sequence[str]) -> Program:
    """What the parent goes by itself stays as it is, whatever the settings file says by now: the last flags win."""
    decided = {
        **addresses,
        "processes": settings.processes,
        "lame_duck_s": settings.lame_duck_s,
        "drain_grace_s": settings.drain_grace_s,
    }
    flags = [f"{_flag(name)}={value}" for name, value in decided.items()]
    return Program(name="a gateway process", command=(sys.executable, "-m", "gateway.process", *arguments, *flags))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


async def _until_ready(child: Child, again: asyncio.Event) -> None:
    """Raises ServiceError where the child is not ready in time, or before `again` is set."""
    ready, asked = asyncio.create_task(child.until_ready()), asyncio.create_task(again.wait())
    try:
        await asyncio.wait([ready, asked], timeout=READY_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            why = "when it was to be replaced again" if again.is_set() else f"after {READY_LIMIT_S:.0f} s"
            raise ServiceError(f"{child.name} was not ready {why}")
        await ready
    finally:
        ready.cancel()
        asked.cancel()


@contextlib.contextmanager
def _reserved_addresses(settings: GatewaySettings) -> Iterator[dict[str, str]]:
    """By setting, with their ports chosen, and "" for the one that is not set; nobody else can listen there inside."""
    asked = {"listen": settings.listen, "http_listen": settings.http_listen}
    with contextlib.ExitStack() as stack:
        found = dict.fromkeys(asked, "")
        for name, address in asked.items():
            if address is not None:
                holder = stack.enter_context(_hold(address, flag=_flag(name)))
                found[name] = f"{address.rpartition(':')[0]}:{holder.getsockname()[1]}"
        yield found


def _hold(address: str, *, flag: str) -> socket.socket:
    """A socket that is bound and does not listen. Raises SettingError where anybody else listens there."""
    with contextlib.ExitStack() as stack:
        try:
            family, where = _resolve(address)
            holder = stack.enter_context(socket.socket(family))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # or connections of the past hold the port
            holder.bind(where)
        except OSError as error:
            raise SettingError(f"{flag} {address}: cannot listen there") from error
        # Only now: a port that is bound with it is shared with strangers who do the same, and nobody notices.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stack.pop_all()
        return holder


def _resolve(address: str) -> tuple[int, Any]:
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    return family, where


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Side by side. Raises an ExceptionGroup."""
    async with asyncio.TaskGroup() as tasks:
        for each in work:
            tasks.create_task(each)
