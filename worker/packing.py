"""Token sequences of any lengths, one behind the other, as the packed forward pass takes them.

What sequences begin with together is laid out once, as a segment; each segment's tokens then attend to the keys of the
whole path from the root, which are gathered for it. Segments whose keys and values are cached are not computed at all:
their keys stand before those of the computed tokens. Where nothing is shared or cached, nothing is gathered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobqueue.messages import TokenIds
from worker.prefix_cache import PrefixKeysValues
from worker.sharing import MIN_SHARED_TOKENS, Segment, SharingPlan, plan_sharing

_Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLayout:
    """Which rows attend to which: query group i, cut by `cu_seqlens_q`, to key group i of the gathered keys.

    `key_rows` (gathered tokens,) int64 says which key row each gathered key is; None means all rows as they lie.
    Both `cu_seqlens` are int32 (groups + 1,).
    """

    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor
    max_seqlen_q: int
    max_seqlen_k: int
    key_rows: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSegment:
    """Tokens `begin` to `end` of a cached prefix."""

    prefix: PrefixKeysValues
    begin: int
    end: int

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """One layer's keys and values: (tokens, kv_heads, head_dim)."""
        return self.prefix.keys[index, self.begin : self.end], self.prefix.values[index, self.begin : self.end]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """Sequences without padding, each shared token once; all tensors on one device.

    A key row is a row of the cached segments, in their order, or behind them a computed token. `every_token` is how all
    computed tokens attend, group by segment; `last_tokens` how the rows `last_rows` do, each a group. `outputs` says
    for each sequence which of `last_rows` is its own, None where they are one to one. `kept_rows` are the key rows of
    each prefix that is to be kept.
    """

    ids: Tensor  # (tokens,) int32
    positions: Tensor  # (tokens,) int32, from 0 within each sequence
    every_token: AttentionLayout
    last_tokens: AttentionLayout
    last_rows: Tensor  # (distinct sequences,) int64, the row of each one's last token
    outputs: Tensor | None  # (sequences,) int64
    cached: tuple[CachedSegment, ...]
    kept_rows: tuple[Tensor, ...]  # (tokens of the prefix,) int64 each

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed."""
        return self.ids.shape[0]


def pack(
    sequences: Sequence[TokenIds],
    device: torch.device,
    *,
    cached: Sequence[PrefixKeysValues] = (),
    kept: Sequence[TokenIds] = (),
    min_shared: int = MIN_SHARED_TOKENS,
) -> PackedBatch:
    """Lay out at least one sequence of typecode "i", none of them empty.

    What sequences begin with is taken from `cached` where it is there; each of `kept` must be the beginning of a
    sequence. On CUDA the copies go through pinned memory and are only enqueued: the current stream orders them.
    """
    if not sequences or min(map(len, sequences)) == 0:
        raise ValueError("an empty sequence has no last token to pool")
    everything = [*sequences, *(prefix.ids for prefix in cached)]
    plan = plan_sharing(everything, min_shared=min_shared)
    lasts = plan.last_segments[: len(sequences)]
    from_cache = _cached_segments(plan, lasts, cached)
    computed = [index for index in range(len(plan.segments)) if index not in from_cache]
    num_cached = sum(plan.segments[index].length for index in from_cache)
    own_rows = _own_rows(plan.segments, [*from_cache, *computed])
    paths = _paths(plan.segments, own_rows)
    gathers = bool(from_cache) or any(segment.parent >= 0 for segment in plan.segments)
    distinct = sorted(set(lasts))
    segments = [plan.segments[index] for index in computed]
    return PackedBatch(
        ids=_to_device(_ids(everything, segments), device),
        positions=_to_device(_positions(segments), device),
        every_token=_layout([own_rows[at] for at in computed], [paths[at] for at in computed], gathers, device),
        last_tokens=_layout([paths[at][-1:] for at in distinct], [paths[at] for at in distinct], gathers, device),
        last_rows=_to_device(np.array([paths[at][-1] - num_cached for at in distinct], np.int64), device),
        outputs=_outputs(lasts, distinct, device),
        cached=tuple(from_cache.values()),
        kept_rows=tuple(_to_device(_kept_rows(ids, sequences, lasts, paths), device) for ids in kept),
    )


def count_computed_tokens(sequences: Sequence[TokenIds]) -> int:
    """Tokens that would be computed if these sequences were a batch of their own."""
    return plan_sharing(sequences, min_shared=MIN_SHARED_TOKENS).num_tokens


def _cached_segments(
    plan: SharingPlan, lasts: Sequence[int], cached: Sequence[PrefixKeysValues]
) -> dict[int, CachedSegment]:
    """The segments on the paths of the cached prefixes, parents first, but for sequences' last ones."""
    found: dict[int, CachedSegment] = {}
    for prefix, last in zip(cached, plan.last_segments[len(plan.last_segments) - len(cached) :], strict=True):
        index = last
        while index >= 0:
            segment = plan.segments[index]
            found[index] = CachedSegment(prefix=prefix, begin=segment.begin, end=segment.end)
            index = segment.parent
    return {index: found[index] for index in sorted(found.keys() - set(lasts))}


def _own_rows(segments: Sequence[Segment], order: Sequence[int]) -> dict[int, _Rows]:
    """Each segment's key rows, the segments laid one behind the other in `order`."""
    ends = accumulate(segments[index].length for index in order)
    return {index: np.arange(end - segments[index].length, end) for index, end in zip(order, ends, strict=True)}


def _paths(segments: Sequence[Segment], own_rows: Mapping[int, _Rows]) -> list[_Rows]:
    """For each segment the key rows of all tokens from the root of its path to its end."""
    found: list[_Rows] = []
    for index, segment in enumerate(segments):
        own = own_rows[index]
        found.append(own if segment.parent < 0 else np.concatenate((found[segment.parent], own)))
    return found


def _kept_rows(ids: TokenIds, sequences: Sequence[TokenIds], lasts: Sequence[int], paths: Sequence[_Rows]) -> _Rows:
    """Key rows of a beginning, on the path of any sequence that has it."""
    for sequence, last in zip(sequences, lasts, strict=True):
        if sequence[: len(ids)] == ids:
            return paths[last][: len(ids)]
    raise ValueError("a prefix to keep that no sequence begins with")


def _ids(sequences: Sequence[TokenIds], segments: Sequence[Segment]) -> "NDArray[np.int32]":
    parts = [np.frombuffer(sequences[part.source], np.int32)[part.begin : part.end] for part in segments]
    return np.concatenate(parts)


def _positions(segments: Sequence[Segment]) -> "NDArray[np.int32]":
    return np.concatenate([np.arange(part.begin, part.end, dtype=np.int32) for part in segments])


def _layout(
    query_rows: Sequence[_Rows],
    key_rows: Sequence[_Rows],
    gathers: bool,  # noqa: FBT001 - private
    device: torch.device,
) -> AttentionLayout:
    """Groups of queries over groups of keys; without `gathers` the keys are all rows in their order."""
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
