"""What a row is made of, and the stage on which it is played."""

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tests.faults.load import Clients, Load
from tests.faults.questions import Asking, mixed
from tests.faults.redis_servers import server
from tests.faults.service import Service, WorkerPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of a row is played: so many calls, over `seconds`, with up to `num_events` faults."""

    num_calls: int
    is_long: bool


@dataclass(slots=True, kw_only=True)
class Stage:
    """A running service under load. `num_events` counts the faults so far; `note` is for the table."""

    redis: Any
    service: Service
    load: Load
    size: Size
    num_events: int = 0
    note: str = ""
    problems: list[str] = field(default_factory=list)

    async def moments(self, *, short: int, long: int) -> AsyncIterator[int]:
        """Comes back so many times at most, spread over the first nine tenths of the load, and only while it lasts."""
        num = long if self.size.is_long else short
        for place in range(num):
            await self.load.started(0.1 + 0.8 * place / num)
            if self.load.has_ended:
                return
            yield place
            self.num_events += 1

    def check(self, condition: object, problem: str) -> None:
        if not condition:
            self.problems.append(problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the harness hands to echo workers."""

    tokenizer: Path
    ledger: Path


Inject: TypeAlias = Callable[[Stage], Coroutine[Any, Any, None]]
Prepare: TypeAlias = Callable[[Clients, Any], Coroutine[Any, Any, None]]
Finish: TypeAlias = Callable[[Stage], None]
Plan: TypeAlias = Callable[[Files, Size], Sequence[WorkerPlan]]
OpenRedis: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A fault, what it means to a user, and what it is tried on.

    `prepare` comes before the load; `inject` runs beside it and heals what it breaks; `finish` looks at the outcome.
    `short_s` and `long_s` are the load's seconds; `worker_exits` are the exit statuses that workers may have.
    `may_repeat`: Redis forgets, or what it said gets lost, so that a job may be run and ended twice. `may_refuse`:
    clients may lose patience.
    """

    name: str
    fault: str
    meaning: str
    inject: Inject
    plan: Plan
    redis: OpenRedis = server
    ask: Asking = mixed
    prepare: Prepare | None = None
    finish: Finish | None = None
    num_gateways: int = 2
    gateway_options: Sequence[str] = ()
    short_s: float = 3.0
    long_s: float = 25.0
    in_short: bool = True
    worker_exits: frozenset[int] = frozenset()
    may_repeat: bool = False
    may_refuse: bool = False
    is_real: bool = False
