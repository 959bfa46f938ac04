"""The table, for people at a terminal and in the document."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.faults.checks import Result
from tests.faults.stage import Row

COLUMNS = (
    "requests",
    "faults",
    "lost",
    "wrong",
    "duplicated",
    "run again",
    "late",
    "refused, then answered",
    "refused",
    "worst s",
)


def print_table(results: Sequence[Result]) -> None:
    table = Table("fault", *COLUMNS, "took s", "")
    for found in results:
        table.add_row(found.name, *_cells(found), f"{found.seconds:.0f}", "ok" if found.passed else "FAILED")
    console = Console(width=160)
    console.print(table)
    for found in results:
        for problem in found.problems:
            console.print(f"{found.name}: {problem}", markup=False)


def markdown(rows: Sequence[Row], results: Sequence[Result]) -> str:
    """The document's table."""
    lines = [_line("fault", *COLUMNS, "what it means to you"), _line(*["---"] * (len(COLUMNS) + 2))]
    meanings = {row.name: row for row in rows}
    for found in results:
        row = meanings[found.name]
        fault = f"{row.fault} ({found.note})" if found.note else row.fault
        lines.append(_line(fault, *_cells(found), row.meaning))
    return "\n".join(lines) + "\n"


def _cells(found: Result) -> list[str]:
    counts = (
        found.num_requests,
        found.num_events,
        found.num_lost,
        found.num_wrong,
        found.num_duplicated,
        found.num_again,
        found.num_late,
        found.num_refused_then_answered,
        found.num_refused,
    )
    return [*(f"{count:,}" for count in counts), f"{found.worst_s:.1f}"]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
