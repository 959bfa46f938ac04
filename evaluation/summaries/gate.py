"""Whether a rollout may go on: no quality lost, and none unknown."""

from evaluation.errors import EvaluationError
from evaluation.summaries.summary import Summary


def check_drop(summary: Summary, max_drop: float) -> None:
    """Raises EvaluationError where the run may not take the place of what it is compared with.

    No mean, over all tasks or over one type of them, may be more than `max_drop` points lower. What cannot be compared
    is refused: a task that is missing on either side, and where no mean is known on both.
    """
    if summary.missing:
        raise EvaluationError(f"no score for {', '.join(task.name for task in summary.missing)}")
    if summary.against.missing:
        raise EvaluationError(f"{summary.against.label} has no score for {', '.join(summary.against.missing)}")
    drops = {line.name: round(-line.difference, 6) for line in summary.means if line.difference is not None}
    if not drops:
        raise EvaluationError(f"{summary.against.label} has no mean of these tasks")
    too_large = [f"{name} by {drop:.2f}" for name, drop in drops.items() if drop > max_drop]
    if too_large:
        raise EvaluationError(f"more than {max_drop:g} points lower: {', '.join(too_large)}")
