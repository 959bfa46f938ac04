"""What a row has come to: every call's end, and what is left in Redis when nothing is to be done any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import ResponseError

from jobqueue.keys import GROUP, QueueKeys
from jobqueue.lanes import Lane
from tests.faults.echo_worker import MODELS, REVISION
from tests.faults.kill_points import count_ended_twice
from tests.faults.load import End, Load, Outcome
from tests.faults.redis_servers import Redis
from tests.faults.stage import Row
from tests.faults.waiting import until

IDLE_LIMIT_S = 40.0  # what a Redis that lost some of its data has kept by mistake may stay until it expires
DYING_REPLIES_TTL_S = 10  # a living gateway's reply stream has more, a dead one's expires by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A row of the table. `problems` is empty where it passed."""

    name: str
    num_requests: int
    num_lost: int
    num_wrong: int
    num_duplicated: int
    num_again: int
    num_late: int
    num_refused_then_answered: int
    num_refused: int
    num_events: int
    worst_s: float
    seconds: float
    note: str
    problems: Sequence[str]

    @property
    def passed(self) -> bool:
        return not self.problems


def queues() -> list[QueueKeys]:
    """Those that echo workers serve."""
    return [QueueKeys(f"{model}@{REVISION}") for model in MODELS.values()]


async def until_idle(server: Redis, keys: Sequence[QueueKeys]) -> list[str]:
    """Wait until nothing waits, runs or is counted; what is left where it does not come to that."""
    left: dict[str, int] = {}

    async def is_idle() -> bool:
        nonlocal left
        try:
            left = await _left(server, keys)
        except (redis.RedisError, OSError) as error:
            left = {f"{type(error).__name__}: {error}": 1}
        return not left

    try:
        await until(is_idle, what="idle", give_up_s=IDLE_LIMIT_S)
    except TimeoutError:
        return [f"left behind: {left}"]
    return []


async def _left(server: Redis, keys: Sequence[QueueKeys]) -> dict[str, int]:
    """Every count that is not zero."""
    async with server.client() as client:
        counts = [await _counts(client, queue) for queue in keys]
    return {name: count for found in counts for name, count in found.items() if count}


async def _counts(client: Any, keys: QueueKeys) -> dict[str, int]:
    found: dict[str, int] = {}
    for hash_key in (keys.depth, keys.tenants):
        fields = await client.hgetall(hash_key)
        found |= {f"{hash_key} {field.decode()}": int(value) for field, value in fields.items()}
    for lane in Lane:
        stream = keys.lane(lane.key)
        found[f"{stream} XLEN"] = await client.xlen(stream)
        found[f"{stream} pending"] = await _num_pending(client, stream)
    async for stream in client.scan_iter(match=keys.replies("*"), count=1000):
        if await client.ttl(stream) > DYING_REPLIES_TTL_S:
            found[f"{stream.decode()} XLEN"] = await client.xlen(stream)
    return found


async def _num_pending(client: Any, stream: str) -> int:
    try:
        return int((await client.xpending(stream, GROUP))["pending"])
    except ResponseError:  # no group: nobody has called since the data was lost
        return 0


def judge(
    row: Row, load: Load, *, ledger: Path, num_events: int, seconds: float, note: str, problems: Sequence[str]
) -> Result:
    """The row's numbers, and what is wrong with them beside `problems`.

    A job that is ended twice is a fault, except where Redis or a connection to it is lost: what nobody can know is
    admitted again there, and its second answer finds no call that waits.
    """
    num_again = count_ended_twice(ledger)
    ends = {end: [outcome for outcome in load.outcomes if outcome.end is end] for end in End}
    numbers = {
        "num_lost": len(ends[End.LOST]) + load.num_calls - len(load.outcomes),
        "num_wrong": len(ends[End.WRONG]),
        "num_duplicated": 0 if row.may_repeat else num_again,
        "num_late": sum(outcome.is_late for outcome in load.outcomes),
    }
    answered = ends[End.ANSWERED]
    refused = {} if row.may_refuse else {"num_refused": len(ends[End.REFUSED])}
    return Result(
        name=row.name,
        num_requests=load.num_calls,
        num_refused_then_answered=sum(outcome.num_refusals > 0 for outcome in answered),
        num_refused=len(ends[End.REFUSED]),
        num_again=num_again,
        num_events=num_events,
        worst_s=max((outcome.latency_s for outcome in answered), default=0.0),
        seconds=seconds,
        note=note,
        problems=[*problems, *_bad_numbers(numbers | refused), *_examples(load.outcomes)],
        **numbers,
    )


def _bad_numbers(numbers: dict[str, int]) -> list[str]:
    return [f"{name.removeprefix('num_')} {count}" for name, count in numbers.items() if count]


def _examples(outcomes: Sequence[Outcome]) -> list[str]:
    """The first few calls that were lost, so that a failing row says why."""
    lost = [outcome for outcome in outcomes if outcome.end is End.LOST]
    return [f"call {outcome.question.number} after {outcome.latency_s:.1f} s: {outcome.error}" for outcome in lost[:3]]


def failed(name: str, num_requests: int, error: BaseException) -> Result:
    """A row that could not be played to its end."""
    causes = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
    return Result(
        name=name,
        num_requests=num_requests,
        num_lost=0,
        num_wrong=0,
        num_duplicated=0,
        num_again=0,
        num_late=0,
        num_refused_then_answered=0,
        num_refused=0,
        num_events=0,
        worst_s=0.0,
        seconds=0.0,
        note="",
        problems=[f"{type(cause).__name__}: {cause}" for cause in causes],
    )
