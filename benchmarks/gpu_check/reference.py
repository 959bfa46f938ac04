"""Qwen3 by its formulas, in float64, a text at a time: the oracle that is always there.

It shares no code with the engine.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.gpu_check.models import Weights, layer_to
from jobqueue.messages import TokenIds
from worker.model.config import Qwen3Config
from worker.model.weights import LayerWeights


@torch.inference_mode()
def reference(config: Qwen3Config, weights: Weights, sequences: Sequence[TokenIds]) -> Tensor:
    """Each sequence's last hidden state after the final norm: (sequences, hidden size) float64."""
    device = weights.embedding.device
    texts = [weights.embedding[torch.tensor(ids, device=device)].double() for ids in sequences]
    for layer in weights.layers:
        exact = layer_to(layer, torch.float64)
        texts = [_layer(config, exact, hidden) for hidden in texts]
    return _norm(torch.stack([hidden[-1] for hidden in texts]), weights.final_norm.double(), config.rms_norm_eps)


def _layer(config: Qwen3Config, layer: LayerWeights, hidden: Tensor) -> Tensor:
    hidden = hidden + _attention(config, layer, _norm(hidden, layer.input_norm, config.rms_norm_eps)) @ layer.output.T
    gate, up = (_norm(hidden, layer.mlp_norm, config.rms_norm_eps) @ layer.gate_up.T).chunk(2, dim=1)
    return hidden + (gate * torch.sigmoid(gate) * up) @ layer.down.T


def _attention(config: Qwen3Config, layer: LayerWeights, normed: Tensor) -> Tensor:
    heads = (normed @ layer.qkv.T).unflatten(1, (-1, config.head_dim)).transpose(0, 1)  # (heads, tokens, head_dim)
    sizes = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    q, k, v = heads.split(sizes)
    q = _rotate(config, _norm(q, layer.q_norm, config.rms_norm_eps))
    k = _rotate(config, _norm(k, layer.k_norm, config.rms_norm_eps))
    return attend(q, k, v, torch.arange(q.shape[1], device=q.device)).transpose(0, 1).flatten(1)


def attend(q: Tensor, k: Tensor, v: Tensor, places: Tensor) -> Tensor:
    """Softmax attention of the queries (heads, queries, head_dim) at `places` over the keys up to their own place."""
    groups = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    scores = q @ k.transpose(1, 2) / q.shape[2] ** 0.5
    unseen = torch.arange(k.shape[1], device=k.device) > places[:, None]
    attended: Tensor = scores.masked_fill(unseen, -torch.inf).softmax(-1) @ v
    return attended


def _norm(values: Tensor, weight: Tensor, eps: float) -> Tensor:
    return values / (values.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def _rotate(config: Qwen3Config, heads: Tensor) -> Tensor:
    """RoPE: pairs (i, i + head_dim / 2) turned by position * theta ** (-2 i / head_dim)."""
    half = config.head_dim // 2
    frequencies = config.rope_theta ** -(torch.arange(half, device=heads.device).double() / half)
    angles = torch.arange(heads.shape[1], device=heads.device).double()[:, None] * frequencies
    first, second = heads.split(half, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
