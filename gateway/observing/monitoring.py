"""What the gateway shows of itself over HTTP, wired: its metrics, whether its event loop turns, whether it is ready."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from gateway.config import GatewaySettings
from gateway.observing.metrics import CallMetrics
from gateway.observing.observers import CallObserver
from gateway.observing.queue_metrics import QueueCollector, QueueWatch
from gateway.registry import Registry
from jobqueue.connection import AsyncRedis
from runtime.http import Pulse, Watched, watching_port
from runtime.metrics import new_registry, shown_registry

BEAT_S = 1.0
HUNG_AFTER_S = 15.0


class Monitoring:
    """Does nothing where the settings name no address to show it at. `observers` count calls."""

    def __init__(self, settings: GatewaySettings, client: AsyncRedis, stopping: asyncio.Event) -> None:
        self._address = settings.http_listen
        self._has_siblings = settings.processes > 1
        self._stopping = stopping
        self._registry: Registry | None = None
        self._pulse = Pulse(limit_s=HUNG_AFTER_S)
        self._queues = QueueWatch(client)
        self._close_port: Callable[[], None] = lambda: None
        counted = new_registry()
        self.observers: Sequence[CallObserver] = [CallMetrics(counted)] if self._address else []
        self._shown = shown_registry(counted)
        self._shown.register(QueueCollector(self._queues))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, probes and scrapes are answered. Raises SettingError."""
        watched = Watched(metrics=self._shown, hung=self._pulse.problem, unready=self._unready)
        with watching_port(self._address, watched, reuse_port=self._has_siblings) as self._close_port:
            self._beat()
            try:
                yield
            finally:
                self._next_beat.cancel()

    def serves(self, registry: Registry) -> None:
        """The gateway listens, and is ready from now on while `registry` can be refreshed."""
        self._registry = registry

    def drains(self) -> None:
        """Leave the port to processes that go on: a probe that meets this one would take all of them for unready."""
        if self._has_siblings:
            self._close_port()

    async def run(self) -> None:
        """Keep the queues' metrics up to date."""
        if self._address:
            await self._queues.run()

    def _beat(self) -> None:
        """A timer and no task: it is there before all tasks and after them."""
        self._pulse.beat()
        self._next_beat = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def _unready(self) -> str | None:
        """Asked in another thread."""
        if self._stopping.is_set():
            return "stopping"
        if self._registry is None:
            return "starting"
        return None if self._registry.catalog.reachable else "redis is away"


@contextlib.asynccontextmanager
async def monitored(
    settings: GatewaySettings, client: AsyncRedis, stopping: asyncio.Event
) -> AsyncIterator[Monitoring]:
    """As `listening`, among other asynchronous contexts."""
    monitoring = Monitoring(settings, client, stopping)
    with monitoring.listening():
        yield monitoring
