"""Models of the published shapes with random weights, made on the device: no checkpoint is needed.

Weights are drawn in bfloat16, as checkpoints hold them, so that every dtype computes the same model.
"""

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import TypeAlias

import torch
from torch import Tensor

from worker.model.attention import Attention
from worker.model.choices import KernelsName
from worker.model.config import Qwen3Config
from worker.model.kernels import block_maker
from worker.model.qwen3 import Qwen3
from worker.model.shapes import PUBLISHED_SHAPES, Shape
from worker.model.weights import LayerWeights, Qwen3Weights

Weights: TypeAlias = Qwen3Weights[LayerWeights]

SHAPES = {"tiny": (Shape(), 4096), **{name: (shape, 151_669) for name, shape in PUBLISHED_SHAPES.items()}}
_MATRIX_STD = 0.02  # Qwen3's initializer_range
_NORM_STD = 0.1  # around 1: weights of exactly 1 would hide a norm that is left out or swapped


def config_of(size: str, *, num_layers: int | None = None) -> Qwen3Config:
    """The config of a published size or the tiny one, with its own number of layers unless told."""
    shape, vocab_size = SHAPES[size]
    config = Qwen3Config(vocab_size=vocab_size, rms_norm_eps=1e-6, rope_theta=1e6, **asdict(shape))
    return config if num_layers is None else replace(config, num_hidden_layers=num_layers)


def random_weights(config: Qwen3Config, device: torch.device, dtype: torch.dtype, *, seed: int = 0) -> Weights:
    """Matrices around 0, norms around 1; never held in more than `dtype` but for one tensor."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*size: int) -> Tensor:
        mean, std = (1.0, _NORM_STD) if len(size) == 1 else (0.0, _MATRIX_STD)
        drawn = torch.empty(size, device=device, dtype=torch.bfloat16)
        return drawn.normal_(mean, std, generator=generator).to(dtype)

    return Qwen3Weights(
        embedding=draw(config.vocab_size, config.hidden_size),
        layers=tuple(_random_layer(config, draw) for _ in range(config.num_hidden_layers)),
        final_norm=draw(config.hidden_size),
    )


def _random_layer(config: Qwen3Config, draw: Callable[..., Tensor]) -> LayerWeights:
    hidden, intermediate, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    return LayerWeights(
        input_norm=draw(hidden),
        qkv=draw(queries + 2 * keys, hidden),
        q_norm=draw(head_dim),
        k_norm=draw(head_dim),
        output=draw(hidden, queries),
        mlp_norm=draw(hidden),
        gate_up=draw(2 * intermediate, hidden),
        down=draw(hidden, intermediate),
    )


def layer_to(layer: LayerWeights, dtype: torch.dtype) -> LayerWeights:
    return LayerWeights(**{field.name: getattr(layer, field.name).to(dtype) for field in fields(layer)})


def weights_to(weights: Weights, dtype: torch.dtype) -> Weights:
    return Qwen3Weights(
        embedding=weights.embedding.to(dtype),
        layers=tuple(layer_to(layer, dtype) for layer in weights.layers),
        final_norm=weights.final_norm.to(dtype),
    )


def build(config: Qwen3Config, weights: Weights, kernels: KernelsName, attention: Attention) -> Qwen3:
    """The engine's model over these weights; the dense kernels use them where they lie."""
    make_block = block_maker(kernels, config)
    blocks = Qwen3Weights(
        embedding=weights.embedding, layers=tuple(map(make_block, weights.layers)), final_norm=weights.final_norm
    )
    return Qwen3(config, blocks, attention)
