"""A layer for the CPU: weights in oneDNN's own layout, elementwise work fused into the products, tokens in tiles.

The layout spares oneDNN a copy of the weights in every product, and brings its float32 kernels where plain products
would go to BLAS. A tile of tokens passes through all of a layer's work at once, so that what lies between two products
stays in the cache; whole batches would write it to memory and fault in fresh pages every time. The operators are those
that torch.compile's CPU back-end emits for frozen weights.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from worker.model.block import Rotation
from worker.model.config import Qwen3Config
from worker.model.operations import TORCH, norm
from worker.model.weights import LayerWeights

TILE_TOKENS = 512  # measured: 256 to 1024 are within 3 %


class OnednnBlock:
    """A layer in float32 or bfloat16."""

    def __init__(self, weights: LayerWeights, config: Qwen3Config) -> None:
        self.input_norm = weights.input_norm
        self._q_norm, self._k_norm, self._mlp_norm = weights.q_norm, weights.k_norm, weights.mlp_norm
        num_query_rows = config.num_attention_heads * config.head_dim
        num_key_rows = config.num_key_value_heads * config.head_dim
        query, key, value = weights.qkv.split((num_query_rows, num_key_rows, num_key_rows))
        gate, up = weights.gate_up.chunk(2)
        self._query, self._key, self._value = _packed(query), _packed(key), _packed(value)
        self._output, self._gate, self._up, self._down = map(_packed, (weights.output, gate, up, weights.down))
        self._eps = config.rms_norm_eps
        self._head_dim = config.head_dim

    def heads(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        return self.queries(normed, rotation), *self.keys_values(normed, rotation)

    def queries(self, normed: Tensor, rotation: Rotation) -> Tensor:
        return self._rotated(normed, self._query, self._q_norm, rotation)

    def keys_values(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        values = torch.empty((normed.shape[0], self._value.shape[0]), dtype=normed.dtype)
        for rows in _tiles(normed):
            values[rows] = _product(_filled(normed[rows]), self._value)[: rows.stop - rows.start]
        return self._rotated(normed, self._key, self._k_norm, rotation), self._split(values)

    def finish(self, hidden: Tensor, attended: Tensor, next_norm: Tensor) -> tuple[Tensor, Tensor]:
        attended, normed = attended.flatten(1), torch.empty_like(hidden)
        for rows in _tiles(hidden):
            stream = _product_plus(_filled(attended[rows]), self._output, _filled(hidden[rows]))
            activated = self._activated(norm(stream, self._mlp_norm, self._eps))
            stream = _product_plus(activated, self._down, stream)[: rows.stop - rows.start]
            hidden[rows] = stream
            normed[rows] = norm(stream, next_norm, self._eps)
        return hidden, normed

    def _rotated(self, normed: Tensor, weight: Tensor, gain: Tensor, rotation: Rotation) -> Tensor:
        rotated = torch.empty((normed.shape[0], weight.shape[0]), dtype=normed.dtype)
        for rows in _tiles(normed):
            heads = self._split(_product(_filled(normed[rows]), weight)[: rows.stop - rows.start])
            angles = rotation[rows]
            rotated[rows] = TORCH.norm_rotate(heads, gain, angles.cos, angles.sin, self._eps).flatten(1)
        return self._split(rotated)

    def _activated(self, normed: Tensor) -> Tensor:
        """silu(gate) * up, both applied while their products are in registers."""
        gate = torch.ops.mkldnn._linear_pointwise(normed, self._gate, None, "swish", [], "")
        activated: Tensor = torch.ops.mkldnn._linear_pointwise.binary(normed, gate, self._up, None, "mul")
        return activated

    def _split(self, rows: Tensor) -> Tensor:
        return rows.view(rows.shape[0], -1, self._head_dim)


def _tiles(rows: Tensor) -> Iterator[slice]:
    num = rows.shape[0]
    return (slice(begin, min(begin + TILE_TOKENS, num)) for begin in range(0, num, TILE_TOKENS))


def _filled(tile: Tensor) -> Tensor:
    """The tile with rows of zeros, to one of 28 lengths.

    oneDNN compiles code for every length it meets, half a millisecond and half a megabyte a piece, and keeps 1,024.
    """
    num = tile.shape[0]
    step = 8 if num <= 128 else 32
    return pad(tile, (0, 0, 0, -num % step)) if num % step else tile


def _packed(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), TILE_TOKENS)
    return packed


def _product(rows: Tensor, packed: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")
    return product


def _product_plus(rows: Tensor, packed: Tensor, other: Tensor) -> Tensor:
    total: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, other, packed, None, "add")
    return total
