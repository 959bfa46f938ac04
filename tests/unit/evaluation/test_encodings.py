"""What is derived from float32 vectors is what a worker would have sent."""

import numpy as np
import pytest
import torch

from evaluation.errors import EvaluationError
from evaluation.service.encodings import derive, num_bytes, signs
from evaluation.sweeps.derived import check_same, decoded
from jobqueue.messages import VectorEncoding
from qwen3_client import EmbedResult
from worker.heads import embed_rows

NATIVE = 96
HIDDEN = np.random.default_rng(0).standard_normal((50, NATIVE)).astype(np.float32)
DTYPES = {"float32": "<f4", "float16": "<f2", "int8": "i1", "binary": "u1"}


def served(dimensions: int, encoding: str) -> EmbedResult:
    """The worker's own bytes, as the client reads them."""
    rows = embed_rows(torch.from_numpy(HIDDEN), dimensions, normalize=True, encoding=VectorEncoding[encoding.upper()])
    return EmbedResult(
        vectors=np.frombuffer(rows.rows, DTYPES[encoding]).reshape(len(HIDDEN), -1),
        scales=np.frombuffer(rows.scales, "<f4") if rows.scales else None,
        dimensions=dimensions,
        token_counts=(1,) * len(HIDDEN),
        truncated=(False,) * len(HIDDEN),
        model="m",
        model_revision="r",
    )


@pytest.mark.parametrize("encoding", DTYPES)
@pytest.mark.parametrize("dimensions", [NATIVE, 33, 32])
def test_derived_vectors_are_those_of_the_worker(encoding, dimensions):
    full = served(NATIVE, "float32").as_float32()
    derived = derive(full, dimensions, encoding)
    expected = decoded(served(dimensions, encoding))
    assert derived.dtype == expected.dtype == np.float32
    step = {"int8": 1.01 / 127, "float16": 1e-3}.get(encoding, 1e-6)  # a value on the edge may be rounded either way
    np.testing.assert_allclose(derived, expected, atol=step)
    assert np.mean(np.abs(derived - expected) > 1e-6) < 0.002
    check_same(derived, expected, "it")


@pytest.mark.parametrize("dimensions", [NATIVE, 33])
def test_a_vector_takes_the_bytes_that_come_over_the_wire(dimensions):
    for encoding in DTYPES:
        result = served(dimensions, encoding)
        scales = 0 if result.scales is None else result.scales.nbytes
        assert (result.vectors.nbytes + scales) / len(HIDDEN) == num_bytes(dimensions, encoding)


def test_the_cosine_of_signs_counts_those_that_differ():
    bits = np.array([[0b1010_0000], [0b0110_0000]], dtype=np.uint8)
    first, second = signs(bits, 4)
    assert first.tolist() == [1, -1, 1, -1]
    assert first @ second / 4 == 1 - 2 * 2 / 4


def test_a_vector_of_zeros_stays_one():
    for encoding in ("float32", "float16", "int8"):
        assert not derive(np.zeros((1, 8), dtype=np.float32), 4, encoding).any()


def test_other_vectors_than_the_services_end_the_sweep():
    full = served(NATIVE, "float32").as_float32()
    bits = decoded(served(NATIVE, "binary"))
    with pytest.raises(EvaluationError, match="vectors in binary of 96 values are not those that its float32"):
        check_same(derive(full, NATIVE, "binary"), bits[:, ::-1], "binary of 96 values")
    with pytest.raises(EvaluationError, match="cosine nan"):
        check_same(full * np.nan, full, "float32 of 96 values")
