"""The gateway's end: admit a call's jobs, wait for their answers, and withdraw what nobody waits for any more."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, cast

from jobqueue.chunks import merge, split
from jobqueue.connection import AsyncRedis
from jobqueue.cost import job_cost
from jobqueue.errors import CallTooLargeError, JobFailedError, NoWorkerError, QueueAwayError, QueueFullError
from jobqueue.keys import REPLIES_TTL_S, QueueKeys
from jobqueue.lanes import Lane
from jobqueue.messages import Failure, Job, Result, encode_job
from jobqueue.pipeline import Pipeline
from jobqueue.replies import ReplyReader, Waiter

_NO_ROOM, _NO_WORKER = 0, -1  # what admit.lua says in place of 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much a queue may hold. Bulk work stops at its share, so that interactive work always finds room."""

    max_tokens: int
    max_jobs: int
    bulk_share: float
    max_job_tokens: int

    def of(self, lane: Lane) -> tuple[int, int]:
        """The most tokens and jobs in the queue, both lanes together, under which `lane` admits."""
        share = self.bulk_share if lane is Lane.BULK else 1.0
        return int(self.max_tokens * share), int(self.max_jobs * share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A call for one queue. `deadline` is in seconds of the event loop's clock; `wakeable` calls wait for a worker."""

    queue: str
    call: Job
    lane: Lane
    deadline: float
    request_id: str
    attention_cost: float
    wakeable: bool


class Producer:
    """One gateway process's connection to every queue; an async context manager."""

    def __init__(self, client: AsyncRedis, limits: QueueLimits) -> None:
        self._redis = client
        self._limits = limits
        self._pipeline = Pipeline(client)
        self._gateway = secrets.token_hex(8)
        self._readers: dict[str, tuple[ReplyReader, asyncio.Task[None]]] = {}
        self._reading = asyncio.TaskGroup()
        self._withdrawals: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._reading.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Withdrawals are finished, readers stopped. A reader that died by itself has ended the whole context."""
        await asyncio.gather(*self._withdrawals, return_exceptions=True)
        for _, task in self._readers.values():
            task.cancel()
        await self._reading.__aexit__(kind, error, trace)

    async def submit(self, submission: Submission) -> Result:
        """The call's result: its sequences in order, its times those of the job that finished last.

        Raises CallTooLargeError, QueueFullError, NoWorkerError, QueueAwayError, or JobFailedError with the call's own
        sequence number. When it raises or is cancelled, the call's waiting jobs leave the queue.
        """
        jobs = split(submission.call, max_tokens=self._limits.max_job_tokens)
        self._check_size(submission, len(jobs))
        job_ids = [os.urandom(16) for _ in jobs]
        with self._reader(submission.queue).expect(job_ids) as waiters:
            admission = asyncio.create_task(self._admit(submission, jobs, job_ids))
            try:
                await asyncio.shield(admission)
                return await _collect(waiters, jobs)
            finally:
                unanswered = [index for index, waiter in enumerate(waiters) if not waiter.done()]
                if unanswered:
                    self._in_background(self._withdraw(submission, jobs, admission, unanswered))

    def _check_size(self, submission: Submission, num_jobs: int) -> None:
        num_tokens = sum(submission.call.lengths)
        max_tokens, max_jobs = self._limits.of(submission.lane)
        if num_tokens > max_tokens:
            raise CallTooLargeError(f"{num_tokens} tokens in one call, the queue holds {max_tokens}; split the call")
        if num_jobs > max_jobs:
            raise CallTooLargeError(f"the call makes {num_jobs} jobs, the queue holds {max_jobs}; split the call")

    def _reader(self, queue: str) -> ReplyReader:
        reader, task = self._readers.get(queue, (None, None))
        if reader is None or task is None or task.done():
            reader = ReplyReader(self._redis, queue, self._gateway)
            self._readers[queue] = reader, self._reading.create_task(reader.run())
        return reader

    async def _admit(self, submission: Submission, jobs: Sequence[Job], job_ids: Sequence[bytes]) -> list[bytes]:
        """The entry ids of the jobs, all of them admitted."""
        queue_keys = QueueKeys(submission.queue)
        max_tokens, max_jobs = self._limits.of(submission.lane)
        ttl_ms = int((submission.deadline - asyncio.get_running_loop().time()) * 1000)
        arguments: list[Any] = [submission.lane.key, max_tokens, max_jobs, REPLIES_TTL_S, self._gateway]
        arguments += [max(ttl_ms, 1), submission.request_id, int(submission.wakeable)]
        for job, job_id in zip(jobs, job_ids, strict=True):
            cost = job_cost(job.lengths, len(job.prefix), submission.attention_cost)
            arguments += [sum(job.lengths), cost, job_id, encode_job(job)]
        admit_keys = [*queue_keys.lanes, queue_keys.depth, queue_keys.replies(self._gateway)]
        admit_keys += [queue_keys.workers, queue_keys.loading]
        verdict, *rest = await self._pipeline.run("admit", admit_keys, arguments)
        if verdict == _NO_WORKER:
            raise NoWorkerError(f"no worker serves {submission.queue}")
        if verdict == _NO_ROOM:
            raise QueueFullError(f"the queue holds {rest[0]} of {max_tokens} tokens in {rest[1]} of {max_jobs} jobs")
        return cast(list[bytes], rest)

    async def _withdraw(
        self,
        submission: Submission,
        jobs: Sequence[Job],
        admission: "asyncio.Task[list[bytes]]",
        unanswered: Sequence[int],
    ) -> None:
        """End jobs that nobody waits for any more. Where Redis is away, their time to live ends them."""
        await asyncio.wait([admission])
        if admission.exception() is not None:  # none was admitted, or nobody knows: then their time to live ends them
            return
        queue_keys, entry_ids = QueueKeys(submission.queue), admission.result()
        arguments: list[Any] = []
        for index in unanswered:
            arguments += [submission.lane.key, entry_ids[index], sum(jobs[index].lengths), b"", b""]
        finish_keys = [*queue_keys.lanes, queue_keys.depth, queue_keys.replies(self._gateway)]
        with contextlib.suppress(QueueAwayError):
            await self._pipeline.run("finish", finish_keys, arguments)

    def _in_background(self, withdrawal: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(withdrawal)
        self._withdrawals.add(task)
        task.add_done_callback(self._withdrawals.discard)


async def _collect(waiters: Sequence[Waiter], jobs: Sequence[Job]) -> Result:
    """Wait for all answers, or for the first failure."""
    last: Any = None
    for answered in asyncio.as_completed(waiters):
        last = await answered
        if isinstance(last, Failure):
            raise JobFailedError(_in_call(last, waiters, jobs))
    return merge([cast(Result, waiter.result()) for waiter in waiters], last=last)


def _in_call(failure: Failure, waiters: Sequence[Waiter], jobs: Sequence[Job]) -> Failure:
    """The failure, its sequence counted within the call instead of within its job."""
    if failure.sequence < 0:
        return failure
    job_index = next(index for index, waiter in enumerate(waiters) if waiter.done() and waiter.result() is failure)
    offset = sum(len(job.tails) for job in jobs[:job_index])
    return replace(failure, sequence=offset + failure.sequence)
