"""Qwen3's weights from safetensors, straight to their device and dtype, in the layout of the packed forward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.model.config import Qwen3Config
from worker.model.errors import CheckpointError

_MODEL_PREFIX = "model."
_HEAD = "lm_head.weight"
_EMBEDDING = "embed_tokens.weight"
_FINAL_NORM = "norm.weight"

LayerT = TypeVar("LayerT")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """Matrices are (out, in), as `F.linear` takes them."""

    input_norm: Tensor  # (hidden,)
    qkv: Tensor  # ((heads + 2 * kv_heads) * head_dim, hidden): queries, keys, values
    q_norm: Tensor  # (head_dim,)
    k_norm: Tensor  # (head_dim,)
    output: Tensor  # (hidden, heads * head_dim)
    mlp_norm: Tensor  # (hidden,)
    gate_up: Tensor  # (2 * intermediate, hidden): gate, up
    down: Tensor  # (hidden, intermediate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3Weights(Generic[LayerT]):
    """All of one device and dtype."""

    embedding: Tensor  # (vocabulary, hidden)
    layers: tuple[LayerT, ...]
    final_norm: Tensor  # (hidden,)


def load_weights(
    files: Sequence[Path],
    config: Qwen3Config,
    *,
    device: torch.device,
    dtype: torch.dtype,
    make_layer: Callable[[LayerWeights], LayerT],
) -> Qwen3Weights[LayerT]:
    """Read the weights, all but the lm_head.

    Each layer's weights are handed to `make_layer` before the next are read, so that a layer which lays them out
    anew holds them twice for itself alone. Raises CheckpointError naming the tensor that is missing, unknown or of
    a wrong shape.
    """
    with ExitStack() as stack:
        tensors = _Tensors.open(files, device=device, dtype=dtype, stack=stack)
        tensors.refuse_unknown(config)
        return Qwen3Weights(
            embedding=tensors.read(_EMBEDDING, (config.vocab_size, config.hidden_size)),
            layers=tuple(make_layer(_read_layer(tensors, config, index)) for index in range(config.num_hidden_layers)),
            final_norm=tensors.read(_FINAL_NORM, (config.hidden_size,)),
        )


def load_yes_minus_no(files: Sequence[Path], config: Qwen3Config, yes_no: tuple[int, int]) -> Tensor:
    """What scores a reranker's pooled rows: lm_head's row of `yes` less that of `no`, (hidden,) float32 on the CPU.

    No other row of the lm_head is ever read. Raises CheckpointError where it is missing or of a wrong shape.
    """
    name = _EMBEDDING if config.tie_word_embeddings else _HEAD
    with ExitStack() as stack:
        tensors = _Tensors.open(files, device=torch.device("cpu"), dtype=torch.float32, stack=stack)
        yes, no = (tensors.read_row(name, row, (config.vocab_size, config.hidden_size)) for row in yes_no)
        return yes - no


def _read_layer(tensors: "_Tensors", config: Qwen3Config, index: int) -> LayerWeights:
    shapes = _layer_shapes(config)

    def read(*names: str) -> Tensor:
        return tensors.read_fused([(f"layers.{index}.{name}.weight", shapes[name]) for name in names])

    return LayerWeights(
        input_norm=read("input_layernorm"),
        qkv=read("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        q_norm=read("self_attn.q_norm"),
        k_norm=read("self_attn.k_norm"),
        output=read("self_attn.o_proj"),
        mlp_norm=read("post_attention_layernorm"),
        gate_up=read("mlp.gate_proj", "mlp.up_proj"),
        down=read("mlp.down_proj"),
    )


def _layer_shapes(config: Qwen3Config) -> dict[str, tuple[int, ...]]:
    hidden, intermediate, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    return {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.q_norm": (head_dim,),
        "self_attn.k_norm": (head_dim,),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }


def _expected_names(config: Qwen3Config) -> Iterator[str]:
    yield from (_EMBEDDING, _FINAL_NORM, _HEAD)
    for index in range(config.num_hidden_layers):
        yield from (f"layers.{index}.{name}.weight" for name in _layer_shapes(config))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensors:
    """The tensors of all files by name without the `model.` prefix, which some published checkpoints lack."""

    homes: dict[str, tuple[Any, str]]  # name -> the open file and its name there
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def open(cls, files: Sequence[Path], *, device: torch.device, dtype: torch.dtype, stack: ExitStack) -> Self:
        homes: dict[str, tuple[Any, str]] = {}
        for path in files:
            file = stack.enter_context(_open(path, device))
            homes |= {key.removeprefix(_MODEL_PREFIX): (file, key) for key in file.keys()}  # noqa: SIM118 - not a dict
        return cls(homes=homes, device=device, dtype=dtype)

    def refuse_unknown(self, config: Qwen3Config) -> None:
        """A bias or an adapter that we do not apply would silently change every result."""
        unknown = self.homes.keys() - set(_expected_names(config))
        if unknown:
            raise CheckpointError(f"tensor {min(unknown)}: not part of the Qwen3 that config.json describes")

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self.read_fused([(name, shape)])

    def read_fused(self, parts: Sequence[tuple[str, tuple[int, ...]]]) -> Tensor:
        """The named tensors one above the other, each copied to its place so that no part is held twice."""
        num_rows = sum(shape[0] for _, shape in parts)
        fused = torch.empty((num_rows, *parts[0][1][1:]), device=self.device, dtype=self.dtype)
        begin = 0
        for name, shape in parts:
            file, key = self._find(name, shape)
            fused[begin : begin + shape[0]].copy_(file.get_tensor(key))
            begin += shape[0]
        return fused

    def read_row(self, name: str, row: int, shape: tuple[int, ...]) -> Tensor:
        """One row in float32, whatever the model's dtype."""
        file, key = self._find(name, shape)
        found: Tensor = file.get_slice(key)[row]
        return found.to(device=self.device, dtype=torch.float32)

    def _find(self, name: str, shape: tuple[int, ...]) -> tuple[Any, str]:
        if name not in self.homes:
            raise CheckpointError(f"tensor {name}: missing from the safetensors files")
        file, key = self.homes[name]
        found = tuple(file.get_slice(key).get_shape())
        if found != shape:
            raise CheckpointError(f"tensor {name}: has shape {found}, config.json says {shape}")
        return file, key


def _open(path: Path, device: torch.device) -> Any:
    try:
        return safe_open(path, framework="pt", device=str(device))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name}: not a safetensors file: {error}") from error
