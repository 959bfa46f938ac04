"""Runs tasks one by one, so that a run that was killed goes on, and memory holds one task's data.

1. A task that an earlier run finished, with the same settings, is not run again: its counts are on disk.
2. Another one begins from its first subset: what was half written of it is removed. Its answers are not, so the
   service is asked only for what it has not answered.
3. Its scores, predictions and counts are saved, then its answers are removed.
4. The run card is written at the start and after each task.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import mteb
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.results import TaskResult

from evaluation.errors import EvaluationError
from evaluation.records.card import RunCard, TaskCard, installed_versions, write_card
from evaluation.records.counting import Counts
from evaluation.records.folders import RunFolders, replace_text
from evaluation.records.locks import alone_in
from evaluation.service.cross_encoder import CrossEncoder
from evaluation.service.encoder import Encoder
from evaluation.service.rescoring import RescoringSearch
from evaluation.service.session import Session
from evaluation.tasks.benchmarks import parts_of
from evaluation.tasks.facts import TaskFacts
from qwen3_client import Qwen3Error

_BATCH_TEXTS = 1024  # of mteb's batches, which only carry texts to the adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of it: `card.tasks` say of each task what it read or why it failed."""

    card: RunCard
    results: list[TaskResult]

    @property
    def failed(self) -> list[TaskCard]:
        return [task for task in self.card.tasks if task.failure]


Model = Encoder | CrossEncoder | RescoringSearch
Prepare = Callable[[AbsTask], object]


def run_tasks(
    model: Model,
    tasks: Sequence[AbsTask],
    *,
    benchmark: str | None = None,
    prepare: Prepare = lambda _: None,
) -> Run:
    """Run what is not finished. `prepare` is called with each task right before it runs.

    A task whose data cannot be had fails alone. Raises Qwen3Error or EvaluationError where the service fails, which the
    others would as well. The card says why in both cases. Raises EvaluationError where another process runs the same.
    """
    session = model.session
    results: list[TaskResult] = []
    with alone_in(session.run_folders.cards), session.bars.counting("tasks", len(tasks)) as done:
        card = _new_card(session, tasks, benchmark)
        write_card(session.run_folders.cards, card)
        for place, task in enumerate(tasks):
            try:
                task_card = _run_task(model, task, card.tasks[place], prepare, results)
            except (Qwen3Error, EvaluationError) as error:
                write_card(session.run_folders.cards, _with_task(card, place, _failed(card.tasks[place], error)))
                raise
            card = _with_task(card, place, task_card)
            write_card(session.run_folders.cards, card)
            done(1)
        card = replace(card, finished=_now())
        write_card(session.run_folders.cards, card)
    return Run(card=card, results=results)


def _run_task(model: Model, task: AbsTask, card: TaskCard, prepare: Prepare, results: list[TaskResult]) -> TaskCard:
    had_data = task.data_loaded
    try:
        model.session.tally.take()
        if _is_to_do(task, model.session.run_folders):
            _clear_unfinished(task, model.session.run_folders)
            prepare(task)
        results += _evaluate(model, task)
    except (Qwen3Error, EvaluationError):
        raise
    except Exception as error:  # noqa: BLE001 - data fails in many ways; the failure is named and the others go on
        return _failed(card, error)
    finally:
        if task.data_loaded and not had_data:
            task.unload_data()
    return replace(card, counts=_finish(task, model.session))


def _with_task(card: RunCard, place: int, task: TaskCard) -> RunCard:
    return replace(card, tasks=(*card.tasks[:place], task, *card.tasks[place + 1 :]))


def _failed(card: TaskCard, error: Exception) -> TaskCard:
    return replace(card, failure=f"{type(error).__name__}: {error}")


def _is_to_do(task: AbsTask, folders: RunFolders) -> bool:
    """Whether any of it is: it was not finished, or with other splits and subsets."""
    if not _is_finished(task.metadata, folders):
        return True
    return bool(TaskResult.from_disk(folders.result(task.metadata.name)).get_missing_evaluations(task))


def _clear_unfinished(task: AbsTask, folders: RunFolders) -> None:
    """Remove what may be torn, is of other data, or lacks counts."""
    for part in (task, *parts_of(task)):
        name = part.metadata.name
        if not (_is_finished(part.metadata, folders) and _is_whole(folders.prediction(name))):
            _remove(name, folders)


def _remove(task: str, folders: RunFolders) -> None:
    for path in (folders.counts(task), folders.result(task), folders.prediction(task)):
        path.unlink(missing_ok=True)


def _is_finished(task: TaskMetadata, folders: RunFolders) -> bool:
    """Only then has it counts. Data of another revision would have other scores."""
    if not (folders.counts(task.name).exists() and folders.result(task.name).exists()):
        return False
    try:
        result = json.loads(folders.result(task.name).read_text("utf-8"))
    except ValueError:  # a run died while it added other splits or subsets
        return False
    return bool(result["dataset_revision"] == task.revision)


def _is_whole(prediction: Path) -> bool:
    """Or not there; mteb writes it anew when splits or subsets are added."""
    try:
        json.loads(prediction.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def _evaluate(model: Model, task: AbsTask) -> list[TaskResult]:
    """To results that are there, mteb adds those it lacks, of other splits and subsets."""
    predictions = model.session.run_folders.predictions
    return mteb.evaluate(
        model,
        task,
        cache=mteb.ResultCache(model.session.folders.root),
        prediction_folder=predictions if model.session.settings.served.task == "embedding" else None,
        encode_kwargs={"batch_size": _BATCH_TEXTS, "show_progress_bar": False},
        show_progress_bar=False,
        co2_tracker=False,
        public_only=False,  # a private task whose data cannot be had fails as any other does
    ).task_results


def _finish(task: AbsTask, session: Session) -> Counts:
    """The counts of all runs of the task, which mark it as finished."""
    path = session.run_folders.counts(task.metadata.name)
    counts = session.tally.take()
    if path.exists():
        counts += Counts(**json.loads(path.read_text("utf-8")))
    replace_text(path, json.dumps(asdict(counts)))
    for part in (task, *parts_of(task)):
        session.store.clear(part.metadata.name)
    return counts


def _new_card(session: Session, tasks: Iterable[AbsTask], benchmark: str | None) -> RunCard:
    settings = session.settings
    return RunCard(
        started=_now(),
        finished=None,
        benchmark=benchmark,
        model=asdict(session.model),
        settings=asdict(settings),
        cache_key=settings.key,
        versions=installed_versions(),
        deviations=tuple(settings.deviations()),
        tasks=tuple(_new_task_card(session, task) for task in tasks),
    )


def _new_task_card(session: Session, task: AbsTask) -> TaskCard:
    plan = session.instructions.plan(task.metadata, session.settings.protocol)
    return TaskCard(task=TaskFacts.of(task), instruction=plan)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
