"""The fields of a Qwen3 `config.json` that the forward pass needs, and refusals of what it does not compute."""

from dataclasses import dataclass
from typing import Self

from worker.model.errors import CheckpointError
from worker.model.files import CONFIG_FILE, JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3Config:
    """A dense causal Qwen3 decoder; names are those of `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    max_position_embeddings: int

    @classmethod
    def from_json(cls, values: JsonObject, *, any_forward: bool = False) -> Self:
        """Read a parsed `config.json`; raises CheckpointError for what the packed engine would compute differently.

        With `any_forward` only for what no engine computes: attention that is not causal over the whole text.
        """
        _refuse_other_attention(values)
        if not any_forward:
            _refuse_other_forward(values)
        config = cls(
            vocab_size=_positive(values, "vocab_size"),
            hidden_size=_positive(values, "hidden_size"),
            intermediate_size=_positive(values, "intermediate_size"),
            num_hidden_layers=_positive(values, "num_hidden_layers"),
            num_attention_heads=_positive(values, "num_attention_heads"),
            num_key_value_heads=_positive(values, "num_key_value_heads"),
            head_dim=_positive(values, "head_dim"),
            rms_norm_eps=_number(values, "rms_norm_eps"),
            rope_theta=_rope_theta(values),
            tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
            max_position_embeddings=_positive(values, "max_position_embeddings"),
        )
        _check_heads(config)
        return config

    def key_value_bytes(self, value_bytes: int) -> int:
        """Bytes of one token's keys and values in all layers, at `value_bytes` a value."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * value_bytes

    @property
    def attention_cost(self) -> float:
        """The `c` of `cost(n) = n + c * n**2`: a text's FLOPs in units of one token's linear FLOPs.

        Per layer, a token's matmuls cost 2 * P FLOPs with P = hidden * head_dim * (2 * heads + 2 * kv_heads)
        + 3 * hidden * intermediate weights. A causal text of n tokens has n**2 / 2 query-key pairs, each
        4 * heads * head_dim FLOPs (scores and weighted sum): 2 * heads * head_dim * n**2 in all. The quotient is
        c = heads * head_dim / P; it does not depend on the number of layers.
        """
        heads = self.num_attention_heads + self.num_key_value_heads
        weights = self.hidden_size * (2 * heads * self.head_dim + 3 * self.intermediate_size)
        return self.num_attention_heads * self.head_dim / weights


def _refuse_other_attention(values: JsonObject) -> None:
    _expect(values, "model_type", ("qwen3",))
    _expect(values, "use_sliding_window", (False, None))
    _expect(values, "quantization_config", (None,))
    _expect(values, "is_causal", (True, None))
    if any(kind != "full_attention" for kind in values.get("layer_types") or ()):
        raise CheckpointError(f"{CONFIG_FILE}: layer_types: only full_attention is computed")


def _refuse_other_forward(values: JsonObject) -> None:
    _expect(values, "hidden_act", ("silu",))
    _expect(values, "attention_bias", (False, None))
    for field in ("rope_scaling", "rope_parameters"):
        _refuse_scaled_rope(field, values.get(field) or {})


def _expect(values: JsonObject, field: str, accepted: tuple[object, ...]) -> None:
    found = values.get(field)
    if found not in accepted:
        raise CheckpointError(f"{CONFIG_FILE}: {field} is {found!r}, this engine computes {accepted[0]!r}")


def _refuse_scaled_rope(field: str, rope: JsonObject) -> None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise CheckpointError(f"{CONFIG_FILE}: {field} is {dict(rope)!r}, this engine computes plain RoPE only")


def _rope_theta(values: JsonObject) -> float:
    """Version 5 of transformers writes `rope_parameters.rope_theta`, earlier versions `rope_theta`."""
    parameters = values.get("rope_parameters") or {}
    return _number(parameters if "rope_theta" in parameters else values, "rope_theta")


def _number(values: JsonObject, field: str) -> float:
    found = values.get(field)
    if isinstance(found, bool) or not isinstance(found, int | float) or not found > 0:
        raise CheckpointError(f"{CONFIG_FILE}: {field} must be a positive number, not {found!r}")
    return float(found)


def _positive(values: JsonObject, field: str) -> int:
    found = values.get(field)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise CheckpointError(f"{CONFIG_FILE}: {field} must be a positive integer, not {found!r}")
    return found


def _check_heads(config: Qwen3Config) -> None:
    if config.num_attention_heads % config.num_key_value_heads:
        raise CheckpointError(f"{CONFIG_FILE}: num_attention_heads is not a multiple of num_key_value_heads")
    if config.head_dim % 2:
        raise CheckpointError(f"{CONFIG_FILE}: head_dim is odd, RoPE needs pairs")
