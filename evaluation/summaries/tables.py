"""A summary to be read: in a terminal, or as Markdown."""

from collections.abc import Iterator

from rich.text import Text

from evaluation.summaries.summary import MeanLine, Summary, TaskLine
from evaluation.text_tables import Table, drawn, markdown_lines, output

_MAX_NAMED_PARTS = 3
_UNKNOWN = "-"


def headlines(summary: Summary) -> Iterator[str]:
    """What has to be known before a number is read: first of all what is missing."""
    yield f"{summary.model} {summary.revision}: {summary.described}"
    if summary.missing:
        yield f"INCOMPLETE: {len(summary.missing)} of {len(summary.tasks)} tasks have no score: {_missing(summary)}"
    if summary.against.label:
        yield f"against: {summary.against.label}"
    if summary.against.missing:
        yield f"INCOMPLETE: that has no score for {', '.join(summary.against.missing)}"
    yield from summary.against.remarks


def tables(summary: Summary, *, subsets: bool) -> Iterator[Table]:
    """Means, tasks, languages where there are several, and each subset where that is asked for."""
    yield _means(summary)
    yield _tasks(summary)
    if len(summary.languages) > 1:
        yield _languages(summary)
    if subsets:
        yield _subsets(summary)


def as_markdown(summary: Summary, *, subsets: bool = False) -> str:
    """Headlines as a list, then the tables."""
    lines = [f"- {line}" for line in headlines(summary)]
    for table in tables(summary, subsets=subsets):
        lines += ["", *markdown_lines(table)]
    return "\n".join(lines) + "\n"


def print_summary(summary: Summary, *, subsets: bool = False) -> None:
    """The same on standard output."""
    console = output()
    for line in headlines(summary):
        console.print(Text(line, style="bold red" if line.startswith("INCOMPLETE") else ""))
    for table in tables(summary, subsets=subsets):
        console.print(drawn(table))


def _means(summary: Summary) -> Table:
    lines = [*summary.means, *([summary.common] if summary.common else [])]
    return Table(
        num_names=1,
        columns=("mean", "of", *_score_columns(summary), *_partial_column(summary)),
        rows=tuple(_mean_row(line, summary) for line in lines),
    )


def _languages(summary: Summary) -> Table:
    return Table(
        num_names=1,
        columns=("language", "of", *_score_columns(summary), *_partial_column(summary)),
        rows=tuple(_mean_row(line, summary) for line in summary.languages),
    )


def _tasks(summary: Summary) -> Table:
    return Table(
        num_names=3,
        columns=("task", "type", "metric", *_score_columns(summary)),
        rows=tuple((line.name, line.type, line.metric, *_score_cells(line, summary)) for line in summary.tasks),
    )


def _subsets(summary: Summary) -> Table:
    return Table(
        num_names=4,
        columns=("task", "split", "subset", "languages", "score"),
        rows=tuple(
            (task.name, subset.split, subset.subset, " ".join(subset.languages), _score(subset.score))
            for task in summary.tasks
            for subset in task.subsets
        ),
    )


def _score_columns(summary: Summary) -> tuple[str, ...]:
    return ("score", "there", "difference") if summary.against.label else ("score",)


def _partial_column(summary: Summary) -> tuple[str, ...]:
    return ("of what is there",) if summary.missing else ()


def _mean_row(line: MeanLine, summary: Summary) -> tuple[str, ...]:
    """A mean of a part stands in a column of its own, never among the whole ones."""
    num = str(line.num_all) if line.num_there == line.num_all else f"{line.num_there} of {line.num_all}"
    partial = (_score(line.partial if line.score is None else None),) if summary.missing else ()
    return (line.name, num, *_score_cells(line, summary), *partial)


def _score_cells(line: MeanLine | TaskLine, summary: Summary) -> tuple[str, ...]:
    compared = (_score(line.against), _score(line.difference, sign="+")) if summary.against.label else ()
    return (_score(line.score), *compared)


def _score(score: float | None, sign: str = "") -> str:
    return _UNKNOWN if score is None else f"{score:{sign}.2f}"


def _missing(summary: Summary) -> str:
    return ", ".join(task.name + _missing_parts(task) for task in summary.missing)


def _missing_parts(task: TaskLine) -> str:
    """Empty where nothing of the task is there: then its name says all."""
    if not task.subsets:
        return ""
    named = ", ".join(task.missing[:_MAX_NAMED_PARTS])
    return f" ({named}{', ...' if len(task.missing) > _MAX_NAMED_PARTS else ''})"
