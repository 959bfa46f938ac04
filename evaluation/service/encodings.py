"""What an encoding keeps of a vector, and how much room it takes."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from qwen3_client.options import Encoding

_INT8_LARGEST = np.float32(127)
_SCALE_BYTES = 4


def derive(full: NDArray[np.float32], dimensions: int, encoding: Encoding) -> NDArray[np.float32]:
    """(n, dimensions) float32, what the service would send of (n, native) float32 vectors of length 1.

    Cut to the first values, normalised, encoded and decoded again: int8 as what it stands for, binary as -1 and 1.
    """
    cut = full[:, :dimensions]
    norms: NDArray[np.float32] = np.linalg.norm(cut, axis=1, keepdims=True)
    norms[norms == 0] = 1
    return _KEPT[encoding](cut / norms)


def signs(bits: NDArray[np.uint8], dimensions: int) -> NDArray[np.float32]:
    """(n, dimensions) float32 of -1 and 1, whose cosines are 1 - 2 * hamming / dimensions, of binary vectors."""
    return np.unpackbits(bits, axis=1, count=dimensions).astype(np.float32) * 2 - 1


def num_bytes(dimensions: int, encoding: Encoding) -> int:
    """Of one vector, int8's scale included."""
    return -(-dimensions * _VALUE_BITS[encoding] // 8) + (_SCALE_BYTES if encoding == "int8" else 0)


def _float32(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors


def _float16(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors.astype(np.float16).astype(np.float32)


def _int8(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    scales = np.abs(vectors).max(axis=1, keepdims=True) / _INT8_LARGEST
    steps: NDArray[np.float32] = np.rint(vectors / np.where(scales == 0, 1, scales)) * scales
    return steps


def _binary(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(vectors > 0, np.float32(1), np.float32(-1))


_KEPT: Mapping[Encoding, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "float32": _float32,
    "float16": _float16,
    "int8": _int8,
    "binary": _binary,
}
_VALUE_BITS: Mapping[Encoding, int] = {"float32": 32, "float16": 16, "int8": 8, "binary": 1}
