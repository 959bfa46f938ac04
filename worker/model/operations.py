"""The elementwise work between matrix products, in PyTorch's own operators: for every device, and the kernels' oracle.

All take tensors in the model's dtype and compute in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """One implementation of it. Letters in shapes: t tokens, h hidden size, n heads, d head_dim, i intermediate.

    `add_norm(hidden, delta, weight, eps)`: the sum of two (t, h), and the sum's RMSNorm by the weight (h,).
    `norm_rotate(heads, weight, cos, sin, eps)`: RMSNorm per head, then RoPE: (t, n, d), rows of any stride, with weight
    (d,) and float32 cos, sin (t, d / 2), to a contiguous (t, n, d).
    `silu_mul(gate_up)`: (t, 2 * i), gate then up, to silu(gate) * up, (t, i).
    """

    name: str
    add_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
    norm_rotate: Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
    silu_mul: Callable[[Tensor], Tensor]


def norm(values: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension, in the dtype of `values`."""
    return functional.rms_norm(values, weight.shape, weight, eps)


def _add_norm(hidden: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    total = hidden + delta
    return total, norm(total, weight, eps)


def _norm_rotate(heads: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    first, second = norm(heads, weight, eps).float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(heads.dtype)


def _silu_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=1)
    return functional.silu(gate) * up


TORCH = Operations(name="torch", add_norm=_add_norm, norm_rotate=_norm_rotate, silu_mul=_silu_mul)
