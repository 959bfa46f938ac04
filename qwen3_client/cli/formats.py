"""What vectors become: bytes that are appended one after the other, and what makes a file of them in the end."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import typer

from qwen3_client.cli.extras import parquet
from qwen3_client.results import EmbedResult

OutputFormat = Literal["jsonl", "npy", "parquet"]
_FORMATS: dict[str, OutputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".npy": "npy",
    ".parquet": "parquet",
}


class VectorFormat(Protocol):
    """How vectors are written. `indexes` are the places of their texts in the input."""

    def head(self, result: EmbedResult) -> bytes:
        """What stands before the first row, of which `result` is."""

    def rows(self, indexes: Sequence[int], result: EmbedResult) -> bytes:
        """One row a vector."""

    def completed(self, part: Path) -> Path:
        """The complete file, made of `part`, which has a head and all rows: `part` itself, or one beside it."""


def format_of(output: Path | None, output_format: OutputFormat | None) -> OutputFormat:
    """The format that was asked for, or that the name of the output tells. Raises BadParameter where none is."""
    if output is None:
        found = output_format or "jsonl"
        if found != "jsonl":
            raise typer.BadParameter(f"--format {found} needs --output")
        return found
    if output_format is None and output.suffix.lower() not in _FORMATS:
        raise typer.BadParameter(f"{output}: no known ending, so give --format")
    return output_format or _FORMATS[output.suffix.lower()]


def vector_format(name: OutputFormat) -> VectorFormat:
    """Raises BadParameter where pyarrow is needed and missing."""
    if name == "parquet":
        found: VectorFormat = parquet().ParquetVectors()
        return found
    return JsonVectors() if name == "jsonl" else NumpyVectors()


def json_line(row: dict[str, Any]) -> str:
    """One line of JSONL."""
    return json.dumps(row, ensure_ascii=False) + "\n"


class JsonVectors:
    """JSONL: `index`, `embedding` (for int8 and binary integers), for int8 `scale`, and `truncated`."""

    def head(self, result: EmbedResult) -> bytes:
        del result
        return b""

    def rows(self, indexes: Sequence[int], result: EmbedResult) -> bytes:
        scales = (
            [{}] * len(indexes) if result.scales is None else [{"scale": scale} for scale in result.scales.tolist()]
        )
        rows = zip(indexes, result.vectors, scales, result.truncated, strict=True)
        return "".join(
            json_line({"index": index, "embedding": vector.tolist(), **scale, "truncated": truncated})
            for index, vector, scale, truncated in rows
        ).encode()

    def completed(self, part: Path) -> Path:
        return part


class NumpyVectors:
    """.npy: an array (n, values); for int8 (n,) of records `scale` and `vector`, since one is no use without the other.

    The number of rows stands in the head, for which numpy leaves room; it is 0 until the file is complete.
    """

    def head(self, result: EmbedResult) -> bytes:
        values = result.vectors
        if result.scales is None:
            return _numpy_head((0, values.shape[1]), values.dtype)
        return _numpy_head((0,), np.dtype([("scale", "<f4"), ("vector", "i1", values.shape[1:])]))

    def rows(self, indexes: Sequence[int], result: EmbedResult) -> bytes:
        del indexes
        if result.scales is None:
            return result.vectors.tobytes()
        return b"".join(
            scale.tobytes() + vector.tobytes() for scale, vector in zip(result.scales, result.vectors, strict=True)
        )

    def completed(self, part: Path) -> Path:
        with part.open("r+b") as file:
            np.lib.format.read_magic(file)
            (_, *shape), _, dtype = np.lib.format.read_array_header_1_0(file)
            row_bytes = int(np.prod(shape, dtype=int)) * dtype.itemsize
            num_rows = (part.stat().st_size - file.tell()) // row_bytes
            file.seek(0)
            file.write(_numpy_head((num_rows, *shape), dtype))
        return part


def _numpy_head(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    buffer = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()
