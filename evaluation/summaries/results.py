"""Reads what mteb writes: `<root>/results/<org>__<name>/<revision>/<Task>.json`, and the run cards beside it."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mteb.results import TaskResult

from evaluation.errors import EvaluationError
from evaluation.records.card import RunCard, read_cards
from evaluation.records.folders import Folders

_META = "model_meta.json"
_DEPTHS = ("", "*/", "*/*/", "results/*/*/")  # a run itself, a model's folder, `results`, and what it stands in


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetScore:
    """The main score, in percent, of one subset of one split."""

    split: str
    subset: str
    languages: tuple[str, ...]  # as mteb names them: eng-Latn
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScores:
    """A task's result. Scores that are not numbers are left out, and so are missing."""

    name: str
    dataset_revision: str
    mteb_version: str | None
    subsets: tuple[SubsetScore, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResults:
    """All results of one model under one revision, by task; `cards` are empty where others wrote them."""

    model: str
    revision: str
    tasks: Mapping[str, TaskScores]
    cards: tuple[RunCard, ...]

    @property
    def served_model(self) -> str:
        """What was evaluated, whatever name the results are kept under."""
        return str(self.cards[-1].model["id"]) if self.cards else self.model


def read_run(path: Path) -> RunResults:
    """The one run below a path, which may be its own folder or any folder above up to the root of the results.

    Raises EvaluationError where there is none, more than one, or a file that mteb cannot read.
    """
    folder = _only_run(path)
    model, revision = _model_and_revision(folder / _META)
    tasks = [_task_scores(file) for file in sorted(folder.glob("*.json")) if file.name != _META]
    return RunResults(
        model=model,
        revision=revision,
        tasks={task.name: task for task in tasks},
        cards=read_cards(Folders(folder.parents[2]).run(model, revision).cards),
    )


def _only_run(path: Path) -> Path:
    found = sorted({meta.parent for depth in _DEPTHS for meta in path.glob(depth + _META)})
    if not found:
        raise EvaluationError(f"{path} holds no results: no {_META} in it or below")
    if len(found) > 1:
        raise EvaluationError("\n  ".join([f"{path} holds several runs; name one:", *map(str, found)]))
    return found[0].absolute()


def _model_and_revision(file: Path) -> tuple[str, str]:
    try:
        meta = json.loads(file.read_text("utf-8"))
        return meta["name"], meta["revision"]
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{file} is not what mteb writes: {error!r}") from error


def _task_scores(file: Path) -> TaskScores:
    try:
        result = TaskResult.from_disk(file)
    except (ValueError, KeyError) as error:
        raise EvaluationError(f"{file} is not a result of mteb: {error}") from error
    return TaskScores(
        name=result.task_name,
        dataset_revision=result.dataset_revision,
        mteb_version=result.mteb_version,
        subsets=tuple(_subsets(result)),
    )


def _subsets(result: TaskResult) -> Iterator[SubsetScore]:
    for split, entries in result.scores.items():
        for entry in entries:
            if math.isfinite(entry["main_score"]):
                yield SubsetScore(
                    split=split,
                    subset=entry["hf_subset"],
                    languages=tuple(entry["languages"]),
                    score=100 * entry["main_score"],
                )
