"""Script calls from one event loop: what waits for the last round trip travels in the next one.

A script that takes a list of things takes those of all callers at once, so that a busy gateway sends few, long calls.
Those of one script, with the same keys and head, are run in the order in which they were sent.
One await per command costs redis-py about three times as much CPU.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import redis

from jobqueue import scripts
from jobqueue.away import is_away, is_elsewhere, is_no_reply
from jobqueue.connection import REPLY_TIMEOUT_S, AsyncRedis, forget_connections_async
from jobqueue.errors import OutcomeUnknownError, QueueAwayError

AT_ONCE = 256  # a script must not hold up the server for long
MOST_BYTES = 16 * 1024 * 1024  # of a round trip, which has REPLY_TIMEOUT_S

Item = Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One item of a script's list, and who waits for its reply."""

    name: str
    keys: tuple[bytes, ...]
    head: tuple[Any, ...]
    item: Item
    reply: "asyncio.Future[Any]"

    @property
    def num_bytes(self) -> int:
        return sum([len(part) for part in self.item if type(part) is bytes])


class Pipeline:
    """Coalesces script calls; safe for any number of tasks of one loop.

    `is_away`: the last round trip brought no replies.
    """

    def __init__(self, client: AsyncRedis, keys: Sequence[str], *, gather_s: Callable[[], float] = lambda: 0.0) -> None:
        """Before a round trip, which costs as much CPU as three jobs more, `gather_s` seconds are waited for them."""
        self._redis = client
        self._gather_s = gather_s
        self._keys = tuple(key.encode() for key in keys)
        self._waiting: list[_Call] = []
        self._sender: asyncio.Task[None] | None = None
        self.is_away = False

    def send(
        self, name: str, head: tuple[Any, ...], item: Item, *, keys: tuple[bytes, ...] | None = None
    ) -> "asyncio.Future[Any]":
        """Have the script run with `head` and a list in which `item` is one; the item's own reply.

        It runs on the pipeline's keys, or on those given.
        It raises QueueAwayError where Redis refuses it now, OutcomeUnknownError where no reply came: the script may
        have run then. The script runs whether or not anybody waits for the reply.
        """
        reply = asyncio.get_running_loop().create_future()
        keys = self._keys if keys is None else keys
        self._waiting.append(_Call(name=name, keys=keys, head=head, item=item, reply=reply))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return reply

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._gather_s())
                calls = self._next_load()
                groups = list(_grouped(calls))
                for group, outcome in zip(groups, await self._outcomes(groups), strict=True):
                    _settle(group, outcome)
        finally:
            self._sender = None

    def _next_load(self) -> list[_Call]:
        """What travels next: at least one call, and no more bytes than a round trip has time for."""
        num_bytes, num_calls = 0, 0
        while num_calls < len(self._waiting) and (not num_calls or num_bytes < MOST_BYTES):
            num_bytes += self._waiting[num_calls].num_bytes
            num_calls += 1
        load, self._waiting = self._waiting[:num_calls], self._waiting[num_calls:]
        return load

    async def _outcomes(self, groups: Sequence[Sequence[_Call]]) -> Sequence[Any]:
        """An outcome per group: replies, or the exception that its callers are to see."""
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                outcomes = await self._round_trip(groups)
        except Exception as error:  # noqa: BLE001 - each caller raises it
            outcomes = [error] * len(groups)
        if any(is_elsewhere(outcome) for outcome in outcomes):
            await forget_connections_async(self._redis)
        told = [_told(outcome) for outcome in outcomes]
        self.is_away = all(isinstance(outcome, OutcomeUnknownError) for outcome in told)
        return told

    async def _round_trip(self, groups: Sequence[Sequence[_Call]]) -> Sequence[Any]:
        pipeline: Any = self._redis.pipeline(transaction=False)
        for group in groups:
            # Not evalsha(), which redis-py's Cluster pipelines do not have.
            pipeline.execute_command("EVALSHA", scripts.load(group[0].name).digest, *_arguments(group))
        outcomes = await pipeline.execute(raise_on_error=False)
        return [await self._reloaded(group, outcome) for group, outcome in zip(groups, outcomes, strict=True)]

    async def _reloaded(self, group: Sequence[_Call], outcome: Any) -> Any:
        """The outcome, or that of sending the source where the server did not know the script."""
        if not isinstance(outcome, redis.exceptions.NoScriptError):
            return outcome
        client: Any = self._redis
        try:
            return await client.execute_command("EVAL", scripts.load(group[0].name).source, *_arguments(group))
        except redis.ResponseError as error:
            return error


def _arguments(group: Sequence[_Call]) -> Iterator[Any]:
    """What EVALSHA wants after the digest."""
    first = group[0]
    return chain([len(first.keys)], first.keys, first.head, *(call.item for call in group))


def _grouped(calls: Sequence[_Call]) -> Iterator[Sequence[_Call]]:
    """Calls that one script call can carry: of the same script, keys and head, and not too many."""
    groups: dict[tuple[Any, ...], list[_Call]] = {}
    for call in calls:
        groups.setdefault((call.name, call.keys, call.head), []).append(call)
    for group in groups.values():
        yield from (group[start : start + AT_ONCE] for start in range(0, len(group), AT_ONCE))


def _told(outcome: Any) -> Any:
    """What callers are to see. A Cluster's pipeline brings lost connections as outcomes."""
    if is_no_reply(outcome):
        return OutcomeUnknownError(str(outcome))
    return QueueAwayError(str(outcome)) if is_away(outcome) else outcome


def _settle(group: Sequence[_Call], outcome: Any) -> None:
    outcomes = [outcome] * len(group) if isinstance(outcome, Exception) else outcome
    for call, reply in zip(group, outcomes, strict=True):
        if call.reply.cancelled():
            continue
        if isinstance(reply, Exception):
            call.reply.set_exception(reply)
            call.reply.exception()  # seen, where nobody waits for it any more
        else:
            call.reply.set_result(reply)
