"""What a run's results come to: means by task and by type, per language, what is missing, the difference to others.

Pure. A score is given only where everything that belongs to it is there, as in mteb: a task that lacks a subset has
none, and no mean over such a task has one. `partial` is what can be said all the same: it stands apart, with the number
of tasks that it is over.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import fmean

from evaluation.summaries.expected import Expected
from evaluation.summaries.results import RunResults, SubsetScore, TaskScores
from evaluation.tasks.facts import TaskFacts

MEAN_BY_TASK = "mean by task"
MEAN_BY_TYPE = "mean by type"


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What is compared with: percent by the name of a mean, a task, a language. What is not in there is not known."""

    label: str
    means: Mapping[str, float]
    tasks: Mapping[str, float]
    languages: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()  # tasks that it should have and has not
    remarks: tuple[str, ...] = ()  # what else differs


NOTHING = Against(label="", means={}, tasks={})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """A task's score in percent beside the other one. `missing` names split/subset of what of it is not there."""

    name: str
    type: str
    metric: str
    score: float | None
    against: float | None
    missing: tuple[str, ...]
    subsets: tuple[SubsetScore, ...]

    @property
    def difference(self) -> float | None:
        return _difference(self.score, self.against)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanLine:
    """A mean over `num_all` scores, of which `num_there` are there. `score` is None where some are not."""

    name: str
    score: float | None
    partial: float | None
    num_there: int
    num_all: int
    against: float | None

    @property
    def difference(self) -> float | None:
        return _difference(self.score, self.against)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All of it, in percent. `common` is over the tasks that both have, where that is not all."""

    model: str
    revision: str
    described: str
    against: Against
    means: tuple[MeanLine, ...]
    common: MeanLine | None
    tasks: tuple[TaskLine, ...]
    languages: tuple[MeanLine, ...]

    @property
    def missing(self) -> tuple[TaskLine, ...]:
        """The tasks without a score: all of them is not there, or a part."""
        return tuple(task for task in self.tasks if task.score is None)


def summarise(run: RunResults, expected: Expected, against: Against = NOTHING) -> Summary:
    """The summary of a run over the tasks that belong to it."""
    tasks = tuple(_task_line(task, run.tasks.get(task.name), against) for task in expected.tasks)
    return Summary(
        model=run.model,
        revision=run.revision,
        described=expected.described,
        against=against,
        means=tuple(_means(tasks, against)),
        common=_common(tasks),
        tasks=tasks,
        languages=tuple(_languages(expected.tasks, tasks, against)),
    )


def _task_line(task: TaskFacts, scores: TaskScores | None, against: Against) -> TaskLine:
    wanted = list(product(task.splits, task.subsets))
    found = {(subset.split, subset.subset): subset for subset in scores.subsets} if scores else {}
    subsets = tuple(found[place] for place in wanted if place in found)
    return TaskLine(
        name=task.name,
        type=task.type,
        metric=task.metric,
        score=fmean(subset.score for subset in subsets) if len(subsets) == len(wanted) else None,
        against=against.tasks.get(task.name),
        missing=tuple("/".join(place) for place in wanted if place not in found),
        subsets=subsets,
    )


def _means(tasks: Sequence[TaskLine], against: Against) -> Iterator[MeanLine]:
    by_type: dict[str, list[float | None]] = defaultdict(list)
    for task in tasks:
        by_type[task.type].append(task.score)
    types = [_mean(name, by_type[name], against.means) for name in sorted(by_type)]
    yield _mean(MEAN_BY_TASK, [task.score for task in tasks], against.means)
    yield _mean(MEAN_BY_TYPE, [line.score for line in types], against.means)
    yield from types


def _common(tasks: Sequence[TaskLine]) -> MeanLine | None:
    both = [(task.score, task.against) for task in tasks if task.score is not None and task.against is not None]
    if not both or len(both) == len(tasks):
        return None
    ours, theirs = (fmean(side) for side in zip(*both, strict=True))
    return MeanLine(
        name=f"mean of the {len(both)} of {len(tasks)} tasks that both have",
        score=ours,
        partial=ours,
        num_there=len(both),
        num_all=len(both),
        against=theirs,
    )


def _languages(expected: Sequence[TaskFacts], tasks: Sequence[TaskLine], against: Against) -> Iterator[MeanLine]:
    """As mteb: over all scores of a language, so that a subset of two languages counts for both."""
    by_language: dict[str, list[float | None]] = defaultdict(list)
    for facts, line in zip(expected, tasks, strict=True):
        scores = {(subset.split, subset.subset): subset.score for subset in line.subsets}
        for split, (subset, languages) in product(facts.splits, facts.subsets.items()):
            for language in languages:
                by_language[language].append(scores.get((split, subset)))
    for language in sorted(by_language):
        yield _mean(language, by_language[language], against.languages)


def _mean(name: str, scores: Sequence[float | None], against: Mapping[str, float]) -> MeanLine:
    there = [score for score in scores if score is not None]
    partial = fmean(there) if there else None
    return MeanLine(
        name=name,
        score=partial if len(there) == len(scores) else None,
        partial=partial,
        num_there=len(there),
        num_all=len(scores),
        against=against.get(name),
    )


def _difference(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs
