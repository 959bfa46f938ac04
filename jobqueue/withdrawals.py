"""What nobody waits for any more leaves the queue: at once, or else as soon as Redis is back.

Where the reply to an admission was lost, nobody knows the jobs' entries, or whether there are any. They may come late,
from a connection that was given up long ago. So for a while the lanes are looked through, each entry once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from jobqueue.connection import REPLY_TIMEOUT_S, SETTLE_S
from jobqueue.lanes import Lane
from jobqueue.pending import PendingCall, PendingJob, Submission
from jobqueue.pipeline import Item, Pipeline

AGAIN_S = 0.5
NUM_LOOKS = 20  # after a reply was lost, one at each look of the channel: for ten seconds after Redis is back

_START = b"0-0"


class Withdrawals:
    """Those of one gateway from one queue. `is_wanted` says of a job id whether somebody waits for it."""

    def __init__(self, pipeline: Pipeline, gateway: str, *, is_wanted: Callable[[bytes], bool]) -> None:
        self._pipeline = pipeline
        self._gateway = gateway
        self._is_wanted = is_wanted
        self._running: set[asyncio.Task[None]] = set()
        self._num_looks = 0  # that are to come
        self._looked_until = dict.fromkeys(Lane, _START)  # entry ids

    @property
    def are_done(self) -> bool:
        return not self._running and not self._num_looks

    def withdraw(self, call: PendingCall) -> None:
        """All that is left of a call, or on its way to the queue."""
        self._in_background(self._withdraw(call))

    def end(self, submission: Submission, jobs: Sequence[PendingJob]) -> None:
        """These jobs of a call, which have been admitted."""
        if jobs:
            self._in_background(self._end(submission, jobs))

    def expect_strays(self) -> None:
        """There may be jobs in the queue whose entries nobody knows."""
        if not self._num_looks:
            self._looked_until = dict.fromkeys(Lane, _START)
        self._num_looks = NUM_LOOKS

    async def look_for_strays(self) -> None:
        """End those that have come since the last look, where any are expected. Raises QueueAwayError."""
        if self._num_looks:
            for lane in Lane:
                await self._look_through(lane)
            self._num_looks -= 1

    async def settle(self) -> None:
        """Wait until what was given up has left the queue: for seconds at most, its time to live ends the rest."""
        if self._running:
            _, left = await asyncio.wait(self._running, timeout=SETTLE_S)
            for withdrawal in left:
                withdrawal.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _in_background(self, withdrawal: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(withdrawal)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _withdraw(self, call: PendingCall) -> None:
        if call.admission is not None:
            await asyncio.wait([call.admission])
        if jobs := call.admitted:
            await self._end(call.submission, jobs)

    async def _end(self, submission: Submission, jobs: Sequence[PendingJob]) -> None:
        """Come back once they have left the queue, or their time to live is over."""
        left = [_ending(submission.lane, job.entry_id, sum(job.job.lengths), submission.tenant) for job in jobs]
        with contextlib.suppress(TimeoutError):
            # A job lives from its admission, which is that much later than its sending at most.
            async with asyncio.timeout_at(submission.deadline + REPLY_TIMEOUT_S):
                while left := await self._not_ended(left):  # noqa: ASYNC110 - what it waits for happens in Redis
                    await asyncio.sleep(AGAIN_S)

    async def _look_through(self, lane: Lane) -> None:
        has_more = True
        while has_more:
            place = (lane.key, self._looked_until[lane])
            has_more, until, *found = await self._pipeline.send("seek", (self._gateway,), place)
            strays = [_ending(lane, *entry) for job_id, *entry in found if not self._is_wanted(job_id)]
            if await self._not_ended(strays):
                return  # the next look begins with them
            self._looked_until[lane] = until

    async def _not_ended(self, endings: list[Item]) -> list[Item]:
        """Those of which nobody knows that they have left the queue, after an attempt to end them all."""
        replies = [self._pipeline.send("finish", (), ending) for ending in endings]
        outcomes = await asyncio.gather(*replies, return_exceptions=True)
        return [ending for ending, outcome in zip(endings, outcomes, strict=True) if isinstance(outcome, Exception)]


def _ending(lane: Lane, entry_id: bytes | None, num_tokens: int | bytes, tenant: str | bytes) -> Item:
    """What finish.lua wants of a job that is not answered."""
    return (lane.key, entry_id, num_tokens, tenant, b"", b"")
