"""The bar of show_progress_bar."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

_Part = TypeVar("_Part", bound=Sized)


def with_progress(parts: Iterable[_Part], total: int, *, shown: bool) -> Iterator[_Part]:
    """The parts as they come; where it is shown, a bar on standard error counts what is in them."""
    if not shown:
        yield from parts
        return
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total)
        for part in parts:
            yield part
            progress.advance(task, len(part))
