"""Every attention back-end against the formula in float64, on the lengths that plans make."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from benchmarks.gpu_check.backends import Backends
from benchmarks.gpu_check.reference import attend
from benchmarks.gpu_check.report import Report, Row, parity_row
from worker.model.attention import Attention
from worker.placement import Placement

_HEAD_DIM = 128
_COMPARED_QUERIES = 32  # of each sequence: scores of all of a long one would not fit
_FLOAT32_BAR = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCase:
    """Query and key lengths of sequences that run together."""

    name: str
    num_queries: tuple[int, ...]
    num_keys: tuple[int, ...]
    num_heads: int = 16
    num_kv_heads: int = 8


SHORT_CASES = (
    AttentionCase(name="equal lengths", num_queries=(5, 1, 130, 64), num_keys=(5, 1, 130, 64)),
    AttentionCase(name="one query each", num_queries=(1, 1, 1), num_keys=(9, 1, 300), num_heads=32),
    AttentionCase(name="fewer queries", num_queries=(3, 4, 1, 200), num_keys=(8, 4, 6, 513)),
    AttentionCase(name="as many kv heads", num_queries=(7, 33), num_keys=(7, 40), num_heads=8),
)


def long_cases(num_keys: int) -> tuple[AttentionCase, ...]:
    return (
        AttentionCase(name="all queries", num_queries=(num_keys,), num_keys=(num_keys,)),
        AttentionCase(name="17 queries", num_queries=(17,), num_keys=(num_keys,)),
        AttentionCase(name="one query", num_queries=(1,), num_keys=(num_keys,)),
    )


def check_attention(report: Report, backends: Backends, *, max_keys: int) -> None:
    """A row for each back-end's short lengths, and one for its longest."""
    placement = backends.placement
    for name, attention in backends.attentions.items():
        what = f"attention {name} {placement.dtype_name}"
        for label, cases in ((what, SHORT_CASES), (f"{what} {max_keys} keys", long_cases(max_keys))):
            report.attempt("PARITY", label, partial(_check, label, attention, cases, placement))


def _check(label: str, attention: Attention, cases: Sequence[AttentionCase], placement: Placement) -> Iterator[Row]:
    errors = {case.name: relative_error(attention, case, placement) for case in cases}
    bar = _FLOAT32_BAR if placement.dtype is torch.float32 else torch.finfo(placement.dtype).eps
    yield parity_row(label, "relative error", errors, bar)


@torch.inference_mode()
def relative_error(attention: Attention, case: AttentionCase, placement: Placement) -> float:
    """The error's norm over the norm of what is right, the worst of all compared queries."""
    q, k, v = _heads(case, placement)
    cu_seqlens_q, cu_seqlens_k = (_borders(each, placement.device) for each in (case.num_queries, case.num_keys))
    out = attention(q, k, v, cu_seqlens_q, cu_seqlens_k, max(case.num_queries), max(case.num_keys))
    if out.shape != q.shape:
        raise ValueError(f"the result is {tuple(out.shape)}, the queries are {tuple(q.shape)}")
    parts = (tensor.split(lengths) for tensor, lengths in _with_lengths(case, out, q, k, v))
    errors = [_error_of_one(*sequence) for sequence in zip(*parts, strict=True)]
    return float(torch.cat(errors).max())


def _heads(case: AttentionCase, placement: Placement) -> list[Tensor]:
    """Queries, keys and values: (tokens, heads, head_dim)."""
    generator = torch.Generator(placement.device).manual_seed(0)
    num_queries, num_keys = sum(case.num_queries), sum(case.num_keys)
    sizes = [(num_queries, case.num_heads), (num_keys, case.num_kv_heads), (num_keys, case.num_kv_heads)]
    return [
        torch.randn(*size, _HEAD_DIM, generator=generator, device=placement.device).to(placement.dtype)
        for size in sizes
    ]


def _with_lengths(case: AttentionCase, *tensors: Tensor) -> Iterator[tuple[Tensor, list[int]]]:
    """Each of output, queries, keys and values with the lengths that it is cut by."""
    lengths = (case.num_queries, case.num_queries, case.num_keys, case.num_keys)
    return ((tensor, list(length)) for tensor, length in zip(tensors, lengths, strict=True))


def _error_of_one(out: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(compared queries,) float64: first, last and evenly spread ones of a sequence."""
    num_queries, num_keys = q.shape[0], k.shape[0]
    num_compared = min(num_queries, _COMPARED_QUERIES)
    rows = torch.linspace(0, num_queries - 1, num_compared, device=q.device).round().long()
    queries, keys, values = (tensor.double().transpose(0, 1) for tensor in (q[rows], k, v))
    exact = attend(queries, keys, values, rows + num_keys - num_queries).transpose(0, 1).flatten(1)
    error: Tensor = (out[rows].double().flatten(1) - exact).norm(dim=1) / exact.norm(dim=1)
    return error


def _borders(lengths: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
