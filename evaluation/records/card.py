"""The run card: what scores were made with, and what they read and cost, so that they can be judged and repeated.

Every run writes one, as JSON and as Markdown, when it starts and again when tasks end: a run that was killed leaves a
card whose `finished` is None, and the tasks it was asked for are known from it.
"""

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from operator import add
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evaluation.errors import EvaluationError
from evaluation.protocol.rules import PlannedInstruction
from evaluation.records.counting import Counts
from evaluation.records.folders import replace_text
from evaluation.tasks.facts import TaskFacts

_PACKAGES = ("qwen3-serve", "mteb", "datasets", "numpy", "scikit-learn", "scipy", "grpcio", "protobuf")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCard:
    """A task as it was asked for. `counts` is None until it ended; `failure` says why it did not."""

    task: TaskFacts
    instruction: PlannedInstruction
    counts: Counts | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCard:
    """All of it. Times are ISO 8601 in UTC. `benchmark` is None where tasks were named one by one."""

    started: str
    finished: str | None
    benchmark: str | None
    model: Mapping[str, Any]  # as the service lists it
    settings: Mapping[str, Any]
    cache_key: str
    versions: Mapping[str, str]
    deviations: tuple[str, ...]  # from the authors' protocol
    tasks: tuple[TaskCard, ...]

    @property
    def counts(self) -> Counts:
        """Of all tasks that ended."""
        return reduce(add, (task.counts for task in self.tasks if task.counts), Counts())


def installed_versions() -> dict[str, str]:
    """What of this machine's software has a part in the scores."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def write_card(folder: Path, card: RunCard) -> None:
    """Writes the card into a folder, one file of each form a run, in place of what it said before."""
    path = folder / f"{card.started.replace(':', '')}.json"
    replace_text(path, json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n")
    replace_text(path.with_suffix(".md"), card_markdown(card))


def read_cards(folder: Path) -> tuple[RunCard, ...]:
    """All cards of a folder, oldest first; none where there is no folder. Raises EvaluationError for a broken one."""
    return tuple(_read_card(path) for path in sorted(folder.glob("*.json")))


def card_markdown(card: RunCard) -> str:
    """The card to be read and handed on."""
    return "\n".join([f"# Run of {card.started}", "", *_facts(card), *_tasks(card), *_deviations(card), ""])


def flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"served": {"dtype": ...}}` as `{"served.dtype": ...}`."""
    flattened: dict[str, Any] = {}
    for name, value in facts.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flattened


def _read_card(path: Path) -> RunCard:
    try:
        return TypeAdapter(RunCard).validate_json(path.read_bytes())
    except ValidationError as error:
        raise EvaluationError(f"{path} is not a run card: {error}") from error


def _facts(card: RunCard) -> Iterator[str]:
    yield from _table("run", _run_facts(card))
    yield from _table("count", _count_facts(card.counts))
    yield from _table("setting", flat(card.settings))
    yield from _table("served model", card.model)
    yield from _table("version of", card.versions)


def _run_facts(card: RunCard) -> dict[str, object]:
    return {
        "finished": card.finished or "no: it is running, or was killed",
        "benchmark": card.benchmark or "none: tasks were named one by one",
        "tasks": f"{sum(task.counts is not None for task in card.tasks)} of {len(card.tasks)} ended",
        "cache key": card.cache_key,
    }


def _count_facts(counts: Counts) -> dict[str, object]:
    return {
        "texts": f"{counts.num_texts:,}",
        "tokens": f"{counts.num_tokens:,}",
        "truncated texts": f"{counts.num_truncated:,}",
        "empty texts, sent as the placeholder": f"{counts.num_placeholders:,}",
        "refused pairs, whose query leaves no room for a document: scored 0": f"{counts.num_refused:,}",
        "texts that were sent": f"{counts.num_sent_texts:,} (others had been sent already, now or before a kill)",
        "tokens that were sent": f"{counts.num_sent_tokens:,}",
        "seconds of waiting for the service": f"{counts.seconds:,.1f}",
        "tokens/s": f"{counts.tokens_per_s:,.0f}",
    }


def _tasks(card: RunCard) -> Iterator[str]:
    yield "| task | type | metric | splits | subsets | tokens | instruction of queries | of documents | from |"
    yield "|---|---|---|---|---|---|---|---|---|"
    yield from (_row(*_task_cells(task)) for task in card.tasks)
    yield ""


def _task_cells(card: TaskCard) -> tuple[object, ...]:
    task, instruction = card.task, card.instruction
    ended = f"{card.counts.num_tokens:,}" if card.counts else card.failure or "not ended"
    sentences = (instruction.query or "none", instruction.document or "none", instruction.source)
    return (task.name, task.type, task.metric, task.splits, tuple(task.subsets), ended, *sentences)


def _deviations(card: RunCard) -> Iterator[str]:
    yield "Deviations from the authors' protocol:" + ("" if card.deviations else " none.")
    yield from (f"- {deviation}" for deviation in card.deviations)


def _table(title: str, facts: Mapping[str, object]) -> Iterator[str]:
    yield from (f"| {title} | |", "|---|---|")
    yield from (_row(name, value) for name, value in facts.items())
    yield ""


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
