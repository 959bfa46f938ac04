"""How many floating-point operations a batch takes: what is executed, so that sharing and pruning earn no credit.

Matrix products and attention only, two operations for each multiply and add; norms and the like are not counted.
"""

from dataclasses import dataclass

from torch import Tensor

from worker.model.config import Qwen3Config
from worker.packing import AttentionLayout, PackedBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Of one packed forward pass."""

    products: int
    attention: int

    @property
    def total(self) -> int:
        return self.products + self.attention


def count_flops(config: Qwen3Config, batch: PackedBatch) -> Flops:
    """In the last layer only keys and values are computed for every token, all else for each text's last one."""
    num_full_layers, num_pooled = config.num_hidden_layers - 1, batch.last_rows.shape[0]
    num_full_rows = num_full_layers * batch.num_tokens + num_pooled
    num_key_value_rows = config.num_hidden_layers * batch.num_tokens
    num_pairs = num_full_layers * count_pairs(batch.every_token) + count_pairs(batch.last_tokens)
    return Flops(
        products=2 * (num_full_rows * _other_weights(config) + num_key_value_rows * _key_value_weights(config)),
        # Scores and the weighted sum of values, for each head.
        attention=4 * num_pairs * config.num_attention_heads * config.head_dim,
    )


def count_pairs(layout: AttentionLayout) -> int:
    """How many keys all queries see together: causal, the last query of a group sees all of its keys."""
    num_queries, num_keys = _lengths(layout.cu_seqlens_q), _lengths(layout.cu_seqlens_k)
    num_unseen = num_queries * (num_queries - 1) // 2
    return int((num_queries * num_keys - num_unseen).sum())


def _lengths(cu_seqlens: Tensor) -> Tensor:
    return cu_seqlens.long().cpu().diff()


def _key_value_weights(config: Qwen3Config) -> int:
    return 2 * config.hidden_size * config.num_key_value_heads * config.head_dim


def _other_weights(config: Qwen3Config) -> int:
    """Of queries, output, gate, up and down."""
    query_and_output = 2 * config.hidden_size * config.num_attention_heads * config.head_dim
    return query_and_output + 3 * config.hidden_size * config.intermediate_size
