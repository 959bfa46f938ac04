"""What a run is about to do, told before it does it."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from mteb.abstasks.abstask import AbsTask
from rich.console import Console

from evaluation.protocol.instructions import Instructions
from evaluation.protocol.rules import PlannedInstruction, Protocol
from evaluation.protocol.settings import Served, Settings
from evaluation.tasks.benchmarks import parts_of
from evaluation.tasks.sizes import Size
from qwen3_client import Client

_PROBE_TEXTS = 64
_PROBE_WORDS = "the quick brown fox jumps over the lazy dog while seven wizards quietly box with five old jugs " * 3


SizeOf = Callable[[AbsTask, PlannedInstruction], Size | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """One task: what its sides are sent with, and how much it reads where mteb knows that."""

    name: str
    type: str
    splits: tuple[str, ...]
    instruction: PlannedInstruction
    size: Size | None


def plan_tasks(
    tasks: Iterable[AbsTask], instructions: Instructions, protocol: Protocol, size_of: SizeOf
) -> list[TaskPlan]:
    """In the order of the tasks, a task that is made of several as those."""
    return [
        _plan_task(part, instructions.plan(part.metadata, protocol), size_of)
        for task in tasks
        for part in parts_of(task)
    ]


def print_plan(console: Console, plans: Sequence[TaskPlan], *, things: str) -> None:
    """Two or three lines for each task, `things` being what its size counts; then the sum."""
    for plan in plans:
        for line in (_headline(plan, things), *_instruction_lines(plan.instruction)):
            _print(console, line)
    total, unknown = total_size(plans), sum(plan.size is None for plan in plans)
    rest = f"; {unknown} more tasks are counted when they run" if unknown else ""
    _print(console, f"{len(plans) - unknown} tasks: {_size(total, things)}{rest}")


def print_estimate(console: Console, plans: Sequence[TaskPlan], tokens_per_s: float, *, how: str) -> None:
    """How long that takes at a throughput, and `how` that is known."""
    duration = timedelta(seconds=round(total_size(plans).num_tokens / tokens_per_s))
    _print(console, f"about {duration} at {tokens_per_s:,.0f} tokens/s ({how})")


def print_settings(console: Console, settings: Settings, name: str) -> None:
    """What is evaluated, under which name, and where that is not as the authors do it."""
    served = settings.served
    _print(console, f"{served.model} at {served.revision}, {served.engine}, {served.dtype}")
    _print(console, f"results under {name}, {settings.run_revision}")
    for deviation in settings.deviations():
        _print(console, f"not as the authors: {deviation}")


def total_size(plans: Iterable[TaskPlan]) -> Size:
    """Of the tasks whose size is known."""
    return sum((plan.size for plan in plans if plan.size), start=Size(num_texts=0, num_tokens=0))


def measure_tokens_per_s(client: Client, served: Served) -> float:
    """What the service does with one call of 64 short texts: less than it does with many."""
    texts = [f"{number} {_PROBE_WORDS}" for number in range(_PROBE_TEXTS)]
    began = time.monotonic()
    if served.task == "rerank":
        hits = client.rerank(_PROBE_WORDS, texts, model=served.model, priority="bulk")
        num_tokens = sum(hit.token_count for hit in hits)
    else:
        num_tokens = sum(client.embed(texts, model=served.model, priority="bulk").token_counts)
    return num_tokens / (time.monotonic() - began)


def _plan_task(task: AbsTask, instruction: PlannedInstruction, size_of: SizeOf) -> TaskPlan:
    return TaskPlan(
        name=task.metadata.name,
        type=task.metadata.type,
        splits=tuple(task.eval_splits),
        instruction=instruction,
        size=size_of(task, instruction),
    )


def _headline(plan: TaskPlan, things: str) -> str:
    size = _size(plan.size, things) if plan.size else f"{things} unknown"
    return f"{plan.name}: {plan.type}, {' and '.join(plan.splits)}, {size}"


def _size(size: Size, things: str) -> str:
    return f"{size.num_texts:,} {things}, about {size.num_tokens:,} tokens"


def _instruction_lines(planned: PlannedInstruction) -> Iterator[str]:
    yield f"    {planned.query or 'no instruction'} ({planned.source})"
    if planned.document is not None:
        yield f"    documents: {'the same' if planned.document == planned.query else planned.document}"


def _print(console: Console, line: str) -> None:
    """Instructions are data: square brackets in them are not rich's markup."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
