"""Progress on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bars:
    """A bar for each count that is under way, outermost first; none of them stays. Hidden where nobody looks."""

    def __init__(self, *, show: bool = True) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(
            *columns, console=console, transient=True, disable=not show or not console.is_terminal
        )

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yields what is to be called with every number of things done."""
        bar = self._progress.add_task(what, total=total)
        if len(self._progress.task_ids) == 1:
            self._progress.start()
        try:
            yield lambda num_done: self._progress.advance(bar, num_done)
        finally:
            self._progress.remove_task(bar)
            if not self._progress.task_ids:
                self._progress.stop()
