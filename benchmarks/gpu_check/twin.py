"""transformers' own model over the same weights, padded as its users run it: an oracle, and a measure of speed."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu_check.models import Weights
from jobqueue.messages import TokenIds
from worker.model.config import Qwen3Config
from worker.model.weights import LayerWeights

BATCH_TEXTS = 32  # sentence-transformers' default


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedBatch:
    """A batch, each sequence at its row's right end: (batch, longest) int64; `mask` is 1 where there is a token."""

    ids: Tensor
    mask: Tensor


class Twin:
    """`Qwen3Model` with PyTorch's SDPA. Its parameters are the given tensors themselves: they take no more memory."""

    def __init__(self, config: Qwen3Config, weights: Weights) -> None:
        self._model = _model(config, weights)
        self._device = weights.embedding.device

    @torch.inference_mode()
    def embed(self, sequences: Sequence[TokenIds]) -> Tensor:
        """The last hidden states in the order given, (sequences, hidden size)."""
        order = _by_length(sequences)
        rows = self.forward(self.pad(sequences))
        return rows[torch.tensor(np.argsort(order), device=rows.device)]

    def pad(self, sequences: Sequence[TokenIds]) -> list[PaddedBatch]:
        """Batches of `BATCH_TEXTS`, the longest sequences first, as sentence-transformers makes them."""
        ordered = [sequences[index] for index in _by_length(sequences)]
        return [
            _pad_left(ordered[begin : begin + BATCH_TEXTS], self._device)
            for begin in range(0, len(ordered), BATCH_TEXTS)
        ]

    @torch.inference_mode()
    def forward(self, batches: Sequence[PaddedBatch]) -> Tensor:
        """The last hidden states, the longest sequences first."""
        return torch.cat([self._forward(batch) for batch in batches])

    def _forward(self, batch: PaddedBatch) -> Tensor:
        out = self._model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
        last: Tensor = out.last_hidden_state[:, -1]
        return last


def why_no_twin(config: Qwen3Config, weights: Weights) -> str | None:
    """Why transformers cannot be compared with here, tried on this model; None where it can."""
    try:
        Twin(config, weights).embed([array("i", [1, 2]), array("i", [3])])
    except Exception as error:  # noqa: BLE001 - not installed, or of a version that fails in its own way
        return f"{type(error).__name__}: {error}"
    return None


def _model(config: Qwen3Config, weights: Weights) -> nn.Module:
    from transformers import AutoModel  # noqa: PLC0415 - optional, and slow to import
    from transformers import Qwen3Config as TheirConfig  # noqa: PLC0415 - likewise

    theirs = TheirConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        max_position_embeddings=config.max_position_embeddings,
    )
    auto: Any = AutoModel  # partly without types
    with torch.device("meta"):
        model = auto.from_config(theirs, attn_implementation="sdpa")
    model.load_state_dict(dict(_named(config, weights)), assign=True)
    model.rotary_emb = type(model.rotary_emb)(config=theirs).to(weights.embedding.device)  # its angles are no weights
    module: nn.Module = model.eval().requires_grad_(requires_grad=False)
    return module


def _named(config: Qwen3Config, weights: Weights) -> Iterator[tuple[str, Tensor]]:
    yield "embed_tokens.weight", weights.embedding
    yield "norm.weight", weights.final_norm
    for index, layer in enumerate(weights.layers):
        for name, tensor in _named_of_layer(config, layer):
            yield f"layers.{index}.{name}.weight", tensor


def _named_of_layer(config: Qwen3Config, layer: LayerWeights) -> Iterator[tuple[str, Tensor]]:
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    qkv = layer.qkv.split((queries, keys, keys))
    yield from zip(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), qkv, strict=True)
    yield from zip(("mlp.gate_proj", "mlp.up_proj"), layer.gate_up.chunk(2), strict=True)
    yield "self_attn.o_proj", layer.output
    yield "self_attn.q_norm", layer.q_norm
    yield "self_attn.k_norm", layer.k_norm
    yield "mlp.down_proj", layer.down
    yield "input_layernorm", layer.input_norm
    yield "post_attention_layernorm", layer.mlp_norm


def _by_length(sequences: Sequence[TokenIds]) -> list[int]:
    return sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))


def _pad_left(sequences: Sequence[TokenIds], device: torch.device) -> PaddedBatch:
    longest = max(map(len, sequences))
    ids, mask = (np.zeros((len(sequences), longest), np.int64) for _ in range(2))
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = sequence
        mask[row, longest - len(sequence) :] = 1
    return PaddedBatch(ids=torch.from_numpy(ids).to(device), mask=torch.from_numpy(mask).to(device))
