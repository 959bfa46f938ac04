"""What an operator sees of a queue: the reply of `status.lua` in words. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobqueue.consumer import LOW_LANE_FIRST_EVERY
from jobqueue.keys import ORPHANS

_HI_SHARE = 1 - 1 / LOW_LANE_FIRST_EVERY  # of the takes, while bulk work waits too; as admission counts


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """Jobs admitted and not ended: those that workers hold (`in_flight`), and those that wait.

    `orphans` of the waiting ones were given back, or left by a dead worker. `oldest_ms` is the age of the oldest job.
    """

    tokens: int
    jobs: int
    in_flight: int
    orphans: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A worker that has or had a lease; `lease_ms` of it remain, none where it has died and nobody has noticed yet."""

    name: str
    loading: bool
    lease_ms: int
    in_flight: int
    tokens_per_s: float | None

    @property
    def is_alive(self) -> bool:
        return self.lease_ms > 0

    @property
    def takes_jobs(self) -> bool:
        return self.is_alive and not self.loading


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """A queue at one instant."""

    queue: str
    paused: bool
    draining: bool
    interactive: LaneStatus
    bulk: LaneStatus
    workers: tuple[WorkerStatus, ...]
    dead_letters: int

    @property
    def jobs(self) -> int:
        return self.interactive.jobs + self.bulk.jobs

    @property
    def tokens(self) -> int:
        return self.interactive.tokens + self.bulk.tokens

    @property
    def num_live(self) -> int:
        """Workers that take jobs."""
        return sum(worker.takes_jobs for worker in self.workers)

    @property
    def tokens_per_s(self) -> float | None:
        """What the live workers end together; None until one has measured it."""
        rates = [worker.tokens_per_s for worker in self.workers if worker.takes_jobs and worker.tokens_per_s]
        return sum(rates) if rates else None

    @property
    def interactive_wait_s(self) -> float | None:
        """How long a new interactive call would wait for its turn; None where the pace is unknown."""
        if not self.interactive.tokens:
            return 0.0
        if self.tokens_per_s is None:
            return None
        return self.interactive.tokens / (self.tokens_per_s * (_HI_SHARE if self.bulk.tokens else 1.0))


def read_status(queue: str, reply: Sequence[Any]) -> QueueStatus:
    """The status in a reply of `status.lua`."""
    now_ms, hi, lo, working, loading, rates, control, dead_letters = reply
    switches = _pairs(control)
    return QueueStatus(
        queue=queue,
        paused="paused" in switches,
        draining="draining" in switches,
        interactive=_lane(hi, now_ms),
        bulk=_lane(lo, now_ms),
        workers=tuple(
            WorkerStatus(
                name=name,
                loading=leases is loading,
                lease_ms=int(float(expiry)) - now_ms,
                in_flight=sum(int(_pairs(lane[3]).get(name, 0)) for lane in (hi, lo)),
                tokens_per_s=_number(_pairs(rates).get(name)),
            )
            for leases in (working, loading)
            for name, expiry in _pairs(leases).items()
        ),
        dead_letters=dead_letters,
    )


def _lane(reply: Sequence[Any], now_ms: int) -> LaneStatus:
    tokens, jobs, oldest_id, holders = reply
    held = {name: int(num) for name, num in _pairs(holders).items()}
    orphans = held.pop(ORPHANS, 0)
    return LaneStatus(
        tokens=int(tokens),
        jobs=jobs,
        in_flight=sum(held.values()),
        orphans=orphans,
        oldest_ms=max(now_ms - int(oldest_id.partition(b"-")[0]), 0) if oldest_id else None,
    )


def _pairs(flat: Sequence[Any]) -> Mapping[str, Any]:
    return {name.decode(errors="replace"): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _number(value: bytes | None) -> float | None:
    return None if value is None else float(value)
