"""The verb `sweep`."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer
from datasets import disable_progress_bars

from evaluation.bars import Bars
from evaluation.commands import options
from evaluation.commands.starting import errors_in_one_line
from evaluation.errors import EvaluationError
from evaluation.protocol.instructions import Instructions
from evaluation.protocol.rules import Protocol
from evaluation.records.folders import Folders, replace_text
from evaluation.sweeps.choices import Look, choices
from evaluation.sweeps.report import as_csv, as_json, sweep_table
from evaluation.sweeps.services import Service
from evaluation.sweeps.sweep import Sweep, SweepRow, run_sweep
from evaluation.tasks.choosing import choose_tasks
from evaluation.text_tables import drawn, output
from qwen3_client.cli.connection import connection_of
from qwen3_client.options import Encoding

_SWITCHES = {"on": (True,), "off": (False,), "both": (True, False)}


def sweep(
    context: typer.Context,
    *,
    service: Annotated[
        list[str],
        typer.Option(
            help="HOST:PORT,dtype=...,engine=... and perhaps prefix_cache=no, model=ID; may be repeated. "
            "The service does not tell how its workers were started: what is said here is what is printed."
        ),
    ],
    benchmark: options.Benchmark = None,
    tasks: options.Tasks = None,
    data: options.Data = None,
    dimensions: Annotated[
        list[int] | None, typer.Option(min=0, help="Width of vectors, 0 the model's own; may be repeated.")
    ] = None,
    encoding: Annotated[
        list[str] | None, typer.Option(help=f"Of vectors: {', '.join(get_args(Encoding))}; may be repeated.")
    ] = None,
    rescore: Annotated[
        list[str] | None,
        typer.Option(
            help="A second look for int8 and binary: no, queries (they stay float32), or the number of best documents "
            "that are scored again with float32 vectors; may be repeated."
        ),
    ] = None,
    instructions: Annotated[Literal["on", "off", "both"], typer.Option(help="Send instructions or not.")] = "on",
    instruction_file: options.InstructionFile = None,
    folder: Annotated[Path, typer.Option("--output", help="The results folder.")] = Path("sweep"),
    plot: options.Plot = None,
    progress: options.Progress = True,
) -> None:
    """Compare widths, encodings and services: quality against bytes per vector and tokens per second."""
    with errors_in_one_line():
        asked = Sweep(
            tasks=choose_tasks(benchmark, tasks, data),
            choices=choices(dimensions or [0], _encodings(encoding), map(Look.parse, rescore or ["no"])),
            instructions=Instructions(instruction_file),
            protocols=[Protocol(use_instructions=switch) for switch in _SWITCHES[instructions]],
            folders=Folders(folder),
            bars=Bars(show=progress),
        )
        services = [Service.parse(text) for text in service]
        disable_progress_bars()  # those of datasets: ours say more
        rows = list(run_sweep(asked, services, connection_of(context).client_at))
        _report(rows, folder, plot)
    if any(row.failures for row in rows):
        raise typer.Exit(1)


def _encodings(words: list[str] | None) -> list[Encoding]:
    known: tuple[Encoding, ...] = get_args(Encoding)
    unknown = [word for word in words or () if word not in known]
    if unknown:
        raise EvaluationError(f"--encoding {unknown[0]!r}: is one of {', '.join(known)}")
    return [encoding for word in words or ["float32"] for encoding in known if encoding == word]


def _report(rows: list[SweepRow], folder: Path, plot: Path | None) -> None:
    replace_text(folder / "sweep.json", as_json(rows))
    replace_text(folder / "sweep.csv", as_csv(rows))
    output().print(drawn(sweep_table(rows)))
    if plot:
        from evaluation.sweeps.plot import plot_sweep  # noqa: PLC0415 - matplotlib takes a second

        plot_sweep(rows, plot)
    for name, reason in {name: reason for row in rows for name, reason in row.failures.items()}.items():
        typer.echo(f"qwen3-eval: {name} failed: {reason}", err=True)
