"""The library's four similarities, of vectors as they are: higher is nearer, so distances are negative."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qwen3_client.scoring import normalised

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Vectors = NDArray[np.float32]


def checked_similarity(name: Any) -> Similarity:
    """A name, or the library's enum of them; raises ValueError for others."""
    word: Similarity = getattr(name, "value", name)
    if word not in get_args(Similarity):
        raise ValueError(f"similarity_fn_name must be one of {', '.join(get_args(Similarity))}, not {word!r}")
    return word


def similarity(name: Similarity, a: Vectors, b: Vectors) -> Vectors:
    """(n_a, n_b) float32, of each of `a` (n_a, d) with each of `b` (n_b, d); one vector (d,) is a list of one."""
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    if name == "cosine":
        a, b = normalised(a), normalised(b)
    if name in ("cosine", "dot"):
        return a @ b.T
    # A row at a time, so that memory is that of b, not of both together.
    return np.stack([pairwise_similarity(name, row, b) for row in a])


def pairwise_similarity(name: Similarity, a: Vectors, b: Vectors) -> Vectors:
    """(n,) float32, of `a` (n, d) with `b` (n, d), row by row; one vector (d,) goes with every row."""
    match name:
        case "cosine":
            scores = (normalised(a) * normalised(b)).sum(axis=-1)
        case "dot":
            scores = (a * b).sum(axis=-1)
        case "euclidean":
            scores = -np.linalg.norm(a - b, axis=-1)
        case "manhattan":
            scores = -np.abs(a - b).sum(axis=-1)
    return np.asarray(scores)
