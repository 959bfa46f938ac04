"""How much work a queue admits."""

from dataclasses import dataclass

from jobqueue.lanes import Lane

# What is assumed while no worker has measured its pace yet: more than a CPU does, and less than an accelerator.
UNMEASURED_TOKENS_PER_S = 6_500


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much a queue may hold. Bulk work stops at its share, so that interactive work always finds room.

    Interactive work is also refused where what is ahead of it would take the queue's workers longer than `max_wait_ms`.
    """

    max_tokens: int
    max_jobs: int
    bulk_share: float
    max_job_tokens: int
    max_wait_ms: int

    def of(self, lane: Lane) -> tuple[int, int]:
        """The most tokens and jobs in the queue, both lanes together, under which `lane` admits."""
        share = self.bulk_share if lane is Lane.BULK else 1.0
        return int(self.max_tokens * share), int(self.max_jobs * share)
