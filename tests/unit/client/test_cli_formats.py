"""What is written is what numpy, json and pyarrow read back."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from pyarrow import parquet

from qwen3_client.cli import parquet as parquet_format
from qwen3_client.cli.formats import format_of, vector_format
from qwen3_client.results import EmbedResult

RANDOM = np.random.default_rng(0)
VALUES = {
    "float32": RANDOM.standard_normal((70, 8)).astype("<f4"),
    "float16": RANDOM.standard_normal((70, 8)).astype("<f2"),
    "int8": RANDOM.integers(-127, 128, (70, 8), dtype=np.int8),
    "binary": RANDOM.integers(0, 256, (70, 1), dtype=np.uint8),
}
SCALES = RANDOM.random(70, dtype=np.float32)
INDEXES = list(range(3, 73))


def result(encoding, rows=slice(None)):
    vectors = VALUES[encoding][rows]
    return EmbedResult(
        vectors=vectors,
        scales=SCALES[rows] if encoding == "int8" else None,
        dimensions=8,
        token_counts=(1,) * len(vectors),
        truncated=tuple(place % 2 == 0 for place in range(70)[rows]),
        model="m",
        model_revision="r1",
    )


@pytest.fixture
def written(tmp_path):
    """A complete file of all vectors, appended in two parts."""

    def write(name, encoding) -> Path:
        vectors = vector_format(name)
        parts = [slice(0, 64), slice(64, 70)]
        part = tmp_path / f"v.{name}.part"
        appended = [vectors.rows(INDEXES[rows], result(encoding, rows)) for rows in parts]
        part.write_bytes(vectors.head(result(encoding)) + b"".join(appended))
        return vectors.completed(part)

    return write


@pytest.mark.parametrize("encoding", VALUES)
def test_jsonl_has_every_value(written, encoding):
    rows = [json.loads(line) for line in written("jsonl", encoding).read_text().splitlines()]
    found = np.array([row["embedding"] for row in rows], VALUES[encoding].dtype)
    assert np.array_equal(found, VALUES[encoding])
    assert [row["index"] for row in rows] == INDEXES
    assert [row["truncated"] for row in rows] == list(result(encoding).truncated)
    assert [row.get("scale") for row in rows] == (SCALES.tolist() if encoding == "int8" else [None] * 70)


@pytest.mark.parametrize("encoding", ["float32", "float16", "binary"])
def test_npy_is_an_array_that_can_be_mapped(written, encoding):
    found = np.load(written("npy", encoding), mmap_mode="r")
    assert found.dtype == VALUES[encoding].dtype
    assert np.array_equal(found, VALUES[encoding])


def test_npy_of_int8_has_scales_beside_vectors(written):
    found = np.load(written("npy", "int8"), mmap_mode="r")
    assert np.array_equal(found["vector"], VALUES["int8"])
    assert np.array_equal(found["scale"], SCALES)


def test_npy_can_be_completed_again(written):
    path = written("npy", "float32")
    before = path.read_bytes()
    assert vector_format("npy").completed(path).read_bytes() == before


@pytest.mark.parametrize("encoding", VALUES)
def test_parquet_has_every_value_and_the_model(written, encoding, monkeypatch):
    monkeypatch.setattr(parquet_format, "GROUP_ROWS", 64)
    path = written("parquet", encoding)
    table = parquet.read_table(path)
    found = table["embedding"].combine_chunks().flatten().to_numpy().reshape(70, -1)
    assert found.dtype == VALUES[encoding].dtype
    assert np.array_equal(found, VALUES[encoding])
    assert table["index"].to_pylist() == INDEXES
    assert table["truncated"].to_pylist() == list(result(encoding).truncated)
    assert ("scale" in table.column_names) == (encoding == "int8")
    if encoding == "int8":
        assert np.array_equal(table["scale"].to_numpy(), SCALES)
    assert table.schema.metadata == {b"model": b"m", b"model_revision": b"r1"}
    assert parquet.ParquetFile(path).num_row_groups == 2


def test_the_format_is_that_of_the_name_unless_one_is_given():
    assert format_of(None, None) == "jsonl"
    assert format_of(Path("a.b.NPY"), None) == "npy"
    assert format_of(Path("a.ndjson"), None) == "jsonl"
    assert format_of(Path("a.parquet"), "npy") == "npy"
    with pytest.raises(typer.BadParameter, match="give --format"):
        format_of(Path("vectors"), None)
    with pytest.raises(typer.BadParameter, match="--format npy needs --output"):
        format_of(None, "npy")
