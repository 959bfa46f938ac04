"""The elementwise work between the matrix products as three Triton kernels for CUDA: each reads and writes memory once.

They compute in float32 and round to the model's dtype wherever PyTorch's operators do, so that few results differ from
theirs, and those by a last bit. Row offsets are 64-bit: a long batch of wide rows has more than 2 ** 31 values.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

from worker.model.operations import Operations

_SILU_BLOCK = 1024  # divides Qwen3's intermediate sizes, or all but the last block of them
_MAX_TILE = 4096  # values of one token that a program of `_norm_rotate_kernel` holds: 32 heads of 128


@triton.jit
def _add_norm_kernel(  # noqa: PLR0917 - what a launch passes by position
    hidden: tl.tensor,
    delta: tl.tensor,
    total: tl.tensor,
    weight: tl.tensor,
    normed: tl.tensor,
    eps: tl.tensor,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """One program adds and norms one row."""
    columns = tl.arange(0, block)
    inside = columns < width
    row = tl.program_id(0).to(tl.int64) * width + columns
    gain = tl.load(weight + columns, mask=inside, other=0.0)
    x = tl.load(hidden + row, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(delta + row, mask=inside, other=0.0).to(tl.float32)
    x = x.to(total.dtype.element_ty).to(tl.float32)  # what is normed is the residual stream, as it is stored
    tl.store(total + row, x, mask=inside)
    x *= tl.rsqrt(tl.sum(x * x) / width + eps)
    tl.store(normed + row, x * gain.to(tl.float32), mask=inside)


@triton.jit
def _norm_rotate_kernel(  # noqa: PLR0917 - likewise
    heads: tl.tensor,
    row_stride: tl.tensor,
    weight: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    rotated: tl.tensor,
    eps: tl.tensor,
    num_heads: tl.constexpr,
    half: tl.constexpr,
    tile: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """One program norms and rotates `tile` heads of one token, each in two halves: cos and sin are read once."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * tile + tl.arange(0, tile)[:, None]
    column = tl.arange(0, block)[None, :]
    inside_half = column < half
    inside = (head < num_heads) & inside_half
    offset = head * (2 * half) + column

    source = heads + token * row_stride + offset
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + half, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(first * first + second * second, axis=1, keep_dims=True) / (2 * half) + eps)
    first = first * scale * tl.load(weight + column, mask=inside_half, other=0.0).to(tl.float32)
    second = second * scale * tl.load(weight + half + column, mask=inside_half, other=0.0).to(tl.float32)
    first = first.to(rotated.dtype.element_ty).to(tl.float32)  # the norm's result has the model's dtype
    second = second.to(rotated.dtype.element_ty).to(tl.float32)

    cosine = tl.load(cos + token * half + column, mask=inside_half, other=0.0)
    sine = tl.load(sin + token * half + column, mask=inside_half, other=0.0)
    target = rotated + token * (num_heads * 2 * half) + offset
    tl.store(target, first * cosine - second * sine, mask=inside)
    tl.store(target + half, second * cosine + first * sine, mask=inside)


@triton.jit
def _silu_mul_kernel(gate_up: tl.tensor, product: tl.tensor, width: tl.constexpr, block: tl.constexpr) -> None:
    """One program makes one block of one row; programs are numbered along the rows, as memory is."""
    blocks_per_row: tl.constexpr = tl.cdiv(width, block)
    row = (tl.program_id(0) // blocks_per_row).to(tl.int64)
    columns = (tl.program_id(0) % blocks_per_row) * block + tl.arange(0, block)
    inside = columns < width
    source = gate_up + row * (2 * width) + columns
    gate = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(source + width, mask=inside, other=0.0).to(tl.float32)
    silu = gate / (1.0 + tl.exp(-gate))
    silu = silu.to(product.dtype.element_ty).to(tl.float32)  # silu's result has the model's dtype
    tl.store(product + row * width + columns, silu * up, mask=inside)


def _add_norm(hidden: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    hidden, delta = hidden.contiguous(), delta.contiguous()
    total, normed = torch.empty_like(hidden), torch.empty_like(hidden)
    num_rows, width = hidden.shape
    block = triton.next_power_of_2(width)
    with torch.cuda.device(hidden.get_device()):
        _add_norm_kernel[num_rows,](
            hidden, delta, total, weight, normed, eps, width=width, block=block, **_options(hidden, block)
        )
    return total, normed


def _norm_rotate(heads: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    num_tokens, num_heads, head_dim = heads.shape
    rotated = heads.new_empty(heads.shape)
    block = triton.next_power_of_2(head_dim // 2)
    tile = min(triton.next_power_of_2(num_heads), max(1, _MAX_TILE // (2 * block)))
    with torch.cuda.device(heads.get_device()):
        _norm_rotate_kernel[num_tokens, triton.cdiv(num_heads, tile)](
            heads,
            heads.stride(0),
            weight,
            cos,
            sin,
            rotated,
            eps,
            num_heads=num_heads,
            half=head_dim // 2,
            tile=tile,
            block=block,
            **_options(heads, tile * 2 * block),
        )
    return rotated


def _silu_mul(gate_up: Tensor) -> Tensor:
    gate_up = gate_up.contiguous()
    num_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    product = gate_up.new_empty(num_rows, width)
    block = min(triton.next_power_of_2(width), _SILU_BLOCK)
    with torch.cuda.device(gate_up.get_device()):
        _silu_mul_kernel[num_rows * triton.cdiv(width, block),](
            gate_up, product, width=width, block=block, **_options(gate_up, 2 * block)
        )
    return product


def _options(values: Tensor, num_loaded: int) -> dict[str, int]:
    """How a program is compiled that loads so many values of this dtype.

    Two 16-byte loads a thread keep memory busy and leave registers to spare. Products and sums are rounded one by one,
    as between PyTorch's operators, whatever Triton's default is.
    """
    num_bytes = num_loaded * values.element_size()
    return {"num_warps": min(max(num_bytes // (2 * 16 * 32), 1), 16), "enable_fp_fusion": False}


TRITON = Operations(name="triton", add_norm=_add_norm, norm_rotate=_norm_rotate, silu_mul=_silu_mul)
