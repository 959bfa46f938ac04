"""Which tasks a command line names."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mteb.abstasks.abstask import AbsTask

from evaluation.errors import EvaluationError
from evaluation.tasks.benchmarks import benchmark_tasks, named_tasks
from evaluation.tasks.local_data import DataError
from evaluation.tasks.local_tasks import load


def choose_tasks(benchmark: str | None, names: Sequence[str] | None, folders: Sequence[Path] | None) -> list[AbsTask]:
    """A benchmark's tasks, then mteb's by name (several may stand in one, with commas), then those in folders.

    Raises EvaluationError for what there is not, where nothing is named, and for two of one name: results go by it.
    """
    singles = [name.strip() for listed in names or () for name in listed.split(",")]
    chosen = benchmark_tasks(benchmark) if benchmark else []
    chosen += named_tasks(singles)
    chosen += [_local_task(folder) for folder in folders or ()]
    if not chosen:
        raise EvaluationError("name what to run: --benchmark, --tasks or --data")
    twice = [name for name, number in Counter(task.metadata.name for task in chosen).items() if number > 1]
    if twice:
        raise EvaluationError(f"named twice: {', '.join(twice)}")
    return chosen


def _local_task(folder: Path) -> AbsTask:
    try:
        return load(folder)
    except DataError as error:
        raise EvaluationError(str(error)) from error
