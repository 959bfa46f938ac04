"""Token sequences of any lengths, one behind the other, as the packed forward pass takes them.

What sequences begin with together is laid out once, as a segment; each segment's tokens then attend to the keys of the
whole path from the root, which are gathered for it. Where nothing is shared, nothing is gathered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobqueue.messages import TokenIds
from worker.sharing import Segment, plan_sharing

# An agreement shorter than this costs more to gather for than to compute again.
MIN_SHARED_TOKENS = 8

_Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLayout:
    """Which rows attend to which: query group i, cut by `cu_seqlens_q`, to key group i of the gathered keys.

    `key_rows` (gathered tokens,) int64 says which token each gathered key is of; None means all tokens as they lie.
    Both `cu_seqlens` are int32 (groups + 1,).
    """

    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor
    max_seqlen_q: int
    max_seqlen_k: int
    key_rows: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """Sequences without padding, each shared token once; all tensors on one device.

    `every_token` is how all tokens attend, group by segment; `last_tokens` how the rows `last_rows` do, each a group.
    `outputs` says for each sequence which of `last_rows` is its own, None where they are one to one.
    """

    ids: Tensor  # (tokens,) int32
    positions: Tensor  # (tokens,) int32, from 0 within each sequence
    every_token: AttentionLayout
    last_tokens: AttentionLayout
    last_rows: Tensor  # (distinct sequences,) int64, the row of each one's last token
    outputs: Tensor | None  # (sequences,) int64

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed."""
        return self.ids.shape[0]


def pack(sequences: Sequence[TokenIds], device: torch.device, *, min_shared: int = MIN_SHARED_TOKENS) -> PackedBatch:
    """Lay out at least one sequence of typecode "i", none of them empty.

    On CUDA the copies go through pinned memory and are only enqueued: the current stream orders them.
    """
    if not sequences or min(map(len, sequences)) == 0:
        raise ValueError("an empty sequence has no last token to pool")
    plan = plan_sharing(sequences, min_shared=min_shared)
    ends = list(accumulate(segment.length for segment in plan.segments))
    own_rows = [np.arange(end - segment.length, end) for segment, end in zip(plan.segments, ends, strict=True)]
    key_rows = _key_rows(plan.segments, own_rows)
    shares = any(segment.parent >= 0 for segment in plan.segments)
    distinct = sorted(set(plan.last_segments))
    last_key_rows = [key_rows[segment] for segment in distinct]
    return PackedBatch(
        ids=_to_device(_ids(sequences, plan.segments), device),
        positions=_to_device(_positions(plan.segments), device),
        every_token=_layout(own_rows, key_rows, gathers=shares, device=device),
        last_tokens=_layout([rows[-1:] for rows in last_key_rows], last_key_rows, gathers=shares, device=device),
        last_rows=_to_device(np.array([ends[segment] - 1 for segment in distinct], np.int64), device),
        outputs=_outputs(plan.last_segments, distinct, device),
    )


def count_computed_tokens(sequences: Sequence[TokenIds]) -> int:
    """Tokens that would be computed if these sequences were a batch of their own."""
    return plan_sharing(sequences, min_shared=MIN_SHARED_TOKENS).num_tokens


def _key_rows(segments: Sequence[Segment], own_rows: Sequence[_Rows]) -> list[_Rows]:
    """For each segment the rows of all tokens from the root of its path to its end."""
    found: list[_Rows] = []
    for segment, own in zip(segments, own_rows, strict=True):
        found.append(own if segment.parent < 0 else np.concatenate((found[segment.parent], own)))
    return found


def _ids(sequences: Sequence[TokenIds], segments: Sequence[Segment]) -> "NDArray[np.int32]":
    parts = [np.frombuffer(sequences[part.source], np.int32)[part.begin : part.end] for part in segments]
    return np.concatenate(parts)


def _positions(segments: Sequence[Segment]) -> "NDArray[np.int32]":
    return np.concatenate([np.arange(part.begin, part.end, dtype=np.int32) for part in segments])


def _layout(
    query_rows: Sequence[_Rows], key_rows: Sequence[_Rows], *, gathers: bool, device: torch.device
) -> AttentionLayout:
    """Groups of queries over groups of keys; without `gathers` the keys are all tokens in their order."""
    num_queries, num_keys = [len(rows) for rows in query_rows], [len(rows) for rows in key_rows]
    return AttentionLayout(
        cu_seqlens_q=_to_device(_borders(num_queries), device),
        cu_seqlens_k=_to_device(_borders(num_keys), device),
        max_seqlen_q=max(num_queries),
        max_seqlen_k=max(num_keys),
        key_rows=_to_device(np.concatenate(key_rows), device) if gathers else None,
    )


def _borders(lengths: Sequence[int]) -> "NDArray[np.int32]":
    return np.array([0, *accumulate(lengths)], np.int32)


def _outputs(last_segments: Sequence[int], distinct: Sequence[int], device: torch.device) -> Tensor | None:
    if list(last_segments) == list(distinct):
        return None
    places = {segment: place for place, segment in enumerate(distinct)}
    return _to_device(np.array([places[segment] for segment in last_segments], np.int64), device)


def _to_device(values: "NDArray[Any]", device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
