"""Which tasks belong to a summary, whether they are there or not."""

from collections.abc import Iterable
from dataclasses import dataclass

import mteb

from evaluation.errors import EvaluationError
from evaluation.records.card import RunCard
from evaluation.summaries.results import RunResults, TaskScores
from evaluation.tasks.benchmarks import RERANKED_TYPES, benchmark_tasks
from evaluation.tasks.facts import TaskFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """All of them; `benchmark` is None where they are not those of one."""

    benchmark: str | None
    described: str
    tasks: tuple[TaskFacts, ...]


def expected_of(run: RunResults, benchmark: str | None, other: RunResults | None = None) -> Expected:
    """Those of the benchmark that is named, else of the one that was run, else those that were asked for.

    The last are those of the `other` run too, which this one is compared with. Where there is no card either, they are
    those that are found, of which none can be missing: `described` says so. Raises EvaluationError for a benchmark
    that mteb does not know.
    """
    name = benchmark or _benchmark_of(run.cards)
    if name:
        tasks = _of_benchmark(name, run)
        num_others = len(run.tasks.keys() - {task.name for task in tasks})
        described = f"{name}; {num_others} other tasks are left out" if num_others else name
        return Expected(benchmark=name, described=described, tasks=tasks)
    cards = [*(other.cards if other else ()), *run.cards]
    if run.cards:
        asked = {entry.task.name: entry.task for card in cards for entry in card.tasks}
        return Expected(benchmark=None, described="the tasks that were asked for", tasks=tuple(asked.values()))
    results = {**(other.tasks if other else {}), **run.tasks}
    found = tuple(map(_of_result, results.values()))
    return Expected(benchmark=None, described="the tasks found; whether more belong to them is not known", tasks=found)


def _benchmark_of(cards: Iterable[RunCard]) -> str | None:
    names = {card.benchmark for card in cards}
    return names.pop() if len(names) == 1 else None


def _of_benchmark(name: str, run: RunResults) -> tuple[TaskFacts, ...]:
    """Those of its tasks that a model of this kind can run."""
    tasks = [TaskFacts.of(task) for task in benchmark_tasks(name)]
    return tuple(task for task in tasks if not _is_reranker(run) or task.type in RERANKED_TYPES)


def _is_reranker(run: RunResults) -> bool:
    return any(card.model["task"] == "rerank" for card in run.cards)


def _of_result(scores: TaskScores) -> TaskFacts:
    try:
        metadata = mteb.get_task(scores.name).metadata
    except KeyError as error:
        raise EvaluationError(f"{scores.name} is no task of mteb and no run card tells of it") from error
    return TaskFacts(
        name=scores.name,
        type=metadata.type,
        metric=metadata.main_score,
        splits=tuple(dict.fromkeys(subset.split for subset in scores.subsets)),
        subsets={subset.subset: subset.languages for subset in scores.subsets},
    )
