"""From pooled hidden states to the bytes of a result: vectors in their encoding, or yes/no scores.

All arithmetic is float32, whatever the model's dtype, and all bytes are little-endian.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize as l2_normalize

from jobqueue.messages import VectorEncoding

_INT8_LARGEST = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRows:
    """One row per sequence, as `Result` carries them.

    `rows` are the rows one behind the other, `scales` a float32 each for INT8 and else empty. `finite` says for
    each row whether every value of it is a number in the range of its encoding; other rows must not be sent.
    """

    rows: bytes
    scales: bytes
    finite: list[bool]


@torch.inference_mode()
def embed_rows(hidden: Tensor, dimensions: int, *, normalize: bool, encoding: VectorEncoding) -> EncodedRows:
    """Cut (n, hidden size) rows to their first `dimensions` values, L2-normalise if asked, and encode.

    The cut comes first: a slice of a normalised vector is not a unit vector.
    """
    vectors = hidden[:, :dimensions].float()
    if normalize:
        vectors = l2_normalize(vectors, dim=-1)
    return _ENCODERS[encoding](vectors.cpu().numpy())


@torch.inference_mode()
def score_rows(hidden: Tensor, yes_minus_no: Tensor) -> EncodedRows:
    """logit_yes - logit_no of (n, hidden size) rows, as float32.

    The weights' difference is float32 and so is the product: for a bfloat16 model this is finer than two
    bfloat16 logits, whose difference is rounded to 1/128 of their size.
    """
    return _encode_float32((hidden.float() @ yes_minus_no).unsqueeze(1).cpu().numpy())


def _encode_float32(vectors: NDArray[np.float32]) -> EncodedRows:
    return EncodedRows(rows=vectors.astype("<f4").tobytes(), scales=b"", finite=_finite(vectors))


def _encode_float16(vectors: NDArray[np.float32]) -> EncodedRows:
    """A value over 65504 becomes infinite here, so finiteness is asked of what is sent."""
    with np.errstate(over="ignore"):
        halves = vectors.astype("<f2")
    return EncodedRows(rows=halves.tobytes(), scales=b"", finite=_finite(halves))


def _encode_int8(vectors: NDArray[np.float32]) -> EncodedRows:
    """Symmetric per vector: value = int8 * scale. A zero vector has scale 0."""
    finite = _finite(vectors)
    vectors = np.nan_to_num(vectors)  # casting NaN to int8 is undefined; these rows are never sent
    scales = np.abs(vectors).max(axis=1, keepdims=True) / np.float32(_INT8_LARGEST)
    steps = np.divide(vectors, scales, out=np.zeros_like(vectors), where=scales > 0)
    rows = np.clip(np.rint(steps), -_INT8_LARGEST, _INT8_LARGEST).astype(np.int8)
    return EncodedRows(rows=rows.tobytes(), scales=scales.astype("<f4").tobytes(), finite=finite)


def _encode_binary(vectors: NDArray[np.float32]) -> EncodedRows:
    """One bit a value, set where it is above 0, most significant bit first, rows padded with 0 to whole bytes."""
    bits = np.packbits(vectors > 0, axis=1, bitorder="big")
    return EncodedRows(rows=bits.tobytes(), scales=b"", finite=_finite(vectors))


def _finite(vectors: NDArray[np.floating]) -> list[bool]:
    return [bool(row) for row in np.isfinite(vectors).all(axis=1)]


_ENCODERS: dict[VectorEncoding, Callable[[NDArray[np.float32]], EncodedRows]] = {
    VectorEncoding.FLOAT32: _encode_float32,
    VectorEncoding.FLOAT16: _encode_float16,
    VectorEncoding.INT8: _encode_int8,
    VectorEncoding.BINARY: _encode_binary,
    VectorEncoding.FLOAT_LIST: _encode_float32,
}
