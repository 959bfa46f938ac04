"""The Prometheus metrics of queues, as their Redis has them: the same from whichever gateway they are read."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobqueue.connection import REPLY_TIMEOUT_S, AsyncRedis, ResponseError, redis_border
from jobqueue.errors import QueueAwayError
from jobqueue.evaluate import evaluate_async
from jobqueue.keys import MODELS, QueueKeys
from jobqueue.status import LaneStatus, QueueStatus, WorkerStatus, read_status

POLL_S = 3.0

Value: TypeAlias = float | None

_OF_LANES: Sequence[tuple[str, str, Callable[[LaneStatus], Value]]] = (
    ("tokens", "Tokens admitted and not ended", lambda lane: lane.tokens),
    ("jobs", "Jobs admitted and not ended", lambda lane: lane.jobs),
    ("jobs_in_flight", "Those that a worker holds", lambda lane: lane.in_flight),
    ("orphans", "Those that wait again, because their worker gave them back or died", lambda lane: lane.orphans),
    ("oldest_seconds", "Age of the oldest job, 0 where there is none", lambda lane: (lane.oldest_ms or 0) / 1000),
)
_OF_QUEUES: Sequence[tuple[str, str, Callable[[QueueStatus], Value]]] = (
    ("wait_seconds", "How long a new interactive call would wait", lambda queue: queue.interactive_wait_s),
    ("tokens_per_second", "What the live workers end when busy", lambda queue: queue.tokens_per_s),
    ("dead_letters", "Jobs that were set aside and are kept for an operator", lambda queue: queue.dead_letters),
    ("paused", "1 while workers take nothing new", lambda queue: queue.paused),
    ("draining", "1 while new calls are refused", lambda queue: queue.draining),
)


class QueueWatch:
    """Knows how the announced queues were a few seconds ago, while `run` runs; None where Redis could not be asked."""

    def __init__(self, client: AsyncRedis) -> None:
        self._redis = client
        self.statuses: Sequence[QueueStatus] | None = None

    async def run(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        try:
            names = cast(list[bytes], await self._ask(cast(Any, self._redis.hkeys(MODELS))))
        except (QueueAwayError, ResponseError):  # the registry logs it
            self.statuses = None
        else:
            found = await asyncio.gather(*(self._status(name.decode(errors="replace")) for name in sorted(names)))
            self.statuses = [status for status in found if status is not None]

    async def _status(self, queue: str) -> QueueStatus | None:
        """None for what is no queue, and where a queue's own server of several is away."""
        try:
            keys = QueueKeys(queue).of_script()
            return read_status(queue, await self._ask(evaluate_async(self._redis, "status", keys)))
        except (QueueAwayError, ResponseError, ValueError):
            return None

    async def _ask(self, reply: Awaitable[Any]) -> Any:
        with redis_border():
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                return await reply


class QueueCollector(Collector):
    """What a QueueWatch knows. Nothing is shown of queues while Redis is away: old numbers would pass for new ones."""

    def __init__(self, watch: QueueWatch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        statuses = self._watch.statuses
        up = GaugeMetricFamily("qwen3_redis_up", "1 if Redis answered when the queues were last looked at")
        up.add_metric([], float(statuses is not None))
        yield up
        yield from _families(statuses or ())


def _families(statuses: Sequence[QueueStatus]) -> Iterator[Metric]:
    for name, description, of_lane in _OF_LANES:
        lanes = [(status, "interactive", of_lane(status.interactive)) for status in statuses]
        lanes += [(status, "bulk", of_lane(status.bulk)) for status in statuses]
        yield _family(name, description, lanes, "lane")
    for name, description, of_queue in _OF_QUEUES:
        yield _family(name, description, [(status, None, of_queue(status)) for status in statuses])
    states = [
        (status, state, sum(_state(worker) == state for worker in status.workers))
        for status in statuses
        for state in ("live", "loading", "dead")
    ]
    yield _family("workers", "Workers that take jobs, load weights, or have died and not been noticed", states, "state")


def _family(
    name: str, description: str, samples: Sequence[tuple[QueueStatus, str | None, Value]], *more_labels: str
) -> Metric:
    """A gauge of queues, each sample with one more label where there is one; unknown values are left out."""
    family = GaugeMetricFamily(f"qwen3_queue_{name}", description, labels=["model", "revision", *more_labels])
    for status, more, value in samples:
        model, _, revision = status.queue.rpartition("@")
        if value is not None:
            family.add_metric([model, revision, *([] if more is None else [more])], float(value))
    return family


def _state(worker: WorkerStatus) -> str:
    if not worker.is_alive:
        return "dead"
    return "loading" if worker.loading else "live"
