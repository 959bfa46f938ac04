"""Tables of text, in a terminal or as Markdown."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

_PIPE_WIDTH = 240  # where nothing needs to be cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells of text; the columns after the first `num_names` hold numbers."""

    num_names: int
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def output() -> Console:
    """Standard output, wide where it goes into a pipe."""
    return Console() if Console().is_terminal else Console(width=_PIPE_WIDTH)


def drawn(table: Table) -> RichTable:
    """For a console."""
    columns = RichTable(box=None, pad_edge=False)
    for number, column in enumerate(table.columns):
        columns.add_column(column, justify="left" if number < table.num_names else "right", no_wrap=number == 0)
    for row in table.rows:
        columns.add_row(*map(Text, row))
    return columns


def markdown_lines(table: Table) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield _line(table.columns)
    yield _line(["---"] * table.num_names + ["---:"] * (len(table.columns) - table.num_names))
    yield from map(_line, table.rows)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
