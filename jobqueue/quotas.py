"""What tenants have used of their quotas: kept in Redis, so that all gateways share it, and by Redis's clock.

`scripts/spend.lua` says how it is counted. What a server loses that keeps nothing on disk, its tenants may use again.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from jobqueue.connection import SETTLE_S, AsyncRedis
from jobqueue.errors import OutcomeUnknownError
from jobqueue.keys import quota_keys
from jobqueue.pipeline import Pipeline

_IS_OVER = 0  # instead of the ms until its deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a tenant may use, at all gateways together; each is above 0. None: no limit."""

    requests_per_s: float | None = None
    tokens_per_s: float | None = None
    max_in_flight: int | None = None

    def of(self, limit: "Limit") -> float:
        """The value of a limit that there is."""
        value = (self.requests_per_s, self.tokens_per_s, self.max_in_flight)[limit - 1]
        if value is None:
            raise LookupError(f"no limit of {limit.name}")
        return value


class Limit(IntEnum):
    """Which of a quota's limits; values as in `scripts/spend.lua`."""

    REQUESTS = 1
    TOKENS = 2
    IN_FLIGHT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The limit that a call meets; worth another try in `retry_s` seconds, 0 where nobody knows."""

    limit: Limit
    retry_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A call as its tenant's quota sees it. `num_tokens` 0: it needs none, so that a debt of tokens does not matter."""

    tenant: str
    quota: Quota
    num_tokens: int
    id: bytes = field(default_factory=lambda: os.urandom(16))


class QuotaLedger:
    """One gateway process's hand on what all of them count."""

    def __init__(self, client: AsyncRedis) -> None:
        self._pipeline = Pipeline(client, ())
        self._endings: set[asyncio.Future[Any]] = set()

    async def spend(self, charge: Charge, *, ttl_ms: int) -> Refusal | None:
        """Charge a call that is over in `ttl_ms`, or when `end` says so; None, or why it may not begin.

        Raises QueueAwayError.
        """
        try:
            limit, retry_ms = await self._send(charge, ttl_ms, charge.num_tokens)
        except (asyncio.CancelledError, OutcomeUnknownError):
            self.end(charge)
            raise
        return Refusal(limit=Limit(limit), retry_s=retry_ms / 1000) if limit else None

    def end(self, charge: Charge, *, gives_back: bool = False) -> None:
        """The call is not in flight any more, and gives back what it was charged if nothing was done for it.

        Redis hears of it soon; if it does not, the call counts until its deadline.
        """
        if gives_back or charge.quota.max_in_flight is not None:
            ending = self._send(charge, _IS_OVER, charge.num_tokens if gives_back else 0)
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    async def settle(self) -> None:
        """Wait until Redis has heard of all that is over: for seconds at most, deadlines end the rest."""
        if self._endings:
            await asyncio.wait(self._endings, timeout=SETTLE_S)

    def _send(self, charge: Charge, ttl_ms: int, num_tokens: int) -> "asyncio.Future[Sequence[int]]":
        """A call's beginning and its end travel in this order, since they are items of the same script's list."""
        quota = charge.quota
        limits = (quota.requests_per_s, quota.tokens_per_s, quota.max_in_flight)
        head = tuple("" if limit is None else limit for limit in limits)
        item = (charge.id, ttl_ms, num_tokens)
        return self._pipeline.send("spend", head, item, keys=quota_keys(charge.tenant))
