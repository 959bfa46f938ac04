"""The calls that a gateway waits for: the durable record of its jobs while their RPCs live."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from jobqueue.chunks import merge
from jobqueue.errors import JobFailedError
from jobqueue.lanes import Lane
from jobqueue.messages import Failure, Job, Result
from jobqueue.replies import Waiter

MOST_ABSENCES = 2  # between one and the next, an answer that was on its way has been read


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A call for one queue. `deadline` is in seconds of the event loop's clock; `wakeable` calls wait for a worker.

    `tenant` shares a lane with others, an empty one does not.
    """

    queue: str
    call: Job
    lane: Lane
    deadline: float
    request_id: str
    attention_cost: float
    wakeable: bool
    tenant: str = ""


@dataclass(slots=True, kw_only=True)
class PendingJob:
    """A job until it is answered. `absences`: how often in a row the queue did not know its entry."""

    job: Job
    waiter: Waiter
    id: bytes = field(default_factory=lambda: os.urandom(16))
    entry_id: bytes | None = None
    absences: int = 0

    @property
    def is_answered(self) -> bool:
        return self.waiter.done()

    @property
    def is_lost(self) -> bool:
        return not self.is_answered and self.absences >= MOST_ABSENCES

    def admitted_as(self, entry_id: bytes) -> None:
        self.entry_id, self.absences = entry_id, 0

    def noted(self, *, is_known: bool) -> None:
        self.absences = 0 if is_known else self.absences + 1


class PendingCall:
    """A call's jobs, from before their admission until it is answered or given up."""

    def __init__(self, submission: Submission, jobs: Sequence[Job]) -> None:
        loop = asyncio.get_running_loop()
        self.submission = submission
        self.jobs = [PendingJob(job=job, waiter=loop.create_future()) for job in jobs]
        self.is_over = False

    @property
    def admitted(self) -> list[PendingJob]:
        """Those that wait for an answer, as far as is known."""
        return [job for job in self.jobs if job.entry_id is not None and not job.is_answered]

    @property
    def lost(self) -> list[PendingJob]:
        """Those that the queue has forgotten."""
        return [job for job in self.jobs if job.is_lost]

    def ttl_ms(self) -> int:
        return max(int((self.submission.deadline - asyncio.get_running_loop().time()) * 1000), 1)

    async def result(self) -> Result:
        """Wait for all answers, or for the first failure: JobFailedError with the call's own sequence number."""
        last: Any = None
        for answered in asyncio.as_completed([job.waiter for job in self.jobs]):
            last = await answered
            if isinstance(last, Failure):
                raise JobFailedError(self._in_call(last))
        return merge([cast(Result, job.waiter.result()) for job in self.jobs], last=last)

    def _in_call(self, failure: Failure) -> Failure:
        """The failure, its sequence counted within the call instead of within its job."""
        if failure.sequence < 0:
            return failure
        place = next(i for i, job in enumerate(self.jobs) if job.is_answered and job.waiter.result() is failure)
        offset = sum(len(job.job.tails) for job in self.jobs[:place])
        return replace(failure, sequence=offset + failure.sequence)
