"""The packed Qwen3 forward pass: no padding, no mask tensors, and a last layer that runs for pooled rows only.

Letters in shapes: t tokens that are computed, n sequences (distinct ones until the last line), h hidden size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, rms_norm, silu

from worker.model.attention import Attention
from worker.model.config import Qwen3Config
from worker.model.weights import LayerWeights, Qwen3Weights
from worker.packing import AttentionLayout, PackedBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rotation:
    """RoPE's angles for some tokens: (tokens, 1, head_dim / 2) float32."""

    cos: Tensor
    sin: Tensor

    def rows(self, index: Tensor) -> "_Rotation":
        return _Rotation(cos=self.cos[index], sin=self.sin[index])


class Qwen3:
    """A loaded model. Safe to call from one thread at a time."""

    def __init__(self, config: Qwen3Config, weights: Qwen3Weights, attention: Attention) -> None:
        self.config = config
        self.weights = weights
        self._attention = attention
        self._inverse_frequencies = _inverse_frequencies(config, weights.embedding.device)

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> Tensor:
        """Each sequence's last hidden state after the final norm: (n, h) in the model's dtype, in the order given."""
        rotation = self._rotation(batch.positions)
        hidden = embedding(batch.ids, self.weights.embedding)  # (t, h)
        for layer in self.weights.layers[:-1]:
            hidden = hidden + self._attend(layer, hidden, rotation, batch)
            hidden = hidden + self._mlp(layer, hidden)
        pooled = self._last_layer(self.weights.layers[-1], hidden, rotation, batch)
        pooled = self._norm(pooled, self.weights.final_norm)
        return pooled if batch.outputs is None else pooled[batch.outputs]

    def _attend(self, layer: LayerWeights, hidden: Tensor, rotation: _Rotation, batch: PackedBatch) -> Tensor:
        """Every token attends to those before it on its path: (t, h) -> (t, h)."""
        qkv = linear(self._norm(hidden, layer.input_norm), layer.qkv)
        q, k, v = self._heads(qkv).tensor_split(self._head_borders, dim=1)
        attended = self._attention_over(
            batch.every_token,
            self._norm_and_rotate(q, layer.q_norm, rotation),
            self._norm_and_rotate(k, layer.k_norm, rotation),
            v,
        )
        return linear(attended.flatten(1), layer.output)

    def _last_layer(self, layer: LayerWeights, hidden: Tensor, rotation: _Rotation, batch: PackedBatch) -> Tensor:
        """Keys and values for all tokens, everything else for the last of each sequence: (t, h) -> (n, h)."""
        normed = self._norm(hidden, layer.input_norm)
        query_weights, key_value_weights = layer.qkv.tensor_split(
            (self.config.num_attention_heads * self.config.head_dim,)
        )
        k, v = self._heads(linear(normed, key_value_weights)).chunk(2, dim=1)
        q = self._heads(linear(normed[batch.last_rows], query_weights))
        attended = self._attention_over(
            batch.last_tokens,
            self._norm_and_rotate(q, layer.q_norm, rotation.rows(batch.last_rows)),
            self._norm_and_rotate(k, layer.k_norm, rotation),
            v,
        )
        pooled = hidden[batch.last_rows] + linear(attended.flatten(1), layer.output)
        return pooled + self._mlp(layer, pooled)

    def _attention_over(self, layout: AttentionLayout, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of `q`'s groups over the keys that the layout gathers for them."""
        if layout.key_rows is not None:
            k, v = k[layout.key_rows], v[layout.key_rows]
        return self._attention(
            q, k, v, layout.cu_seqlens_q, layout.cu_seqlens_k, layout.max_seqlen_q, layout.max_seqlen_k
        )

    def _mlp(self, layer: LayerWeights, hidden: Tensor) -> Tensor:
        gate, up = linear(self._norm(hidden, layer.mlp_norm), layer.gate_up).chunk(2, dim=1)
        return linear(silu(gate) * up, layer.down)

    def _norm(self, values: Tensor, weight: Tensor) -> Tensor:
        """RMSNorm over the last dimension, computed in float32, in the dtype of `values`."""
        return rms_norm(values, weight.shape, weight, self.config.rms_norm_eps)

    def _norm_and_rotate(self, heads: Tensor, weight: Tensor, rotation: _Rotation) -> Tensor:
        """Per-head RMSNorm, then RoPE in float32: (tokens, heads, head_dim), dtype kept."""
        first, second = self._norm(heads, weight).float().chunk(2, dim=-1)
        rotated = torch.cat(
            (
                first * rotation.cos - second * rotation.sin,
                second * rotation.cos + first * rotation.sin,
            ),
            dim=-1,
        )
        return rotated.to(heads.dtype)

    def _rotation(self, positions: Tensor) -> _Rotation:
        angles = (positions.float()[:, None] * self._inverse_frequencies)[:, None, :]
        return _Rotation(cos=angles.cos(), sin=angles.sin())

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.view(rows.shape[0], -1, self.config.head_dim)

    @property
    def _head_borders(self) -> tuple[int, int]:
        """Where the keys begin, and the values, among the heads of `qkv`."""
        num_heads = self.config.num_attention_heads
        return num_heads, num_heads + self.config.num_key_value_heads


def _inverse_frequencies(config: Qwen3Config, device: torch.device) -> Tensor:
    """(head_dim / 2,) float32: theta ** (-2i / head_dim)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    return 1.0 / torch.pow(config.rope_theta, exponents)
