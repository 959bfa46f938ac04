"""What a run is compared with: the scores that the authors published, or another run."""

from collections.abc import Iterator, Mapping

from evaluation.errors import EvaluationError
from evaluation.records.card import flat
from evaluation.summaries.expected import Expected
from evaluation.summaries.published import PUBLISHED, SOURCE, PublishedMeans, published
from evaluation.summaries.results import RunResults
from evaluation.summaries.summary import MEAN_BY_TASK, MEAN_BY_TYPE, Against, summarise


def against_published(run: RunResults, expected: Expected) -> Against:
    """What the authors say of the model. Raises EvaluationError where they say nothing of it."""
    scores = published(run.served_model)
    if scores is None:
        raise EvaluationError(f"nothing is published of {run.served_model}, only of {', '.join(PUBLISHED)}")
    return Against(
        label="published",
        means=_published_means(scores.benchmarks.get(expected.benchmark or "", PublishedMeans())),
        tasks={task.name: scores.tasks[task.name] for task in expected.tasks if task.name in scores.tasks},
        remarks=(f"published: {SOURCE}", *_deviations(run)),
    )


def against_run(run: RunResults, other: RunResults, expected: Expected) -> Against:
    """Another run's scores for the same tasks, with what else differs between the two."""
    summary = summarise(other, expected)
    return Against(
        label=f"{other.model} {other.revision}",
        means={line.name: line.score for line in summary.means if line.score is not None},
        tasks={line.name: line.score for line in summary.tasks if line.score is not None},
        languages={line.name: line.score for line in summary.languages if line.score is not None},
        missing=tuple(line.name for line in summary.missing),
        remarks=(*_other_settings(run, other), *_other_data(run, other)),
    )


def _published_means(means: PublishedMeans) -> dict[str, float]:
    named = {MEAN_BY_TASK: means.by_task, MEAN_BY_TYPE: means.by_type, "Retrieval": means.retrieval}
    return {name: mean for name, mean in named.items() if mean is not None}


def _deviations(run: RunResults) -> Iterator[str]:
    if not run.cards:
        yield "no run card: how these scores were made is not known"
    for deviation in dict.fromkeys(deviation for card in run.cards for deviation in card.deviations):
        yield f"not as the authors: {deviation}"


def _other_settings(run: RunResults, other: RunResults) -> Iterator[str]:
    ours, theirs = _settings(run), _settings(other)
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name):
            yield f"{name} is {ours.get(name, 'not known')}, there {theirs.get(name, 'not known')}"


def _settings(run: RunResults) -> Mapping[str, object]:
    """The same in all cards of a run: another setting would be another run."""
    return flat(run.cards[-1].settings) if run.cards else {}


def _other_data(run: RunResults, other: RunResults) -> Iterator[str]:
    for name, task in run.tasks.items():
        there = other.tasks.get(name)
        if there and there.dataset_revision != task.dataset_revision:
            yield f"{name} has other data: {task.dataset_revision}, there {there.dataset_revision}"
        if there and there.mteb_version != task.mteb_version:
            yield f"{name} was scored by mteb {task.mteb_version}, there {there.mteb_version}"
