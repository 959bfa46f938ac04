"""A file that is made in many steps, and that a second run goes on with where the first was killed.

1. NAME.part has the rows, NAME.state says how far it is. What comes is appended to the part, then told in the state,
   which is replaced as a whole: bytes of which the state does not know are cut off by the next run.
2. The next run reads the same rows again and passes over those that are done; a fingerprint tells that they are the
   same. Whatever else makes the rows what they are is compared too: options, model and revision.
3. A complete part becomes NAME.whole, which becomes NAME; then the state is removed. A run that was killed in between
   is ended by the next one.

The part is locked as long as a run has it: two runs never write to one file.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self

import typer

from qwen3_client.cli.endings import CannotGoOnError
from qwen3_client.cli.sources import Row
from qwen3_client.cli.terminal import say

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


def _as_it_is(part: Path) -> Path:
    return part


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

    def complete(self, completed: Callable[[Path], Path] = _as_it_is) -> None:
        """All rows are there; `completed` makes the file of the part."""
        if sys.platform == "win32":
            self._part.close()  # no open file is renamed there
        made = completed(_part_file(self._path))
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(_whole_file(self._path))
        _finish(self._path)


@contextmanager
def unfinished_file(
    path: Path, settings: Mapping[str, Any], *, overwrite: bool, restart: bool
) -> Iterator[UnfinishedFile]:
    """Begun anew, or gone on with. `settings` are the options that make the rows what they are, by name.

    Raises CannotGoOnError where it was begun with others, BadParameter where `path` is there and not to be replaced,
    and Exit where an earlier run had all rows and was killed in its last steps, which are done now.
    """
    path = _regular(path)
    with _locked_part(path) as part:
        state = _begun(path, settings, restart=restart)
        if state.num_rows and not os.fstat(part.fileno()).st_size and _is_whole(path):
            _finish(path)
            say(f"{path} is complete: the run before was killed in its last step")
            raise typer.Exit
        if path.exists() and not overwrite:
            raise typer.BadParameter(f"{path} is there already: --overwrite replaces it")
        if not state.num_rows:
            _forget(path)
        _cut(part, state.num_bytes)
        unfinished = UnfinishedFile(path, part, state)
        try:
            yield unfinished
        except (Exception, KeyboardInterrupt) as error:
            _say_how_far(unfinished, error)
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


def _whole_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.whole")


def _regular(path: Path) -> Path:
    """Where a link leads, so that it stays one. Raises BadParameter for devices, pipes and folders."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"{path} is no regular file")
    return path


@contextmanager
def _locked_part(path: Path) -> Iterator[BinaryIO]:
    """The part, made if need be. One that there is no state of is of no use, and not left behind."""
    file = _part_file(path)
    with file.open("ab") as part:
        _lock(part, file)
        try:
            yield part
        finally:
            if sys.platform == "win32":
                part.close()  # no open file is removed there
            if not _state_file(path).exists() and _is_at(part, file):
                file.unlink(missing_ok=True)


def _begun(path: Path, settings: Mapping[str, Any], *, restart: bool) -> State:
    """What an earlier run has left, or a state without rows."""
    state = None if restart else State.read(_state_file(path))
    if state is None:
        return State(settings=settings)
    _check_settings(state.settings, settings)
    return state


def _check_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = [f"{name} {old.get(name)!r}, now {new.get(name)!r}" for name in new if old.get(name) != new.get(name)]
    if changed:
        raise CannotGoOnError(f"the file was begun with {'; '.join(changed)}: give the same options, or {RESTART}")


def _forget(path: Path) -> None:
    """What an earlier run has told of itself."""
    _whole_file(path).unlink(missing_ok=True)
    _state_file(path).unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    """Of a file whose rows are told by a state, and not in a part."""
    return _whole_file(path).exists() or path.exists()


def _finish(path: Path) -> None:
    """What is left to do once all rows are in one file. Two runs may do it at once."""
    _part_file(path).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        _whole_file(path).replace(path)
    _state_file(path).unlink(missing_ok=True)


def _lock(part: BinaryIO, file: Path) -> None:
    """For as long as it is open. Raises CannotGoOnError where another run has it; on Windows nobody asks."""
    if sys.platform == "win32":
        return
    with suppress(BlockingIOError):
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(part, file):  # not so where another run has just come to its end
            return
    raise CannotGoOnError(f"{file} is being written by another run")


def _is_at(part: BinaryIO, file: Path) -> bool:
    """Whether the open part is the file of that name still."""
    try:
        return part.closed or os.path.samestat(os.fstat(part.fileno()), file.stat())
    except FileNotFoundError:
        return False


def _cut(part: BinaryIO, num_bytes: int) -> None:
    if os.fstat(part.fileno()).st_size < num_bytes:
        raise CannotGoOnError(f"{part.name} is shorter than it was: {RESTART}")
    part.truncate(num_bytes)


def _say_how_far(unfinished: UnfinishedFile, error: BaseException) -> None:
    """Tell that the next run goes on."""
    if unfinished.num_rows and not isinstance(error, CannotGoOnError):
        say(f"{unfinished.num_rows} rows are done: run it again, and it goes on there")
