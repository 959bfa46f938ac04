"""The candidates of a reranker: what an embedding run put first."""

import json
from collections.abc import Iterable
from pathlib import Path

from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval import AbsTaskRetrieval

from evaluation.errors import EvaluationError
from evaluation.protocol.settings import FirstStage
from evaluation.records.folders import results_beside

_SUFFIX = "_predictions.json"


def find_predictions(path: Path) -> Path:
    """The folder of one run's predictions: `path` itself, or where it is a results folder that of its only run.

    Raises EvaluationError where there is none, or more than one to choose from.
    """
    found = sorted({file.parent for file in path.glob(f"**/*{_SUFFIX}")})
    if len(found) == 1:
        return found[0]
    if not found:
        raise EvaluationError(f"{path} has no predictions of an embedding run: qwen3-eval mteb writes them")
    raise EvaluationError(f"{path} has predictions of several runs, name one: {', '.join(map(str, found))}")


def predicted_tasks(predictions: Path) -> list[str]:
    """The names of the tasks that have candidates."""
    return sorted(file.name.removesuffix(_SUFFIX) for file in predictions.glob(f"*{_SUFFIX}"))


def first_stage(predictions: Path, *, top_k: int) -> FirstStage:
    """Whose they are, as mteb noted it in each file. Raises EvaluationError for a file that is something else."""
    file = min(predictions.glob(f"*{_SUFFIX}"))
    try:
        meta = json.loads(file.read_text("utf-8"))["mteb_model_meta"]
        return FirstStage(model=meta["model_name"], run=meta["revision"], top_k=top_k)
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{file} is not what an embedding run predicted: run that again") from error


def split_by_candidates(tasks: Iterable[AbsTask], predictions: Path) -> tuple[list[AbsTask], list[AbsTask]]:
    """The tasks that can be reranked, and the others. Raises EvaluationError where none can."""
    names, chosen = predicted_tasks(predictions), list(tasks)
    with_candidates = [task for task in chosen if task.metadata.name in names]
    if not with_candidates:
        raise EvaluationError(f"{predictions} has no candidates but for {', '.join(names)}")
    return with_candidates, [task for task in chosen if task.metadata.name not in names]


def take_candidates(task: AbsTask, predictions: Path, *, top_k: int) -> None:
    """Make the task one of reranking the first stage's best `top_k`; its data is loaded for it.

    Raises EvaluationError for a task that has no candidates by its nature, or has candidates of other data.
    """
    _check_same_data(task, predictions)
    if not isinstance(task, AbsTaskRetrieval):
        raise EvaluationError(f"{task.metadata.name} is {task.metadata.type}: there is nothing to rerank")
    task.convert_to_reranking(predictions, top_k=top_k)


def _check_same_data(task: AbsTask, predictions: Path) -> None:
    result = results_beside(predictions) / f"{task.metadata.name}.json"
    if result.exists() and json.loads(result.read_text("utf-8"))["dataset_revision"] != task.metadata.revision:
        raise EvaluationError(
            f"{task.metadata.name} has other data than its candidates in {predictions}: embed it again"
        )
