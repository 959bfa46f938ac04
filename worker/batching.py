"""What runs together, decided on integers alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobqueue.consumer import TakenJob
from jobqueue.messages import Job

# Keys and values are gathered for every sequence, what they share included, so memory bounds that as well.
MOST_TOKENS_PER_COST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A job that is ready to run. `taken_at` is in seconds of time.monotonic(); `prefix_cost` is part of its cost."""

    taken: TakenJob
    job: Job
    prefix_cost: int
    taken_at: float

    def queue_us(self, started_at: float) -> int:
        """Microseconds from its admission to the start of its batch."""
        return self.taken.waited_us + int((started_at - self.taken_at) * 1e6)


def cost_saved(work: Sequence[Work]) -> int:
    """What jobs cost less as one batch than apart: a prefix that several have is computed once."""
    once = {item.job.prefix.tobytes(): item.prefix_cost for item in work}
    return sum(item.prefix_cost for item in work) - sum(once.values())


def plan_batches(work: Sequence[Work], *, budget: int) -> list[Sequence[Work]]:
    """Cut what was taken, in its order, into batches; a job over the budget runs alone, as suspects do.

    A batch costs no more than the budget after sharing, and has at most MOST_TOKENS_PER_COST times as many tokens.
    """
    batches: list[list[Work]] = []
    room, tokens_left, prefixes = 0, 0, set[bytes]()
    for item in (item for item in work if not item.taken.is_suspect):
        prefix = item.job.prefix.tobytes()
        cost = item.taken.cost - (item.prefix_cost if prefix in prefixes else 0)
        if not batches or cost > room or item.taken.tokens > tokens_left:
            batches.append([])
            room, prefixes, cost = budget, set(), item.taken.cost
            tokens_left = MOST_TOKENS_PER_COST * budget
        batches[-1].append(item)
        prefixes.add(prefix)
        room -= cost
        tokens_left -= item.taken.tokens
    return [*batches, *([item] for item in work if item.taken.is_suspect)]
