"""The calls that a gateway waits for: the durable record of its jobs while their RPCs live."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobqueue.chunks import merge
from jobqueue.errors import JobFailedError
from jobqueue.lanes import Lane
from jobqueue.messages import Answer, DecodeError, Failure, Job, Result

MOST_ABSENCES = 2  # between one and the next, an answer that was on its way has been read


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A call for one queue. `deadline` is in seconds of the event loop's clock; `wakeable` calls wait for a worker.

    `tenant` shares a lane with others, an empty one does not. `is_retry`: it was refused before, and told to come back.
    `trace` is the W3C traceparent that its jobs carry to the worker, empty where the call is not traced; `on_admitted`
    is called once the queue has all of them.
    """

    queue: str
    call: Job
    lane: Lane
    deadline: float
    request_id: str
    attention_cost: float
    wakeable: bool
    tenant: str = ""
    is_retry: bool = False
    trace: str = ""
    on_admitted: Callable[[], None] = lambda: None


@dataclass(slots=True, kw_only=True)
class PendingJob:
    """A job until it is answered. `absences`: how often in a row the queue did not know its entry.

    `asked_at`: when it was last asked for it, in seconds of the event loop's clock.
    """

    job: Job
    id: bytes = field(default_factory=lambda: os.urandom(16))
    entry_id: bytes | None = None
    absences: int = 0
    asked_at: float = 0.0
    result: Result | None = None

    def admitted_as(self, entry_id: bytes) -> None:
        self.entry_id, self.absences = entry_id, 0

    def noted(self, *, is_known: bool) -> None:
        self.absences = 0 if is_known else self.absences + 1


class PendingCall:
    """A call's jobs, from before their admission until it is answered or given up.

    `answered` brings the result, or JobFailedError with the call's own sequence number, or DecodeError.
    """

    def __init__(self, submission: Submission, jobs: Sequence[Job]) -> None:
        self.submission = submission
        self.jobs = [PendingJob(job=job) for job in jobs]
        self.answered: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.admission: asyncio.Future[list[Any]] | None = None  # the last one; its outcome is the script's reply
        self.is_over = False

    @property
    def admitted(self) -> list[PendingJob]:
        """Those that wait for an answer, as far as is known."""
        return [job for job in self.jobs if job.entry_id is not None and job.result is None]

    @property
    def is_answered(self) -> bool:
        """Whether no job of it may be in the queue, or on its way there."""
        return all(job.result is not None for job in self.jobs)

    @property
    def lost(self) -> list[PendingJob]:
        """Those that the queue has forgotten."""
        return [job for job in self.admitted if job.absences >= MOST_ABSENCES]

    def ttl_ms(self) -> int:
        return max(int((self.submission.deadline - asyncio.get_running_loop().time()) * 1000), 1)

    def answer(self, job: PendingJob, answer: Answer | DecodeError) -> None:
        """One of its jobs was answered. A second answer, or one after a failure, changes nothing."""
        if self.answered.done() or job.result is not None:
            return
        if isinstance(answer, Result):
            job.result = answer
            results = [other.result for other in self.jobs if other.result is not None]
            if len(results) == len(self.jobs):
                self.answered.set_result(merge(results, last=answer))
        else:
            error = JobFailedError(self._in_call(answer, job)) if isinstance(answer, Failure) else answer
            self.answered.set_exception(error)
            self.answered.exception()  # seen: the call may be given up in this very moment

    def _in_call(self, failure: Failure, failed: PendingJob) -> Failure:
        """The failure, its sequence counted within the call instead of within its job."""
        if failure.sequence < 0:
            return failure
        before = self.jobs[: self.jobs.index(failed)]
        return replace(failure, sequence=failure.sequence + sum(len(job.job.tails) for job in before))
