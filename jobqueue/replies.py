"""One gateway's answers from one queue: one reader of its reply stream, and a table of who waits for what."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from jobqueue.connection import REPLY_TIMEOUT_S, AsyncRedis, redis_border
from jobqueue.errors import QueueAwayError
from jobqueue.keys import REPLIES_TTL_S, QueueKeys
from jobqueue.messages import Answer, DecodeError, decode_answer

BLOCK_MS = 500  # also how often the stream's lifetime is refreshed
AT_ONCE = 64
JOBS_PER_MS, MOST_GATHER_MS = 3, 3
RETRY_S = 0.2
IDLE_S = 60.0  # a reader holds a connection: not for ever for a revision that is gone

Tell: TypeAlias = Callable[[Answer | DecodeError], None]


class ReplyReader:
    """Reads until cancelled. Answers that nobody waits for, late or second ones, are dropped."""

    def __init__(self, client: AsyncRedis, queue: str, gateway: str) -> None:
        self._redis = client
        self._stream = QueueKeys(queue).replies(gateway)
        self._waiting: dict[bytes, Tell] = {}
        self.num_reads = 0  # that have come to their end: who sees it grow knows what was there before

    @contextlib.contextmanager
    def expect(self, tell: Mapping[bytes, Tell]) -> Iterator[None]:
        """Answers of these job ids are told to whom they belong, for as long as the context lasts."""
        self._waiting |= tell
        try:
            yield
        finally:
            for job_id in tell:
                del self._waiting[job_id]

    def expects(self, job_id: bytes) -> bool:
        """Whether somebody waits for its answer."""
        return job_id in self._waiting

    def gather_s(self) -> float:
        """How long one may wait for more to travel together: a fraction of what those who wait here take anyway."""
        return min(len(self._waiting) // JOBS_PER_MS, MOST_GATHER_MS) / 1000

    async def run(self) -> None:
        """Read replies, through losses of the connection, until nobody has waited for any for a while."""
        consumed: list[bytes] = []
        idle_since = time.monotonic()
        while self._waiting or time.monotonic() - idle_since < IDLE_S:
            try:
                entries = await self._read(consumed)
            except QueueAwayError:
                await asyncio.sleep(RETRY_S)
                continue
            for _, fields in entries:
                self._deliver(fields)
            await asyncio.sleep(self.gather_s())  # those who were answered go first
            self.num_reads += 1
            consumed = [entry_id for entry_id, _ in entries]
            if self._waiting or entries:
                idle_since = time.monotonic()

    async def _read(self, consumed: Sequence[bytes]) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """Delete what was consumed and read on from the start: nothing is skipped after a failover."""
        with redis_border():
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                return await self._delete_and_read(consumed)

    async def _delete_and_read(self, consumed: Sequence[bytes]) -> list[tuple[bytes, dict[bytes, bytes]]]:
        pipeline: Any = self._redis.pipeline(transaction=False)
        if consumed:
            pipeline.xdel(self._stream, *consumed)
        pipeline.expire(self._stream, REPLIES_TTL_S)
        pipeline.xread({self._stream: "0-0"}, count=AT_ONCE, block=BLOCK_MS)
        outcomes = await pipeline.execute(raise_on_error=False)  # which would put words in front of the server's
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        *_, streams = outcomes
        return streams[0][1] if streams else []

    def _deliver(self, fields: dict[bytes, bytes]) -> None:
        """An answer that cannot be read fails its own call, not the reader that all calls share."""
        for job_id, payload in fields.items():
            tell = self._waiting.get(job_id)
            if tell is None:
                continue
            try:
                answer = decode_answer(payload)
            except DecodeError as error:
                tell(error)
            else:
                tell(answer)
