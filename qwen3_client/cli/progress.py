"""The progress bar: on standard error, never among the output."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def is_wanted(*, asked: bool | None, to_stdout: bool) -> bool:
    """As asked; else on a terminal on which nothing else is printed."""
    if asked is not None:
        return asked
    return _is_terminal(sys.stderr) and not (to_stdout and _is_terminal(sys.stdout))


def _is_terminal(stream: TextIO | None) -> bool:
    """Not where it is closed, which Python tells by None."""
    return stream is not None and stream.isatty()


class Bar:
    """How much of the source is read, and how many rows are done."""

    def __init__(self, progress: Progress, *, size: int | None, num_rows: int, end: int) -> None:
        self._progress = progress
        self._num_rows = num_rows
        self._task = progress.add_task("", total=size, completed=end, num_rows=num_rows)

    def advance(self, num_rows: int, end: int) -> None:
        """So many rows more are done; the last one's `end`."""
        self._num_rows += num_rows
        self._progress.update(self._task, completed=end, num_rows=self._num_rows)


@contextmanager
def bar(*, is_shown: bool, size: int | None, num_rows: int, end: int) -> Iterator[Bar]:
    """Inside, a bar of a source of this size (None: unknown), of which some rows may be done, up to `end`."""
    columns = (
        TextColumn("{task.fields[num_rows]} rows"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Who asks for it where there is no terminal gets what a terminal would.
    console = Console(stderr=True, force_terminal=is_shown)
    shown = Progress(*columns, console=console, disable=not is_shown, redirect_stdout=False, redirect_stderr=False)
    with shown if is_shown else nullcontext():  # before rich 15 a bar that is off ends with an empty line
        yield Bar(shown, size=size, num_rows=num_rows, end=end)
