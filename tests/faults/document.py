"""The table's place in the document: between two marks, everything around them stays."""

from collections.abc import Sequence
from pathlib import Path

from tests.faults.checks import Result
from tests.faults.report import markdown
from tests.faults.stage import Row

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
_NEW = f"# Reliability\n\nPlayed by `make test-faults`.\n\n{BEGIN}\n{END}\n"


def write(path: Path, rows: Sequence[Row], results: Sequence[Result]) -> None:
    """Replace what stands between the marks; a file that is not there is made."""
    text = path.read_text() if path.exists() else _NEW
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{path} lacks the marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{markdown(rows, results)}{END}{after}")
