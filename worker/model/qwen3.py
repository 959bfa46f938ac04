"""The packed Qwen3 forward pass: no padding, no mask tensors, and a last layer that runs for pooled rows only.

Letters in shapes: t tokens that are computed, n sequences (distinct ones until the last line), h hidden size.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import embedding

from worker.model.attention import Attention
from worker.model.block import Block, Rotation
from worker.model.config import Qwen3Config
from worker.model.operations import norm
from worker.model.weights import Qwen3Weights
from worker.packing import AttentionLayout, PackedBatch

RecordLayer: TypeAlias = Callable[[Tensor, Tensor], None]


def _record_nothing(_keys: Tensor, _values: Tensor) -> None:
    pass


class Qwen3:
    """A loaded model. Safe to call from one thread at a time."""

    def __init__(self, config: Qwen3Config, weights: Qwen3Weights[Block], attention: Attention) -> None:
        self.config = config
        self.weights = weights
        self._attention = attention
        self._inverse_frequencies = _inverse_frequencies(config, weights.embedding.device)

    @torch.inference_mode()
    def forward(self, batch: PackedBatch, record: RecordLayer = _record_nothing) -> Tensor:
        """Each sequence's last hidden state after the final norm: (n, h) in the model's dtype, in the order given.

        `record` is given each layer's keys and values, (key rows, kv_heads, head_dim) both, cached ones first.
        """
        rotation = self._rotation(batch.positions)
        hidden = embedding(batch.ids, self.weights.embedding)  # (t, h)
        normed = norm(hidden, self.weights.layers[0].input_norm, self.config.rms_norm_eps)
        for index, (block, following) in enumerate(pairwise(self.weights.layers)):
            q, *computed = block.heads(normed, rotation)
            k, v = _behind_cached(batch, index, *computed)
            record(k, v)
            hidden, normed = block.finish(hidden, self._attend(batch.every_token, q, k, v), following.input_norm)
        return self._pool(hidden, normed, rotation, batch, record)

    def _pool(
        self, hidden: Tensor, normed: Tensor, rotation: Rotation, batch: PackedBatch, record: RecordLayer
    ) -> Tensor:
        """The last layer: keys and values for all tokens, everything else for the last of each sequence."""
        block, rows = self.weights.layers[-1], batch.last_rows
        q = block.queries(normed[rows], rotation[rows])
        k, v = _behind_cached(batch, -1, *block.keys_values(normed, rotation))
        record(k, v)
        _, pooled = block.finish(hidden[rows], self._attend(batch.last_tokens, q, k, v), self.weights.final_norm)
        return pooled if batch.outputs is None else pooled[batch.outputs]

    def _attend(self, layout: AttentionLayout, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the layout's groups of queries over the keys that it gathers for them."""
        if layout.key_rows is not None:
            k, v = k[layout.key_rows], v[layout.key_rows]
        return self._attention(
            q, k, v, layout.cu_seqlens_q, layout.cu_seqlens_k, layout.max_seqlen_q, layout.max_seqlen_k
        )

    def _rotation(self, positions: Tensor) -> Rotation:
        angles = positions.float()[:, None] * self._inverse_frequencies
        return Rotation(cos=angles.cos(), sin=angles.sin())


def _behind_cached(batch: PackedBatch, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's keys and values of the cached segments, then those just computed."""
    if not batch.cached:
        return k, v
    keys, values = zip(*(segment.layer(layer) for segment in batch.cached), strict=True)
    return torch.cat((*keys, k)), torch.cat((*values, v))


def _inverse_frequencies(config: Qwen3Config, device: torch.device) -> Tensor:
    """(head_dim / 2,) float32: theta ** (-2i / head_dim)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    return 1.0 / torch.pow(config.rope_theta, exponents)
