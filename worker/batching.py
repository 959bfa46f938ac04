"""What runs together, decided on integers alone."""

from collections.abc import Sequence

from jobqueue.consumer import TakenJob
from jobqueue.cost import split_by_size


def plan_batches(jobs: Sequence[TakenJob], *, budget: int) -> list[Sequence[TakenJob]]:
    """Cut what was taken, in its order, into batches within the budget; a job over it runs alone, as suspects do."""
    suspects = [[job] for job in jobs if job.is_suspect]
    others = [job for job in jobs if not job.is_suspect]
    groups = split_by_size([job.cost for job in others], budget)
    return [*(others[group.start : group.stop] for group in groups), *suspects]
