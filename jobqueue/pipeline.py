"""Script calls from one event loop: all that are made in one tick travel as one pipeline.

One await per command costs redis-py about three times as much CPU.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from jobqueue import scripts
from jobqueue.connection import REPLY_TIMEOUT_S, AsyncRedis, forget_connections_async, is_away, is_cluster
from jobqueue.errors import OutcomeUnknownError, QueueAwayError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    name: str
    keys: Sequence[str]
    arguments: Sequence[Any]
    reply: "asyncio.Future[Any]"


class Pipeline:
    """Coalesces script calls on one queue; safe for any number of tasks of one loop.

    `is_away`: the last pipeline got no replies.
    """

    def __init__(self, client: AsyncRedis) -> None:
        self._redis = client
        self._is_cluster = is_cluster(client)
        self._waiting: list[_Call] = []
        self._sender: asyncio.Task[None] | None = None
        self.is_away = False

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The script's reply.

        Raises QueueAwayError where Redis refuses it now, OutcomeUnknownError where no reply came: it may have run then.
        """
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
        """An outcome per call: a reply, or the exception that its caller is to see."""
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                outcomes = await self._outcomes(calls)
        except Exception as error:  # noqa: BLE001 - each caller raises it
            outcomes = [OutcomeUnknownError(str(error)) if is_away(error) else error] * len(calls)
        self.is_away = all(isinstance(outcome, OutcomeUnknownError) for outcome in outcomes)
        if self.is_away or any(is_away(outcome) for outcome in outcomes):
            await forget_connections_async(self._redis)
        return [QueueAwayError(str(outcome)) if is_away(outcome) else outcome for outcome in outcomes]

    async def _outcomes(self, calls: Sequence[_Call]) -> Sequence[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            script = scripts.load(call.name)
            if self._is_cluster:  # redis-py has no EVALSHA in a cluster's pipelines
                pipeline.eval(script.source, len(call.keys), *call.keys, *call.arguments)
            else:
                pipeline.evalsha(script.digest, len(call.keys), *call.keys, *call.arguments)
        outcomes = await pipeline.execute(raise_on_error=False)
        return [await self._reloaded(call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]

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
    if isinstance(outcome, Exception):
        call.reply.set_exception(outcome)
    else:
        call.reply.set_result(outcome)
