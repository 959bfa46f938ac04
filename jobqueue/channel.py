"""One gateway's end of one queue: it admits calls, and sees to it that each is answered or refused.

The calls that wait here are the durable record of their jobs. Twice a second the queue is asked which of them it still
has: what a restart or a failover of Redis has lost is admitted again, with the time that is left. An answer that comes
twice finds nobody waiting.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from jobqueue.connection import AsyncRedis
from jobqueue.cost import job_cost
from jobqueue.errors import DrainingError, NoWorkerError, OutcomeUnknownError, QueueAwayError, QueueFullError
from jobqueue.keys import REPLIES_TTL_S, QueueKeys
from jobqueue.limits import UNMEASURED_TOKENS, QueueLimits
from jobqueue.messages import Job, Result, encode_job
from jobqueue.pending import PendingCall, PendingJob, Submission
from jobqueue.pipeline import Pipeline
from jobqueue.replies import ReplyReader

RECONCILE_S = 0.5
ASKED_AT_ONCE = 500  # a script must not hold up the server
ADMIT_AGAIN_S = 0.25
ADMIT_PATIENCE_S = 5.0  # about what a failover takes

_NO_ROOM, _NO_WORKER, _DRAINING = 0, -1, -2  # what admit.lua says in place of 1


class Channel:
    """Calls may be submitted while `run` runs, which ends by itself once nobody has waited for a while."""

    def __init__(self, client: AsyncRedis, queue: str, gateway: str, limits: QueueLimits) -> None:
        self._queue = queue
        self._gateway = gateway
        self._limits = limits
        self._keys = QueueKeys(queue).of_script(gateway)
        self._pipeline = Pipeline(client)
        self._reader = ReplyReader(client, queue, gateway)
        self._calls: set[PendingCall] = set()
        self._withdrawals: set[asyncio.Task[None]] = set()
        self.has_ended = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            reconciling = tasks.create_task(self._reconcile_all())
            await self._reader.run()
            self.has_ended = True
            reconciling.cancel()

    async def settle(self) -> None:
        """Wait until what was given up has left the queue."""
        await asyncio.gather(*self._withdrawals, return_exceptions=True)

    async def submit(self, submission: Submission, jobs: Sequence[Job]) -> Result:
        """As Producer.submit."""
        if self._pipeline.is_away:
            raise QueueAwayError("Redis does not answer")
        call = PendingCall(submission, jobs)
        with self._tracked(call):
            admission = asyncio.create_task(self._admit_patiently(call))
            try:
                await asyncio.shield(admission)
                return await call.result()
            finally:
                call.is_over = True
                if not all(job.is_answered for job in call.jobs):
                    self._in_background(call, admission)

    @contextlib.contextmanager
    def _tracked(self, call: PendingCall) -> Iterator[None]:
        with self._reader.expect({job.id: job.waiter for job in call.jobs}):
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
                if call.is_over or loop.time() > give_up:
                    raise
            await asyncio.sleep(ADMIT_AGAIN_S)

    async def _admit(self, call: PendingCall, jobs: Sequence[PendingJob], *, again: bool) -> None:
        """Admit all of `jobs`, or raise; `again`: they were admitted before, so no limit holds."""
        submission = call.submission
        max_tokens, max_jobs = self._limits.of(submission.lane)
        arguments: list[Any] = [submission.lane.key, max_tokens, max_jobs, REPLIES_TTL_S, self._gateway, call.ttl_ms()]
        arguments += [submission.request_id, int(submission.wakeable), int(again), submission.tenant]
        arguments += [self._limits.max_wait_ms, UNMEASURED_TOKENS]
        for pending in jobs:
            job = pending.job
            cost = job_cost(job.lengths, len(job.prefix), submission.attention_cost)
            arguments += [sum(job.lengths), cost, pending.id, encode_job(job)]
        verdict, *rest = await self._pipeline.run("admit", self._keys, arguments)
        self._raise_refusal(verdict, rest)
        for pending, entry_id in zip(jobs, rest, strict=True):
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
        asked = [(call, job) for call in self._calls for job in call.admitted]
        for start in range(0, len(asked), ASKED_AT_ONCE):
            await self._ask(asked[start : start + ASKED_AT_ONCE])
        if not asked and self._pipeline.is_away:
            await self._ask([])
        await asyncio.gather(*(self._admit_again(call) for call in list(self._calls) if call.lost))

    async def _ask(self, asked: Sequence[tuple[PendingCall, PendingJob]]) -> None:
        arguments: list[Any] = [REPLIES_TTL_S]
        for call, job in asked:
            arguments += [call.submission.lane.key, job.entry_id]
        reply = await self._pipeline.run("known", self._keys, arguments)
        for (_, job), is_known in zip(asked, reply, strict=True):
            job.noted(is_known=bool(is_known))

    async def _admit_again(self, call: PendingCall) -> None:
        with contextlib.suppress(QueueAwayError):  # they are still lost at the next look
            await self._admit(call, call.lost, again=True)
        if call.is_over:
            await self._withdraw(call)

    async def _withdraw(self, call: PendingCall) -> None:
        """End jobs that nobody waits for any more. Where Redis is away, their time to live ends them."""
        submission = call.submission
        arguments: list[Any] = []
        for pending in call.admitted:
            num_tokens = sum(pending.job.lengths)
            arguments += [submission.lane.key, pending.entry_id, num_tokens, submission.tenant, b"", b""]
        if arguments:
            with contextlib.suppress(QueueAwayError):
                await self._pipeline.run("finish", self._keys, arguments)

    def _in_background(self, call: PendingCall, admission: "asyncio.Task[None]") -> None:
        async def withdraw() -> None:
            await asyncio.wait([admission])
            admission.exception()  # whatever it was: only what was admitted is withdrawn
            await self._withdraw(call)

        task = asyncio.create_task(withdraw())
        self._withdrawals.add(task)
        task.add_done_callback(self._withdrawals.discard)
