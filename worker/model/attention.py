"""Causal attention over packed sequences, one function with flash-attn's arguments for every back-end.

`q` is (total_q, heads, head_dim), `k` and `v` are (total_k, kv_heads, head_dim), all of one dtype and device;
`cu_seqlens_q` and `cu_seqlens_k` are int32 (num_sequences + 1,), where each sequence begins and ends. The mask is
aligned bottom-right: the last query of a sequence sees all of its keys, so there may be fewer queries than keys,
never more. The result is (total_q, heads, head_dim).
"""

import importlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias, cast, get_args

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from runtime.errors import SettingError
from worker.model.choices import AttentionName

Attention: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int], Tensor]

_CAUSAL_WINDOW = (-1, 0)  # any number of keys to the left, none to the right
_AMPERE = 8
_MASK_TOKENS = 1024
_MODULES: dict[AttentionName, str] = {
    "flash-attn-3": "flash_attn_interface",
    "flash-attn": "flash_attn",
    "torch-varlen": "torch.nn.attention.varlen",
}


def select_attention(device: torch.device, dtype: torch.dtype, wanted: str = "auto") -> tuple[AttentionName, Attention]:
    """The fastest back-end that works here, or the one `wanted`; raises SettingError where that one does not."""
    for name in (name for name in get_args(AttentionName) if wanted in {"auto", name}):
        reason = _why_not(name, device, dtype)
        if reason is None:
            return name, _MAKERS[name]()
    raise SettingError(f"--attention {wanted}: {reason}")


def _why_not(name: AttentionName, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a back-end cannot serve, None where it can."""
    if name == "sdpa":
        return None
    if device.type != "cuda":
        return f"runs on CUDA, not on {device.type}"
    if dtype is torch.float32:
        return "has no float32"
    return why_not_chip(device, exactly=9 if name == "flash-attn-3" else None) or _why_not_import(_MODULES[name])


def why_not_chip(device: torch.device, *, exactly: int | None = None) -> str | None:
    """Why a CUDA device's chip will not do: kernels need 8.0 (Ampere) or later, some one generation alone."""
    major, minor = torch.cuda.get_device_capability(device)
    if exactly is None and major < _AMPERE:
        return f"needs compute capability {_AMPERE}.0 or later, this device has {major}.{minor}"
    if exactly is not None and major != exactly:
        return f"is made for compute capability {exactly}.0, this device has {major}.{minor}"
    return None


def _why_not_import(module: str) -> str | None:
    """Importing is the only way to know: a package that was compiled for another torch is there and fails."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:
        return f"{module} cannot be imported: {error}"
    return None


def flash_attention_2() -> Attention:
    """flash-attn 2.1 or later, which aligns its causal mask bottom-right and takes fewer key-value heads."""
    return _flash_attention(_MODULES["flash-attn"])


def flash_attention_3() -> Attention:
    """flash-attn's Hopper kernels. Some of its releases give the log-sum-exp too."""
    return _flash_attention(_MODULES["flash-attn-3"])


def _flash_attention(module: str) -> Attention:
    kernel = importlib.import_module(module).flash_attn_varlen_func

    def attend(*arguments: Any) -> Tensor:
        out = kernel(*arguments, causal=True)
        return cast("Tensor", out[0] if isinstance(out, tuple) else out)

    return attend


def torch_varlen_attention() -> Attention:
    """PyTorch's varlen flash kernel, of torch 2.11 or later."""
    # Loaded where it is used: it loads half of torch.compile, which takes as long as torch itself.
    varlen = importlib.import_module(_MODULES["torch-varlen"])
    parameters = inspect.signature(varlen.varlen_attn).parameters
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


def sdpa(  # noqa: PLR0917 - flash-attn's own signature
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
        if queries.start < queries.stop:
            out[queries] = _attend_one(q[queries], k[keys], v[keys])
    return out


_MAKERS: dict[AttentionName, Callable[[], Attention]] = {
    "flash-attn-3": flash_attention_3,
    "flash-attn": flash_attention_2,
    "torch-varlen": torch_varlen_attention,
    "sdpa": lambda: sdpa,
}


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
    mask = None if equal else _bottom_right_mask(num_queries, num_keys, q)
    out = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=equal, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)


def _bottom_right_mask(num_queries: int, num_keys: int, like: Tensor) -> Tensor:
    """Short ones are windows of one mask: to make one for each sequence takes a fifth of a short one's time."""
    if num_keys > _MASK_TOKENS:
        return _long_mask(num_queries, num_keys, like.device)
    return _causal_mask(like.dtype, like.device)[num_keys - num_queries : num_keys, :num_keys]


def _long_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Where no kernel can do without, the mask itself, as torch would make it of its stand-in."""
    if device.type == "cuda":
        from torch.nn.attention.bias import causal_lower_right  # noqa: PLC0415 - as slow to load as varlen

        return cast("Tensor", causal_lower_right(num_queries, num_keys))
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(num_keys - num_queries)


@cache
def _causal_mask(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((_MASK_TOKENS, _MASK_TOKENS), float("-inf"), dtype=dtype, device=device).triu(1)
