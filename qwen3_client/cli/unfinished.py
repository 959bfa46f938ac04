"""A file that is made in many steps, and that a second run goes on with where the first was killed.

1. NAME.part has the rows, NAME.state says how far it is. What comes is appended to the part, then told in the state,
   which is replaced as a whole: bytes of which the state does not know are cut off by the next run.
2. The next run reads the same rows again and passes over those that are done; a fingerprint tells that they are the
   same. Whatever else makes the rows what they are is compared too: options, model and revision.
3. A complete part becomes NAME, then the state is removed.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self

import typer

from qwen3_client.cli.endings import CannotGoOnError
from qwen3_client.cli.sources import Row

if sys.platform != "win32":
    import fcntl

RESTART = "--restart begins anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """What made rows that belong together."""

    model: str
    model_revision: str

    def __str__(self) -> str:
        return f"{self.model} revision {self.model_revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How far a file is: `num_rows` rows of this fingerprint are the first `num_bytes` of the part."""

    settings: Mapping[str, Any]
    maker: Maker | None = None
    num_rows: int = 0
    num_bytes: int = 0
    fingerprint: str = ""

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """None where there is no such file. Raises CannotGoOnError where it is not ours."""
        try:
            found = json.loads(file.read_bytes())
            maker = found.pop("maker")
            return cls(**found, maker=maker and Maker(**maker))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CannotGoOnError(f"{file} is not of this program, or of another version: {RESTART}") from error

    def write(self, file: Path) -> None:
        """Whole, or not at all."""
        new = file.with_name(f"{file.name}.new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(file)


class UnfinishedFile:
    """`path` in the making."""

    def __init__(self, path: Path, part: BinaryIO, state: State) -> None:
        self._path = path
        self._part = part
        self._state = state
        self._fingerprint = _Fingerprint()

    @property
    def num_rows(self) -> int:
        """Those that are done."""
        return self._state.num_rows

    def pass_over_done(self, rows: Iterator[Row[Any]]) -> int:
        """Take the rows that are done; the last one's `end`. Raises CannotGoOnError where they are others now."""
        end = 0
        for row in islice(rows, self.num_rows):
            self._fingerprint.add(row)
            end = row.end
        if self.num_rows and self._fingerprint.text != self._state.fingerprint:
            raise CannotGoOnError(f"the first {self.num_rows} rows of the input are not those done already: {RESTART}")
        return end

    def append(self, data: bytes, rows: Sequence[Row[Any]], maker: Maker) -> None:
        """What became of the next rows. Raises CannotGoOnError where another maker made what is there."""
        if self._state.maker not in {None, maker}:
            raise CannotGoOnError(
                f"the file was begun with {self._state.maker}, and the service has {maker} now: {RESTART}"
            )
        self._part.write(data)
        self._part.flush()
        for row in rows:
            self._fingerprint.add(row)
        self._state = State(
            settings=self._state.settings,
            maker=maker,
            num_rows=self.num_rows + len(rows),
            num_bytes=self._state.num_bytes + len(data),
            fingerprint=self._fingerprint.text,
        )
        self._state.write(_state_file(self._path))

    def complete(self, completed: Callable[[Path], Path]) -> None:
        """All rows are there; `completed` makes the file of the part."""
        self._part.close()
        made = completed(_part_file(self._path))
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(self._path)
        _state_file(self._path).unlink()
        _part_file(self._path).unlink(missing_ok=True)


@contextmanager
def unfinished_file(
    path: Path, settings: Mapping[str, Any], *, overwrite: bool, restart: bool
) -> Iterator[UnfinishedFile]:
    """Begun anew, or gone on with. `settings` are the options that make the rows what they are, by name.

    Raises CannotGoOnError where it was begun with others, BadParameter where `path` is there and not to be replaced.
    """
    state = _begun(path, settings, restart=restart)
    if not state.num_rows and path.exists() and not overwrite:
        raise typer.BadParameter(f"{path} is there already: --overwrite replaces it")
    with _part_file(path).open("ab") as part:
        _lock(part)
        if not state.num_rows:
            _state_file(path).unlink(missing_ok=True)
        _cut(part, state.num_bytes)
        unfinished = UnfinishedFile(path, part, state)
        try:
            yield unfinished
        except (Exception, KeyboardInterrupt) as error:
            _leave(unfinished, part, error)
            raise


class _Fingerprint:
    """Of rows, whatever they hold: their places and values."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    @property
    def text(self) -> str:
        return self._hash.hexdigest()

    def add(self, row: Row[Any]) -> None:
        self._hash.update(json.dumps([row.index, row.value]).encode())


def _part_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _state_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.state")


def _begun(path: Path, settings: Mapping[str, Any], *, restart: bool) -> State:
    """What an earlier run has left, or a state without rows."""
    state = None if restart else State.read(_state_file(path))
    if state is None:
        return State(settings=settings)
    _check_settings(state.settings, settings)
    _take_back(path, state)
    return state


def _check_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = [f"{name} {old.get(name)!r}, now {new.get(name)!r}" for name in new if old.get(name) != new.get(name)]
    if changed:
        raise CannotGoOnError(f"the file was begun with {'; '.join(changed)}: give the same options, or {RESTART}")


def _take_back(path: Path, state: State) -> None:
    """A run that was killed between its last two steps had made `path` of the part already."""
    if not _part_file(path).exists() and path.exists() and path.stat().st_size == state.num_bytes:
        path.replace(_part_file(path))


def _lock(part: BinaryIO) -> None:
    """For as long as it is open. Raises CannotGoOnError where another run has it; on Windows nobody asks."""
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotGoOnError(f"{part.name} is being written by another run") from None


def _cut(part: BinaryIO, num_bytes: int) -> None:
    if os.fstat(part.fileno()).st_size < num_bytes:
        raise CannotGoOnError(f"{part.name} is shorter than it was: {RESTART}")
    part.truncate(num_bytes)


def _leave(unfinished: UnfinishedFile, part: BinaryIO, error: BaseException) -> None:
    """Tell that the next run goes on; a file without rows is not left behind."""
    if not unfinished.num_rows:
        Path(part.name).unlink(missing_ok=True)
    elif not isinstance(error, CannotGoOnError):
        typer.echo(f"qwen3: {unfinished.num_rows} rows are done: run it again, and it goes on there", err=True)
