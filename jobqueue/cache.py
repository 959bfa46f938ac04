"""Answers that are kept in Redis for a while, so that what is asked again need not be computed again.

A cache may always be empty: what cannot be read is missing, and what cannot be kept is lost without harm.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jobqueue.connection import REPLY_TIMEOUT_S, AsyncRedis, ResponseError
from jobqueue.errors import QueueAwayError
from jobqueue.keys import QueueKeys
from jobqueue.pipeline import Pipeline

ASK_AGAIN_S = 1.0  # after a reading that failed

_TO_READ = b""  # in place of an answer to keep


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """Of one queue: `max_bytes` of Redis's memory, what it needs for itself included, and an answer's `lifetime_ms`."""

    max_bytes: int
    lifetime_ms: int


class AnswerCache:
    """One queue's answers, by digests of what they answer. Those not used for longest make room for new ones.

    `report` is told why the cache cannot be read, once until it can be again.
    """

    def __init__(
        self, client: AsyncRedis, queue: str, limits: CacheLimits, *, report: Callable[[Exception], None]
    ) -> None:
        self._pipeline = Pipeline(client, QueueKeys(queue).of_cache)
        self._head = (limits.max_bytes, limits.lifetime_ms)
        self._report = report
        self._is_away = False
        self._ask_again_at = 0.0  # in seconds of the event loop's clock

    async def read(self, digests: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Those of the answers that are kept."""
        now = asyncio.get_running_loop().time()
        if self._is_away and now < self._ask_again_at:
            return {}
        try:
            answers = await self._ask(digests)
        except (QueueAwayError, ResponseError) as error:
            self._note_away(error)
            return {}
        self._is_away = False
        return {digest: answer for digest, answer in zip(digests, answers, strict=True) if answer}

    def keep(self, answers: Mapping[bytes, bytes]) -> None:
        """Keep them, none of them empty, some time soon."""
        if not self._is_away:
            for digest, answer in answers.items():
                self._send(digest, answer)

    async def _ask(self, digests: Sequence[bytes]) -> Sequence[bytes]:
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                return await asyncio.gather(*(self._send(digest, _TO_READ) for digest in digests))
        except TimeoutError:
            raise QueueAwayError(f"no reply within {REPLY_TIMEOUT_S:g} s") from None

    def _send(self, digest: bytes, answer: bytes) -> "asyncio.Future[bytes]":
        return self._pipeline.send("cache", self._head, (digest, answer))

    def _note_away(self, error: Exception) -> None:
        if not self._is_away:
            self._report(error)
        self._is_away = True
        self._ask_again_at = asyncio.get_running_loop().time() + ASK_AGAIN_S
