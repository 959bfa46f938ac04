"""What a run says: a line each on stdout, the same as JSON, and the exit code."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

EXIT_PARITY, EXIT_SPEED = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line: what kind, which one, what was found; `figures` for the JSON file alone.

    `failed` says why it is no result to rely on, `missed` names the target of speed that was not reached.
    """

    kind: str
    name: str
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    failed: str = ""
    missed: str = ""

    def __str__(self) -> str:
        verdict = f"; FAILED: {self.failed}" if self.failed else f"; missed {self.missed}" if self.missed else ""
        return f"{self.kind} {self.name}: {self.text}{verdict}"


class Report:
    """Prints each row as it comes, and keeps it."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(row, flush=True)

    def attempt(self, kind: str, name: str, measure: Callable[[], Iterator[Row]]) -> None:
        """Add the rows of one measurement; what it raises is its result, and the next one is still made."""
        try:
            for row in measure():
                self.add(row)
        except torch.OutOfMemoryError as error:
            self.add(Row(kind="SKIPPED", name=f"{kind} {name}", text=f"out of memory: {_first_line(error)}"))
        except Exception as error:  # noqa: BLE001 - a back-end may raise anything, and then it is the back-end that failed
            self.add(Row(kind=kind, name=name, text="raised", failed=f"{type(error).__name__}: {_first_line(error)}"))

    def finish(self, *, is_gpu: bool, json_path: Path | None) -> int:
        """Say the result and write the file; the exit code that comes back fails a missed target on a GPU only."""
        verdict, exit_code = judge(self.rows, is_gpu=is_gpu)
        print(f"RESULT {verdict}", flush=True)
        if json_path is not None:
            content = {"result": verdict, "exit_code": exit_code, "rows": [asdict(row) for row in self.rows]}
            json_path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return exit_code


def parity_row(name: str, measure: str, found: Mapping[str, float], bar: float) -> Row:
    """One case's figure each, of which none may be above the bar; what is no number is above it."""
    above = [case for case, figure in found.items() if not figure <= bar]
    return Row(
        kind="PARITY",
        name=name,
        text=f"{measure} (at most {bar:.2g}) " + ", ".join(f"{case} {figure:.2g}" for case, figure in found.items()),
        figures={"measure": measure, "bar": bar, "found": dict(found)},
        failed=", ".join(above),
    )


def judge(rows: Sequence[Row], *, is_gpu: bool) -> tuple[str, int]:
    """The verdict and the exit code: failures before missed targets, which count on a GPU."""
    failed = [f"{row.kind} {row.name}" for row in rows if row.failed]
    missed = [f"{row.name} ({row.missed})" for row in rows if row.missed]
    num_skipped = sum(row.kind == "SKIPPED" for row in rows)
    if failed:
        return "FAILED: " + "; ".join(failed), EXIT_PARITY
    if missed and is_gpu:
        return "FAILED: missed " + "; ".join(missed), EXIT_SPEED
    skipped = f", {num_skipped} skipped" if num_skipped else ""
    return "ok" + skipped + (", but missed " + "; ".join(missed) if missed else ""), 0


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
