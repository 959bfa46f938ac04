"""One transformer layer around its attention, as the forward pass calls it.

Letters in shapes: t tokens, h hidden size, n heads, m key-value heads, d head_dim.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn.functional import linear

from worker.model.config import Qwen3Config
from worker.model.operations import Operations
from worker.model.weights import LayerWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """RoPE's angles for some tokens: (t, d / 2) float32."""

    cos: Tensor
    sin: Tensor

    def __getitem__(self, rows: Tensor | slice) -> "Rotation":
        return Rotation(cos=self.cos[rows], sin=self.sin[rows])


class Block(Protocol):
    """A layer. `normed` is the residual stream after the layer's own first norm; queries and keys come out rotated."""

    @property
    def input_norm(self) -> Tensor: ...

    def heads(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (t, n, d), keys and values (t, m, d) of tokens (t, h)."""
        ...

    def queries(self, normed: Tensor, rotation: Rotation) -> Tensor: ...

    def keys_values(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]: ...

    def finish(self, hidden: Tensor, attended: Tensor, next_norm: Tensor) -> tuple[Tensor, Tensor]:
        """All that follows attention: the residual stream (t, h) after the layer, and its norm for the next one.

        `hidden` is the stream before the layer, and may be overwritten; `attended` is (t, n, d).
        """
        ...


class DenseBlock:
    """A layer on any device, with one product for all heads and one for gate and up."""

    def __init__(self, weights: LayerWeights, config: Qwen3Config, operations: Operations) -> None:
        self.input_norm = weights.input_norm
        self._weights = weights
        self._operations = operations
        self._eps = config.rms_norm_eps
        self._head_dim = config.head_dim
        self._num_heads, self._num_kv_heads = config.num_attention_heads, config.num_key_value_heads

    def heads(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        rows = self._split(linear(normed, self._weights.qkv))
        q, k, v = rows.split((self._num_heads, self._num_kv_heads, self._num_kv_heads), dim=1)
        return self._rotate(q, self._weights.q_norm, rotation), self._rotate(k, self._weights.k_norm, rotation), v

    def queries(self, normed: Tensor, rotation: Rotation) -> Tensor:
        query_weights = self._weights.qkv[: self._num_heads * self._head_dim]
        return self._rotate(self._split(linear(normed, query_weights)), self._weights.q_norm, rotation)

    def keys_values(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        key_value_weights = self._weights.qkv[self._num_heads * self._head_dim :]
        k, v = self._split(linear(normed, key_value_weights)).chunk(2, dim=1)
        return self._rotate(k, self._weights.k_norm, rotation), v

    def finish(self, hidden: Tensor, attended: Tensor, next_norm: Tensor) -> tuple[Tensor, Tensor]:
        add_norm = self._operations.add_norm
        delta = linear(attended.flatten(1), self._weights.output)
        hidden, normed = add_norm(hidden, delta, self._weights.mlp_norm, self._eps)
        delta = linear(self._operations.silu_mul(linear(normed, self._weights.gate_up)), self._weights.down)
        return add_norm(hidden, delta, next_norm, self._eps)

    def _split(self, rows: Tensor) -> Tensor:
        return rows.view(rows.shape[0], -1, self._head_dim)

    def _rotate(self, heads: Tensor, weight: Tensor, rotation: Rotation) -> Tensor:
        return self._operations.norm_rotate(heads, weight, rotation.cos, rotation.sin, self._eps)
