"""Parquet, in and out. Needs pyarrow, the extra `parquet`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.parquet import ParquetFile, ParquetWriter

from qwen3_client.cli.endings import InputRefusedError
from qwen3_client.cli.sources import Row, Source, no_such
from qwen3_client.results import EmbedResult

READ_ROWS = 256  # texts may be long
GROUP_ROWS = 4096  # of the file that is written; 64 MiB of the widest vectors


@contextmanager
def open_column(file: Path, column: str) -> Iterator[Source[object]]:
    """The values of a column. Raises InputRefusedError where the file is no Parquet, or has no such column."""
    try:
        opened = ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise InputRefusedError(f"{file} is not Parquet: {error}") from error
    with opened:
        if column not in opened.schema_arrow.names:
            raise InputRefusedError(f"{file} {no_such('column', column, opened.schema_arrow.names)}")
        yield Source(rows=_rows(opened, column), size=opened.metadata.num_rows)


def _rows(file: ParquetFile, column: str) -> Iterator[Row[object]]:
    batches = file.iter_batches(batch_size=READ_ROWS, columns=[column])
    for index, value in enumerate(value for batch in batches for value in batch.column(0).to_pylist()):
        yield Row(index=index, place=f"row {index + 1}", value=value, end=index + 1)


class ParquetVectors:
    """Columns `index`, `embedding` (lists of the vectors' width), for int8 `scale`, and `truncated`.

    Parquet's own contents stand at its end, so it cannot be continued after a kill: rows are collected as an Arrow
    stream, of which the file is made, group by group, once all are there. Model and revision stand in its metadata.
    """

    def head(self, result: EmbedResult) -> bytes:
        metadata = {"model": result.model, "model_revision": result.model_revision}
        return bytes(_batch([], result).schema.with_metadata(metadata).serialize())

    def rows(self, indexes: Sequence[int], result: EmbedResult) -> bytes:
        return bytes(_batch(indexes, result).serialize())

    def completed(self, part: Path) -> Path:
        made = part.with_name(f"{part.name}.parquet")
        with (
            pa.OSFile(str(part)) as file,
            pa.ipc.open_stream(file) as batches,
            ParquetWriter(made, batches.schema, use_dictionary=False) as out,
        ):
            for group in _groups(batches):
                out.write_table(group)
        return made


def _batch(indexes: Sequence[int], result: EmbedResult) -> Any:
    num_rows, width = len(indexes), result.vectors.shape[1]
    values = pa.array(result.vectors[:num_rows].reshape(-1))
    columns = {"index": pa.array(indexes, pa.int64()), "embedding": pa.FixedSizeListArray.from_arrays(values, width)}
    if result.scales is not None:
        columns["scale"] = pa.array(result.scales[:num_rows])
    columns["truncated"] = pa.array(result.truncated[:num_rows], pa.bool_())
    return pa.RecordBatch.from_pydict(columns)


def _groups(batches: Any) -> Iterator[Any]:
    """Tables of at least GROUP_ROWS rows, but for the last."""
    held: list[Any] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= GROUP_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)
