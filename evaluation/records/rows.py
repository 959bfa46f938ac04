"""What was answered, on disk, one row for each text or pair, so that a run that was killed goes on where it was.

A file holds rows of one size, in the order in which they were answered, and is only ever added to. A row that was
being written when the process died is cut off at the next start. Rows are found by a digest of what was asked.
"""

import shutil
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.errors import EvaluationError

_DIGEST_BYTES = 16
_DIGEST_FIELD = "digest"

Rows = NDArray[np.void]


def digest_of(*parts: str | None) -> bytes:
    """16 bytes that stand for what was asked: None and the empty text differ, and so do `a, b` and `ab`."""
    return blake2b(repr(parts).encode(), digest_size=_DIGEST_BYTES).digest()


class RowFile:
    """The rows of one file; `fields` are what a row holds besides its digest, as numpy names them."""

    def __init__(self, path: Path, fields: Sequence[tuple[Any, ...]]) -> None:
        self._path = path
        self._dtype = np.dtype([(_DIGEST_FIELD, f"V{_DIGEST_BYTES}"), *fields])
        self._places = {row.tobytes(): place for place, row in enumerate(self._complete_rows()[_DIGEST_FIELD])}

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._places

    def append(self, digests: Sequence[bytes], **values: ArrayLike) -> None:
        """Write the rows of `digests`; each value has one item for each, and goes to the field of its name."""
        rows = np.zeros(len(digests), dtype=self._dtype)
        rows[_DIGEST_FIELD] = np.frombuffer(b"".join(digests), dtype=f"V{_DIGEST_BYTES}")
        for name, value in values.items():
            rows[name] = value
        with self._path.open("ab") as file:
            first = file.tell() // self._dtype.itemsize
            file.write(rows.tobytes())
        self._places.update((digest, first + number) for number, digest in enumerate(digests))

    def read(self, digests: Sequence[bytes]) -> Rows:
        """One row for each digest, in their order. Raises KeyError where one was never written.

        Raises EvaluationError where another process writes to the file as well: rows are not where they should be.
        """
        if not digests:
            return np.empty(0, dtype=self._dtype)
        places = [self._places[digest] for digest in digests]
        rows = np.asarray(self._on_disk()[places])
        if rows[_DIGEST_FIELD].tobytes() != b"".join(digests):
            raise EvaluationError(f"{self._path} is written by another run: let that end, then run again")
        return rows

    def _complete_rows(self) -> Rows:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        num_bytes = self._path.stat().st_size
        torn = num_bytes % self._dtype.itemsize
        if torn:
            with self._path.open("r+b") as file:
                file.truncate(num_bytes - torn)
        return self._on_disk() if num_bytes > torn else np.empty(0, dtype=self._dtype)

    def _on_disk(self) -> Rows:
        return np.memmap(self._path, dtype=self._dtype, mode="r")


class RowStore:
    """The row files of one run: a folder for each task, which goes when the task is finished."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, RowFile] = {}

    def file(self, task: str, kind: str, fields: Sequence[tuple[Any, ...]]) -> RowFile:
        """The task's file of this kind, opened once; `fields` are those it was begun with."""
        path = self._folder / task / f"{kind}.rows"
        if path not in self._files:
            self._files[path] = RowFile(path, fields)
        return self._files[path]

    def clear(self, task: str) -> None:
        """Remove the task's files: the results that they led to are saved."""
        self._files = {path: file for path, file in self._files.items() if path.parent.name != task}
        shutil.rmtree(self._folder / task, ignore_errors=True)
