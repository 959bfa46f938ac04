"""Causal attention over packed sequences, one function with flash-attn's arguments for every back-end.

`q` is (total_q, heads, head_dim), `k` and `v` are (total_k, kv_heads, head_dim), all of one dtype and device;
`cu_seqlens_q` and `cu_seqlens_k` are int32 (num_sequences + 1,), where each sequence begins and ends. The mask is
aligned bottom-right: the last query of a sequence sees all of its keys, so there may be fewer queries than keys,
never more. The result is (total_q, heads, head_dim).
"""

import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.attention import varlen
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

Attention: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int], Tensor]

_CAUSAL_WINDOW = (-1, 0)  # any number of keys to the left, none to the right


def select_attention(device: torch.device, dtype: torch.dtype) -> tuple[str, Attention]:
    """The fastest back-end that works here, with its name for the log.

    PyTorch's varlen kernel is CUDA only and has no float32, where the loop over sequences serves too.
    """
    if device.type == "cuda" and dtype is not torch.float32:
        return "torch-varlen", torch_varlen_attention()
    return "sdpa-loop", sdpa_loop


def torch_varlen_attention() -> Attention:
    """PyTorch's varlen flash kernel; raises RuntimeError where this PyTorch's cannot be causal."""
    parameters = inspect.signature(varlen.varlen_attn).parameters
    if "window_size" not in parameters:
        raise RuntimeError(f"torch {torch.__version__}: varlen_attn has no window_size, torch 2.11 or later is needed")
    has_gqa_flag = "enable_gqa" in parameters  # torch 2.11 has none and takes unequal head counts as they are

    def attend(  # noqa: PLR0917 - flash-attn's own signature
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
    ) -> Tensor:
        gqa: dict[str, Any] = {"enable_gqa": True} if has_gqa_flag and q.shape[1] != k.shape[1] else {}
        out = varlen.varlen_attn(
            q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, window_size=_CAUSAL_WINDOW, **gqa
        )
        return cast("Tensor", out)  # a tuple only where return_aux asks for one

    return attend


def sdpa_loop(  # noqa: PLR0917 - flash-attn's own signature
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,  # noqa: ARG001 - kernels need it, a loop does not
    max_seqlen_k: int,  # noqa: ARG001 - likewise
) -> Tensor:
    """SDPA, one sequence after the other: on the CPU as fast as its kernels, which know no packing."""
    out = torch.empty_like(q)
    for queries, keys in zip(_ranges(cu_seqlens_q), _ranges(cu_seqlens_k), strict=True):
        out[queries] = _attend_one(q[queries], k[keys], v[keys])
    return out


def _ranges(cu_seqlens: Tensor) -> Iterator[slice]:
    return (slice(begin, end) for begin, end in pairwise(cu_seqlens.tolist()))


def _attend_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One sequence: (num_queries, heads, head_dim) over (num_keys, kv_heads, head_dim)."""
    num_queries, num_heads, head_dim = q.shape
    num_keys, num_kv_heads, _ = k.shape
    keys, values = k.transpose(0, 1).unsqueeze(0), v.transpose(0, 1).unsqueeze(0)
    if num_queries == 1:
        # One query sees every key, so the heads of a group can stand in for queries: 2 to 12 times as fast in
        # bfloat16 on the CPU as enable_gqa, which reads the keys once per head.
        grouped = q.view(1, num_kv_heads, num_heads // num_kv_heads, head_dim)
        return scaled_dot_product_attention(grouped, keys, values).view(1, num_heads, head_dim)
    queries = q.transpose(0, 1).unsqueeze(0)
    equal = num_queries == num_keys
    # is_causal is aligned top-left, which is the same thing only where the lengths are equal.
    mask = None if equal else causal_lower_right(num_queries, num_keys)
    out = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=equal, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)
