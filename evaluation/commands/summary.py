"""The verb `summary`."""

from pathlib import Path
from typing import Annotated, Literal, assert_never

import typer

from evaluation.commands import options
from evaluation.commands.starting import errors_in_one_line
from evaluation.summaries.against import against_published, against_run
from evaluation.summaries.expected import expected_of
from evaluation.summaries.export import as_csv, as_json
from evaluation.summaries.gate import check_drop
from evaluation.summaries.results import read_run
from evaluation.summaries.summary import NOTHING, Summary, summarise
from evaluation.summaries.tables import as_markdown, print_summary

Format = Literal["table", "markdown", "json", "csv"]
PUBLISHED = "published"


def summary(
    results: Annotated[Path, typer.Argument(help="A results folder, or a folder in it that holds one run.")],
    benchmark: Annotated[str | None, typer.Argument(help="Whose tasks have to be there; unset: what was run.")] = None,
    *,
    against: Annotated[
        str | None, typer.Option(help="The published scores, or those of another run.", metavar="published|RESULTS")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print it.")] = "table",
    subsets: Annotated[bool, typer.Option("--subsets", help="List each subset (JSON and CSV always do).")] = False,
    plot: options.Plot = None,
    max_drop: Annotated[
        float | None,
        typer.Option(min=0, help="Exit with 1 where a mean is lower by more points, or cannot be compared."),
    ] = None,
) -> None:
    """Print means by task, type and language, what is missing, and the difference to other scores."""
    if max_drop is not None and against is None:
        raise typer.BadParameter("needs --against", param_hint="--max-drop")
    with errors_in_one_line():
        found = summary_of(results, benchmark, against)
        if plot:
            from evaluation.summaries.plot import plot_summary  # noqa: PLC0415 - matplotlib takes a second

            plot_summary(found, plot)
        _print(found, form, subsets=subsets)
        if max_drop is not None:
            check_drop(found, max_drop)


def summary_of(results: Path, benchmark: str | None, against: str | None) -> Summary:
    """The summary of the run in a folder. Raises EvaluationError where something that is named is not there."""
    run = read_run(results)
    if against is None:
        return summarise(run, expected_of(run, benchmark), NOTHING)
    if against == PUBLISHED:
        expected = expected_of(run, benchmark)
        return summarise(run, expected, against_published(run, expected))
    other = read_run(Path(against))
    expected = expected_of(run, benchmark, other)
    return summarise(run, expected, against_run(run, other, expected))


def _print(found: Summary, form: Format, *, subsets: bool) -> None:
    match form:
        case "table":
            print_summary(found, subsets=subsets)
        case "markdown":
            typer.echo(as_markdown(found, subsets=subsets), nl=False)
        case "json":
            typer.echo(as_json(found), nl=False)
        case "csv":
            typer.echo(as_csv(found), nl=False)
        case _:
            assert_never(form)
