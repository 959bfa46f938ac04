"""Script calls from one event loop: all that are made in one tick travel as one pipeline.

One await per command costs redis-py about three times as much CPU.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from jobqueue import scripts
from jobqueue.connection import REPLY_TIMEOUT_S, AsyncRedis, is_away
from jobqueue.errors import QueueAwayError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    name: str
    keys: Sequence[str]
    arguments: Sequence[Any]
    reply: "asyncio.Future[Any]"


class Pipeline:
    """Coalesces script calls; safe for any number of tasks of one loop."""

    def __init__(self, client: AsyncRedis) -> None:
        self._redis = client
        self._waiting: list[_Call] = []
        self._sender: asyncio.Task[None] | None = None

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The script's reply. Raises QueueAwayError where Redis cannot be reached; it may have run all the same."""
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(name=name, keys=keys, arguments=arguments, reply=reply))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return await reply

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                calls, self._waiting = self._waiting, []
                for call, outcome in zip(calls, await self._send(calls), strict=True):
                    _settle(call, outcome)
        finally:
            self._sender = None

    async def _send(self, calls: Sequence[_Call]) -> Sequence[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            script = scripts.load(call.name)
            pipeline.evalsha(script.digest, len(call.keys), *call.keys, *call.arguments)
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                outcomes = await pipeline.execute(raise_on_error=False)
                return [await self._reloaded(call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]
        except Exception as error:  # noqa: BLE001 - each caller raises it
            return [error] * len(calls)

    async def _reloaded(self, call: _Call, outcome: Any) -> Any:
        """The outcome, or that of sending the source where the server did not know the script."""
        if not isinstance(outcome, redis.exceptions.NoScriptError):
            return outcome
        try:
            script = scripts.load(call.name)
            return await self._redis.eval(script.source, len(call.keys), *call.keys, *call.arguments)
        except redis.ResponseError as error:
            return error


def _settle(call: _Call, outcome: Any) -> None:
    if call.reply.cancelled():
        return
    if is_away(outcome):
        call.reply.set_exception(QueueAwayError(str(outcome)))
    elif isinstance(outcome, Exception):
        call.reply.set_exception(outcome)
    else:
        call.reply.set_result(outcome)
