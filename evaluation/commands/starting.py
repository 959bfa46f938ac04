"""From options to a run, as the verbs that ask the service share it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from datasets import disable_progress_bars
from rich.console import Console

from evaluation.bars import Bars
from evaluation.errors import EvaluationError
from evaluation.protocol.instructions import Instructions
from evaluation.protocol.settings import Dtype, Served, Settings
from evaluation.records.folders import Folders
from evaluation.runs.plan import TaskPlan, measure_tokens_per_s, print_estimate, print_settings
from evaluation.runs.running import Run
from evaluation.service.served import find_model
from evaluation.service.session import Session
from qwen3_client import Client, ModelInfo, Qwen3Error


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """What the user, the service or the disk can mend ends the command with 1."""
    try:
        yield
    except (Qwen3Error, EvaluationError, OSError) as error:
        typer.echo(f"qwen3-eval: {error}", err=True)
        raise typer.Exit(1) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Which service and model, how that is served, and where results go."""

    client: Client
    model: str
    name: str
    output: Path
    dtype: Dtype | None
    engine: str | None
    prefix_cache: bool
    progress: bool

    def session(self, task: str, instructions: Instructions, settings_of: Callable[..., Settings]) -> Session:
        """With what `settings_of` makes of the rest: its dimensions 0 are the model's own.

        Raises EvaluationError where no such model does `task`, or nobody says how it is served.
        """
        disable_progress_bars()  # those of datasets: ours say more
        found = find_model(self.client, self.model, task)
        settings = settings_of(served=self._served(found), instructions=instructions.digest)
        return Session(
            client=self.client,
            model=found,
            settings=replace(settings, dimensions=settings.dimensions or found.native_dimensions),
            instructions=instructions,
            folders=Folders(self.output),
            name=self.name or found.id,
            bars=Bars(show=self.progress),
        )

    def _served(self, model: ModelInfo) -> Served:
        if self.dtype is None or not self.engine:
            raise EvaluationError(
                "the service does not tell its workers' dtype and engine, and scores depend on them: "
                "say --dtype and --engine, or set QWEN3_EVAL_DTYPE and QWEN3_EVAL_ENGINE"
            )
        return Served.of(model, dtype=self.dtype, engine=self.engine, prefix_cache=self.prefix_cache)


def tell(console: Console, session: Session, plans: Sequence[TaskPlan], tokens_per_s: float | None) -> None:
    """What is evaluated, and how long that takes, at the stated throughput or at that of the service now."""
    print_settings(console, session.settings, session.name)
    how = "as stated" if tokens_per_s else "measured with 64 short texts: with many it is faster"
    tokens_per_s = tokens_per_s or measure_tokens_per_s(session.client, session.settings.served)
    print_estimate(console, plans, tokens_per_s, how=how)


def end(run: Run, session: Session, *, things: str) -> None:
    """Say what was read and where the scores are; ends the command with 1 where a task failed."""
    counts = run.card.counts
    typer.echo(
        f"{counts.num_texts:,} {things}, {counts.num_tokens:,} tokens, {counts.num_truncated:,} cut, "
        f"{counts.num_refused:,} refused, {counts.num_placeholders:,} empty; {counts.num_sent_texts:,} sent, "
        f"{counts.tokens_per_s:,.0f} tokens/s"
    )
    typer.echo(f"scores: {session.run_folders.results}")
    for task in run.failed:
        typer.echo(f"qwen3-eval: {task.task.name} failed: {task.failure}", err=True)
    if run.failed:
        raise typer.Exit(1)
