"""Tenants are held to their quotas: in requests per second, in tokens per second, and in calls in flight.

Every call, and every chunk of a stream, is a request, and costs its input tokens as they are after truncation; counting
tokens costs a request only, and asking for models nothing. What is refused costs nothing, whether by a quota or by the
queue. What the queue lets in is charged, whatever becomes of it.

A call over quota is refused, and told when to come back. So is a chunk, and its stream does as it is told: the chunk
waits, and the stream reads no more than it has room for.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Self

from gateway.calls import Call
from gateway.errors import CallError
from gateway.reasons import Reason
from gateway.tenants import Tenant
from jobqueue.connection import AsyncRedis
from jobqueue.errors import DrainingError, NoWorkerError, QueueFullError
from jobqueue.quotas import Charge, Limit, Quota, QuotaLedger

_NOTHING_HELD = nullcontext()
_QUEUES_REFUSALS = (QueueFullError, DrainingError, NoWorkerError)
_WORDS = {
    Limit.REQUESTS: "requests per second",
    Limit.TOKENS: "tokens per second",
    Limit.IN_FLIGHT: "calls in flight",
}


class Quotas:
    """One gateway's; an async context manager, at whose end Redis knows what is not in flight any more."""

    def __init__(self, client: AsyncRedis) -> None:
        self._ledger = QuotaLedger(client)
        self._tenants: dict[str, Tenant] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._ledger.settle()

    def check(self, call: Call) -> None:
        """Raises CallError where it is known already that a call that needs tokens is over quota.

        Before anything has been done for the call this costs next to nothing, and it refuses none that Redis would not.
        """
        quota = call.caller.quota
        if quota is not None:
            tenant = self._tenant(call.caller.tenant, quota)
            _refuse_if(tenant.limit_met(needs_tokens=True), tenant)

    def held(self, call: Call) -> AbstractAsyncContextManager[None]:
        """Inside, the call is in flight, and has been charged the tokens of its `work`, where it has some.

        Raises CallError where it is over quota, and QueueAwayError.
        """
        quota = call.caller.quota
        return _NOTHING_HELD if quota is None else self._held(call, quota)

    @contextlib.asynccontextmanager
    async def _held(self, call: Call, quota: Quota) -> AsyncIterator[None]:
        tenant = self._tenant(call.caller.tenant, quota)
        charge = Charge(tenant=tenant.name, quota=quota, num_tokens=call.work.input_tokens if call.work else 0)
        _refuse_if(tenant.limit_met(needs_tokens=charge.num_tokens > 0), tenant)
        _refuse_if(await self._spend(tenant, charge, call.deadline), tenant)
        begun_at, is_refused = tenant.begin(), False
        try:
            yield
        except _QUEUES_REFUSALS:
            is_refused = True
            raise
        finally:
            tenant.end(begun_at)
            self._ledger.end(charge, gives_back=is_refused)

    async def _spend(self, tenant: Tenant, charge: Charge, deadline: float) -> Limit | None:
        """The limit that it meets."""
        asked_at = asyncio.get_running_loop().time()
        refusal = await self._ledger.spend(charge, ttl_ms=max(int((deadline - asked_at) * 1000), 1))
        if refusal is None:
            return None
        tenant.note(refusal, charge.num_tokens, asked_at)
        return refusal.limit

    def _tenant(self, name: str, quota: Quota) -> Tenant:
        """What is known of it; nothing after its quota has changed."""
        tenant = self._tenants.get(name)
        if tenant is None or tenant.quota != quota:
            tenant = self._tenants[name] = Tenant(name, quota)
        return tenant


def _refuse_if(limit: Limit | None, tenant: Tenant) -> None:
    """Raises CallError where a limit is met."""
    if limit is not None:
        raise CallError(
            reason=Reason[f"QUOTA_{limit.name}"],
            message=f"the quota of {tenant.quota.of(limit):.10g} {_WORDS[limit]} is used up",
            quota_subject=tenant.name,
            retry_s=tenant.retry_s(limit),
        )
