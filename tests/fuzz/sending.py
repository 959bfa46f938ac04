"""Cases are sent, many at once, and what came of them is counted."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio

from tests.fuzz.cases import Case
from tests.fuzz.outcomes import LIMIT_S, Outcome, fault_of, reason_of

IN_FLIGHT = 32
MOST_SHOWN = 20


@dataclass(slots=True, kw_only=True)
class Findings:
    """`endings` are by rpc, status and reason; `faults` are what should not be, the first of them."""

    num_calls: int = 0
    num_messages: int = 0
    endings: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    num_faults: int = 0
    slowest_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.num_calls += 1
        self.num_messages += len(outcome.case.messages)
        self.endings[outcome.case.rpc.name, outcome.code.name, outcome.reason] += 1
        self.slowest_s = max(self.slowest_s, outcome.seconds)
        if fault := fault_of(outcome):
            self.num_faults += 1
            case = outcome.case
            told = f"{case.rpc.path} #{case.number}: {fault}: {outcome.code.name} {outcome.reason} {outcome.message!r}"
            self.faults = [*self.faults, told][:MOST_SHOWN]


async def send_all(channels: Sequence[grpc.aio.Channel], cases: Iterator[Case], key: str, found: Findings) -> None:
    """Each with `key`, but for those that bring credentials of their own."""
    async with asyncio.TaskGroup() as tasks:
        for sender in range(IN_FLIGHT):
            tasks.create_task(_send_each(channels[sender % len(channels)], cases, key, found))


async def _send_each(channel: grpc.aio.Channel, cases: Iterator[Case], key: str, found: Findings) -> None:
    for case in cases:  # which all senders share
        found.add(await send(channel, case, key))


async def send(channel: grpc.aio.Channel, case: Case, key: str) -> Outcome:
    """Any rpc is called as one that streams both ways, which to a server looks the same."""
    started = time.monotonic()
    method = channel.stream_stream(case.rpc.path)
    call = method(_each(case.messages), timeout=case.timeout_s or LIMIT_S, metadata=_metadata(case, key))
    responses: list[bytes] = []
    if case.hangs_up:
        await asyncio.sleep(0)
        call.cancel()
    try:
        async for response in call:
            responses.append(response)
            if case.rpc.is_endless:
                call.cancel()
    except (grpc.RpcError, asyncio.CancelledError):
        pass
    code, message, trailers = await call.code(), await call.details(), await call.trailing_metadata()
    return Outcome(
        case=case,
        code=code,
        message=message or "",
        reason=reason_of(tuple(trailers or ())),
        responses=responses,
        seconds=time.monotonic() - started,
    )


def _metadata(case: Case, key: str) -> Sequence[tuple[str, str | bytes]]:
    if any(name == "authorization" for name, _ in case.metadata):
        return case.metadata
    return (*case.metadata, ("authorization", f"Bearer {key}"))


async def _each(messages: Sequence[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message
