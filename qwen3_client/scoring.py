"""Scores of vectors as they came over the wire, each of `a` with each of `b`: (n_a, n_b).

dot and cosine take float32, float16 and int8, hamming takes binary. Higher is nearer for the first two, lower for the
third. Both sides must come from the same model and have the same width; encodings may differ between float and int8.
"""

import numpy as np
from numpy.typing import NDArray

from qwen3_client.results import EmbedResult

_BITS = np.array([value.bit_count() for value in range(256)], dtype=np.uint8)


def dot(a: EmbedResult, b: EmbedResult) -> NDArray[np.float32]:
    """(n_a, n_b) float32 inner products, int8's scales included. Equal to cosine where vectors are normalised.

    Raises ValueError for binary vectors, and for those that cannot be compared.
    """
    _check_comparable(a, b)
    return a.as_float32() @ b.as_float32().T


def cosine(a: EmbedResult, b: EmbedResult) -> NDArray[np.float32]:
    """(n_a, n_b) float32 cosines, -1 to 1; normalises once more, since int8 and float16 have norms of nearly 1.

    Raises ValueError for binary vectors, and for those that cannot be compared.
    """
    _check_comparable(a, b)
    return normalised(a.as_float32()) @ normalised(b.as_float32()).T


def hamming(a: EmbedResult, b: EmbedResult) -> NDArray[np.int32]:
    """(n_a, n_b) int32 numbers of dimensions whose signs differ; 1 - 2 * hamming / dimensions is like a cosine.

    Raises ValueError for vectors that are not binary, and for those that cannot be compared.
    """
    _check_comparable(a, b)
    if not a.vectors.dtype == b.vectors.dtype == np.uint8:
        raise ValueError("hamming compares binary vectors: embed with encoding='binary'")
    # A row at a time, so that memory is that of b, not of both together.
    rows = [_BITS[b.vectors ^ vector].sum(axis=1, dtype=np.int32) for vector in a.vectors]
    return np.stack(rows) if rows else np.empty((0, len(b.vectors)), dtype=np.int32)


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each vector (..., d) at length 1; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    norms[norms == 0] = 1
    unit: NDArray[np.float32] = vectors / norms
    return unit


def _check_comparable(a: EmbedResult, b: EmbedResult) -> None:
    ours, theirs = ((each.model, each.model_revision, each.dimensions) for each in (a, b))
    if ours != theirs:
        raise ValueError(f"vectors of {ours} and of {theirs} (model, revision, dimensions) cannot be compared")
