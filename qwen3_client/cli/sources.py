"""Where rows come from: arguments, or a file or standard input as lines of text, JSONL, CSV or Parquet.

Files are read as they are needed, so that memory does not grow with them. UTF-8, with or without a byte order mark.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar

import typer

from qwen3_client.cli.endings import InputRefusedError
from qwen3_client.cli.extras import parquet

InputFormat = Literal["text", "jsonl", "csv", "parquet"]
STDIN = Path("-")
MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_NAMES = 20  # of fields or columns that are told
_FORMATS: dict[str, InputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_Value = TypeVar("_Value")
_Value_co = TypeVar("_Value_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Generic[_Value_co]):
    """One row: `index` counts rows from 0, `place` is where a user finds it, `end` how much of the source is read."""

    index: int
    place: str
    value: _Value_co
    end: int

    def with_value(self, value: _Value) -> "Row[_Value]":
        """The same row, where something else was read out of it."""
        return Row(index=self.index, place=self.place, value=value, end=self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Generic[_Value_co]):
    """Rows, and the last one's `end`, in rows or bytes; None where it is not known beforehand."""

    rows: Iterator[Row[_Value_co]]
    size: int | None


def existing(file: Path | None) -> Path | None:
    """Raises BadParameter where there is no such file. Typer's own check takes - for one that is missing."""
    if file is not None and file != STDIN and not file.exists():
        raise typer.BadParameter(f"{file} is not there")
    return file


@contextmanager
def open_texts(
    arguments: Sequence[str] | None,
    file: Path | None,
    *,
    input_format: InputFormat | None,
    field: str,
    skip_empty: bool,
) -> Iterator[Source[str]]:
    """The texts of a command. Iterating raises InputRefusedError at a row that has none."""
    if arguments and file:
        raise typer.BadParameter("give texts or --file, not both")
    if arguments:
        yield Source(rows=texts(_arguments(arguments), skip_empty=skip_empty), size=len(arguments))
        return
    file = file or STDIN
    with open_rows(file, input_format or _FORMATS.get(file.suffix.lower(), "text"), field) as source:
        yield Source(rows=texts(source.rows, skip_empty=skip_empty), size=source.size)


@contextmanager
def open_rows(file: Path, input_format: InputFormat, field: str) -> Iterator[Source[object]]:
    """The values of a field or column, whatever they are; of lines of text, the lines."""
    if input_format == "parquet":
        if file == STDIN:
            raise typer.BadParameter("Parquet is read from its end: give a file, not standard input")
        with parquet().open_column(file, field) as source:
            yield source
        return
    with open_lines(file) as lines:
        readers = {"text": _line_texts, "jsonl": _json_fields, "csv": _csv_column}
        yield Source(rows=readers[input_format](lines.rows, field), size=lines.size)


@contextmanager
def open_lines(file: Path) -> Iterator[Source[str]]:
    """Lines with their ends."""
    if file == STDIN:
        if sys.stdin is None:  # a shell's <&-
            raise InputRefusedError("standard input is closed")
        yield Source(rows=_lines(sys.stdin.buffer), size=None)
        return
    with file.open("rb") as opened:
        yield Source(rows=_lines(opened), size=file.stat().st_size if file.is_file() else None)


def texts(rows: Iterable[Row[object]], *, skip_empty: bool) -> Iterator[Row[str]]:
    """Rows that are texts. Raises InputRefusedError at one that is none."""
    for row in rows:
        text = checked_text(row)
        if text.strip():
            yield row.with_value(text)
        elif not skip_empty:
            raise InputRefusedError(f"{row.place} has no text; --skip-empty leaves such rows out")


def checked_text(row: Row[Any]) -> str:
    """The value of a row; nothing at all is an empty text. Raises InputRefusedError where it is no text."""
    if row.value is None:
        return ""
    if not isinstance(row.value, str):
        raise InputRefusedError(f"{row.place} has no text but {row.value!r:.40}")
    try:
        row.value.encode()
    except UnicodeEncodeError:
        raise InputRefusedError(f"{row.place} has half a character, a lone surrogate") from None
    return row.value


def json_object(line: Row[str]) -> dict[str, Any]:
    """The object of a line of JSONL. Raises InputRefusedError."""
    try:
        found = json.loads(line.value.rstrip())
    except json.JSONDecodeError as error:
        raise InputRefusedError(f"{line.place} is not JSON: {error.msg} at character {error.pos + 1}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise InputRefusedError(f"{line.place} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputRefusedError(f"{line.place} is not a JSON object")
    return found


def places_in(rows: Sequence[Row[Any]]) -> Callable[[int], str]:
    """Where the user finds the row of each number."""
    return lambda number: rows[number].place


def no_such(what: str, name: str, names: Iterable[str]) -> str:
    """What is said of a field or column that is not there."""
    found = list(names)
    more = f" and {len(found) - MAX_NAMES} more" if len(found) > MAX_NAMES else ""
    return f"has no {what} {name!r}; there are {', '.join(found[:MAX_NAMES]) or 'none'}{more}"


def _arguments(arguments: Sequence[str]) -> Iterator[Row[str]]:
    for index, text in enumerate(arguments):
        yield Row(index=index, place=f"text {index + 1}", value=text, end=index + 1)


def _lines(file: BinaryIO) -> Iterator[Row[str]]:
    """Lines end at a line feed only: other line ends of Unicode may stand in a text."""
    end = 0
    for index in count():
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        end += len(line)
        place = f"line {index + 1}"
        if len(line) > MAX_LINE_BYTES:
            raise InputRefusedError(f"{place} is longer than {MAX_LINE_BYTES} bytes")
        yield Row(index=index, place=place, value=_decoded(line, index, place), end=end)


def _decoded(line: bytes, index: int, place: str) -> str:
    try:
        return (line if index else line.removeprefix(_BYTE_ORDER_MARK)).decode()
    except UnicodeDecodeError as error:
        raise InputRefusedError(f"{place} is not UTF-8: {error.reason} at byte {error.start + 1}") from error


def _line_texts(lines: Iterator[Row[str]], _field: str) -> Iterator[Row[str]]:
    for line in lines:
        yield line.with_value(line.value.removesuffix("\n").removesuffix("\r"))


def _json_fields(lines: Iterator[Row[str]], field: str) -> Iterator[Row[object]]:
    for line in lines:
        if not line.value.strip():
            yield line.with_value(None)
            continue
        found = json_object(line)
        if field not in found:
            raise InputRefusedError(f"{line.place} {no_such('field', field, found)}")
        yield line.with_value(found[field])


def _csv_column(lines: Iterator[Row[str]], column: str) -> Iterator[Row[object]]:
    """A row may be several lines; its place is the first one."""
    csv.field_size_limit(MAX_LINE_BYTES)
    end = 0

    def values() -> Iterator[str]:
        nonlocal end
        for line in lines:
            end = line.end
            yield line.value

    reader = csv.reader(values(), strict=True)
    header = _csv_row(reader) or []
    if column not in header:
        raise InputRefusedError(f"line 1 {no_such('column', column, header)}")
    position = header.index(column)
    for index in count():
        place = f"line {reader.line_num + 1}"
        cells = _csv_row(reader)
        if cells is None:
            return
        if 0 < len(cells) <= position:
            raise InputRefusedError(f"{place} has {len(cells)} columns, and {column!r} is column {position + 1}")
        yield Row(index=index, place=place, value=cells[position] if cells else None, end=end)


def _csv_row(reader: Any) -> list[str] | None:
    """The next row; None at the end."""
    place = f"line {reader.line_num + 1}"
    try:
        cells: list[str] | None = next(reader, None)
    except csv.Error as error:
        raise InputRefusedError(f"{place} is not CSV: {error}") from error
    return cells
