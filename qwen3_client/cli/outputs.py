"""Where rows go: to standard output as they come, or to a file that is there once it is complete."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from qwen3_client.cli.sources import Row
from qwen3_client.cli.terminal import write
from qwen3_client.cli.unfinished import Maker, unfinished_file


class Output(Protocol):
    """What UnfinishedFile and StandardOutput have in common; the former's docstrings tell."""

    @property
    def num_rows(self) -> int: ...
    def pass_over_done(self, rows: Iterator[Row[Any]]) -> int: ...
    def append(self, data: bytes, rows: Sequence[Row[Any]], maker: Maker) -> None: ...
    def complete(self, completed: Callable[[Path], Path] = ...) -> None: ...


def open_output(
    path: Path | None, settings: Mapping[str, Any], *, overwrite: bool, restart: bool
) -> AbstractContextManager[Output]:
    """A file, or without a path standard output."""
    if path is None:
        return nullcontext(StandardOutput())
    return unfinished_file(path, settings, overwrite=overwrite, restart=restart)


class StandardOutput:
    """What is printed is printed: nothing to go on with."""

    def __init__(self) -> None:
        self.num_rows = 0

    def pass_over_done(self, rows: Iterator[Row[Any]]) -> int:
        del rows
        return 0

    def append(self, data: bytes, rows: Sequence[Row[Any]], maker: Maker) -> None:
        del maker
        self.num_rows += len(rows)
        write(data)

    def complete(self, completed: Callable[[Path], Path] | None = None) -> None:
        pass
