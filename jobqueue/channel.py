"""One gateway's end of one queue: it admits calls, and sees to it that each is answered or refused.

The calls that wait here are the durable record of their jobs. Twice a second the queue is asked which of them it still
has: what a restart or a failover of Redis has lost is admitted again, with the time that is left. An answer that comes
twice finds nobody waiting. What nobody waits for any more is withdrawn.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from jobqueue.connection import AsyncRedis
from jobqueue.cost import job_cost
from jobqueue.errors import DrainingError, NoWorkerError, OutcomeUnknownError, QueueAwayError, QueueFullError
from jobqueue.keys import REPLIES_TTL_S, QueueKeys
from jobqueue.lanes import Lane
from jobqueue.limits import UNMEASURED_TOKENS_PER_S, QueueLimits
from jobqueue.messages import Job, Result, encode_job
from jobqueue.pending import PendingCall, PendingJob, Submission
from jobqueue.pipeline import Pipeline
from jobqueue.replies import ReplyReader
from jobqueue.withdrawals import Withdrawals

RECONCILE_S = 0.5
ASKED_AT_ONCE = 4096  # those that were asked for longest ago: about 25 ms of the server's time
ADMIT_AGAIN_S = 0.25
ADMIT_PATIENCE_S = 5.0  # about what a failover takes

_ADMITTED, _NO_ROOM, _NO_WORKER, _DRAINING = 1, 0, -1, -2  # what admit.lua says of a call

_ANY_ENTRY = (Lane.INTERACTIVE.key, b"0-1")  # to ask for, where the question is whether anybody answers


class Channel:
    """Calls may be submitted while `run` runs, which ends by itself once nobody has waited for a while."""

    def __init__(self, client: AsyncRedis, queue: str, gateway: str, limits: QueueLimits) -> None:
        self._queue = queue
        self._reader = ReplyReader(client, queue, gateway)
        self._pipeline = Pipeline(client, QueueKeys(queue).of_script(gateway), gather_s=self._reader.gather_s)
        self._admit_head = _admit_head(gateway, limits)
        self._calls: set[PendingCall] = set()
        self._num_reads = 0  # of the reader, when the queue was last asked
        self._withdrawals = Withdrawals(self._pipeline, gateway, is_wanted=self._reader.expects)
        self.has_ended = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            reconciling = tasks.create_task(self._reconcile_all())
            while not self.has_ended:
                await self._reader.run()
                self.has_ended = self._withdrawals.are_done
            reconciling.cancel()

    async def settle(self) -> None:
        """As Withdrawals.settle."""
        await self._withdrawals.settle()

    async def submit(self, submission: Submission, jobs: Sequence[Job]) -> Result:
        """As Producer.submit."""
        if self._pipeline.is_away:
            raise QueueAwayError("Redis does not answer")
        call = PendingCall(submission, jobs)
        with self._tracked(call):
            try:
                await self._admit_patiently(call)
                submission.on_admitted()
                return await call.answered
            finally:
                call.is_over = True
                if not call.is_answered:  # not `admitted`: what was just admitted may not be noted yet
                    self._withdrawals.withdraw(call)

    @contextlib.contextmanager
    def _tracked(self, call: PendingCall) -> Iterator[None]:
        with self._reader.expect({job.id: partial(call.answer, job) for job in call.jobs}):
            self._calls.add(call)
            try:
                yield
            finally:
                self._calls.remove(call)

    async def _admit_patiently(self, call: PendingCall) -> None:
        """Where nobody knows whether the call was admitted, admit it again: a job that runs twice does no harm."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + ADMIT_PATIENCE_S
        while True:
            try:
                return await self._admit(call, call.jobs, again=False)
            except OutcomeUnknownError:
                if loop.time() > give_up:
                    raise
            await asyncio.sleep(ADMIT_AGAIN_S)

    async def _admit(self, call: PendingCall, jobs: Sequence[PendingJob], *, again: bool) -> None:
        """Admit all of `jobs`, or raise; `again`: they were admitted before, so no limit holds."""
        call.admission = self._pipeline.send("admit", self._admit_head, _admit_item(call, jobs, again=again))
        call.admission.add_done_callback(partial(self._note_entries, jobs))  # also if this task is cancelled meanwhile
        verdict, *rest = await asyncio.shield(call.admission)
        self._raise_refusal(verdict, rest)

    def _note_entries(self, jobs: Sequence[PendingJob], admission: "asyncio.Future[list[Any]]") -> None:
        if admission.cancelled():
            return
        if error := admission.exception():
            if isinstance(error, OutcomeUnknownError):
                self._withdrawals.expect_strays()
            return
        verdict, *entry_ids = admission.result()
        if verdict == _ADMITTED:
            for pending, entry_id in zip(jobs, entry_ids, strict=True):
                pending.admitted_as(entry_id)

    def _raise_refusal(self, verdict: int, rest: Sequence[int]) -> None:
        if verdict == _DRAINING:
            raise DrainingError(f"{self._queue} is being drained")
        if verdict == _NO_WORKER:
            raise NoWorkerError(f"no worker serves {self._queue}")
        if verdict == _NO_ROOM:
            tokens, jobs, retry_ms = rest
            raise QueueFullError(f"the queue holds {tokens} tokens in {jobs} jobs", retry_s=retry_ms / 1000)

    async def _reconcile_all(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_S)
            with contextlib.suppress(QueueAwayError):
                await self._reconcile()

    async def _reconcile(self) -> None:
        """Ask which jobs the queue still has, and admit again what it has lost; at the least, see if Redis is back."""
        waiting = [(call.submission.lane, job) for call in self._calls for job in call.admitted]
        asked = sorted(waiting, key=lambda pair: pair[1].asked_at)[:ASKED_AT_ONCE]
        if asked or self._pipeline.is_away:
            await self._ask(asked)
        await asyncio.gather(*(self._admit_again(call) for call in [call for call in self._calls if call.lost]))
        await self._withdrawals.look_for_strays()

    async def _ask(self, asked: Sequence[tuple[Lane, PendingJob]]) -> None:
        now = asyncio.get_running_loop().time()
        for _, job in asked:
            job.asked_at = now
        items: list[tuple[str, bytes | None]] = [(lane.key, job.entry_id) for lane, job in asked]
        replies = [self._pipeline.send("known", (REPLIES_TTL_S,), item) for item in items or [_ANY_ENTRY]]
        known = await asyncio.gather(*replies)
        has_read, self._num_reads = self._reader.num_reads > self._num_reads, self._reader.num_reads
        for (_, job), is_known in zip(asked, known, strict=False):
            if is_known or has_read:  # else its answer may be there, and nobody has looked
                job.noted(is_known=bool(is_known))

    async def _admit_again(self, call: PendingCall) -> None:
        lost = call.lost
        if not lost:  # answered since
            return
        with contextlib.suppress(QueueAwayError):  # they are still lost at the next look
            await self._admit(call, lost, again=True)
        unwanted = call.admitted if call.is_over else [job for job in lost if job.result is not None]
        self._withdrawals.end(call.submission, unwanted)


def _admit_head(gateway: str, limits: QueueLimits) -> tuple[Any, ...]:
    """What admit.lua wants once."""
    of_lanes = (*limits.of(Lane.INTERACTIVE), *limits.of(Lane.BULK))
    unmeasured_tokens = limits.max_wait_ms * UNMEASURED_TOKENS_PER_S // 1000
    return (gateway, REPLIES_TTL_S, *of_lanes, limits.max_wait_ms, unmeasured_tokens)


def _admit_item(call: PendingCall, jobs: Sequence[PendingJob], *, again: bool) -> list[Any]:
    """What admit.lua wants of a call."""
    submission = call.submission
    item: list[Any] = [submission.lane.key, call.ttl_ms(), submission.request_id, submission.tenant]
    item += [int(submission.wakeable), int(again), int(submission.is_retry), submission.trace, len(jobs)]
    for pending in jobs:
        job = pending.job
        lengths = job.lengths
        cost = job_cost(lengths, len(job.prefix), submission.attention_cost)
        item += [sum(lengths), cost, pending.id, encode_job(job)]
    return item
