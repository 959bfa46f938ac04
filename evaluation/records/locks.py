"""One run at a time: two with the same settings would send the same texts, and write to the same files."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evaluation.errors import EvaluationError


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Raises EvaluationError where another process is in the folder; one that died is not."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EvaluationError(f"another run is at work in {folder}: let that end, then run again") from error
        yield
