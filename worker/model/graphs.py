"""CUDA graphs for small batches, where launching the kernels takes longer than running them.

A graph replays fixed kernels over fixed memory. So a small batch is padded to the next of a few sizes, copied into that
size's tensors, and its graph is replayed. Padded rows belong to no group of the attention: whatever they hold, no other
row reads it. A batch that fits no size runs as it is.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad as constant_pad

from worker.model.qwen3 import Qwen3
from worker.packing import AttentionLayout, PackedBatch, pack

GRAPH_TOKENS = (64, 128, 256, 512, 1024, 2048)

Run: TypeAlias = Callable[[], Tensor]
Capture: TypeAlias = Callable[[Run], Run]  # from what is to be recorded to what replays it


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything a graph has room for: of `tokens`, the rest follows."""

    tokens: int

    @property
    def groups(self) -> int:
        """Segments, and sequences."""
        return self.tokens // 8 + 8

    @property
    def keys(self) -> int:
        """Gathered keys, those that several groups share counted in each."""
        return 4 * self.tokens

    def holds(self, batch: PackedBatch) -> bool:
        layouts = (batch.every_token, batch.last_tokens)
        return (
            not batch.cached
            and not batch.kept_rows
            and batch.num_tokens <= self.tokens
            and all(_num_groups(layout) <= self.groups for layout in layouts)
            and all(_num_keys(layout, batch) <= self.keys for layout in layouts)
        )


def pad(batch: PackedBatch, size: Size) -> PackedBatch:
    """The batch at the size of a graph, `outputs` left to the caller; its first rows are those of the batch."""
    return replace(
        batch,
        ids=_padded(batch.ids, size.tokens),
        positions=_padded(batch.positions, size.tokens),
        every_token=_pad_layout(batch.every_token, batch, size, most_queries=size.tokens),
        last_tokens=_pad_layout(batch.last_tokens, batch, size, most_queries=1),
        last_rows=_padded(batch.last_rows, size.groups),
        outputs=None,
    )


class Graph:
    """One size, captured: the tensors that its kernels read, and how to run them."""

    def __init__(self, model: Qwen3, size: Size, device: torch.device, capture: Capture) -> None:
        self.size = size
        self._fixed = pad(pack([array("i", [0])], device), size)
        self._replay = capture(lambda: model.forward(self._fixed))

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> Tensor:
        """As `Qwen3.forward`, of a batch on any device that this size holds."""
        for fixed, given in zip(_tensors(self._fixed), _tensors(pad(batch, self.size)), strict=True):
            fixed.copy_(_pinned(given, fixed.device), non_blocking=True)
        pooled = self._replay()[: batch.last_rows.shape[0]]
        # A copy either way: the next replay overwrites what this one gave.
        if batch.outputs is None:
            return pooled.clone()
        return pooled[_pinned(batch.outputs, pooled.device).to(pooled.device, non_blocking=True)]


class Graphs:
    """The captured sizes of a model. As the model itself, for one thread at a time."""

    def __init__(
        self, model: Qwen3, device: torch.device, *, capture: Capture, sizes: Sequence[int] = GRAPH_TOKENS
    ) -> None:
        """Capture the largest first, so that the others can use its memory."""
        captured = [Graph(model, Size(tokens=tokens), device, capture) for tokens in sorted(sizes, reverse=True)]
        self._smallest_first = captured[::-1]

    @property
    def most_keys(self) -> int:
        """A batch of more tokens, counted before sharing, fits no graph."""
        return self._smallest_first[-1].size.keys

    def find(self, batch: PackedBatch) -> Graph | None:
        """The smallest that holds the batch."""
        return next((graph for graph in self._smallest_first if graph.size.holds(batch)), None)


def cuda_capture() -> Capture:
    """Captures into memory that all graphs share, after a run which compiles what is compiled on first use."""
    pool = torch.cuda.graph_pool_handle()

    def capture(run: Run) -> Run:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())  # which still fills the fixed tensors
        with torch.cuda.stream(aside):
            run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            out = run()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    return capture


def _pad_layout(layout: AttentionLayout, batch: PackedBatch, size: Size, *, most_queries: int) -> AttentionLayout:
    """Groups without queries and keys behind the real ones, and every key gathered."""
    rows = layout.key_rows
    if rows is None:
        rows = torch.arange(batch.num_tokens, device=batch.ids.device)
    return AttentionLayout(
        cu_seqlens_q=_padded(layout.cu_seqlens_q, size.groups + 1, fill=int(layout.cu_seqlens_q[-1])),
        cu_seqlens_k=_padded(layout.cu_seqlens_k, size.groups + 1, fill=int(layout.cu_seqlens_k[-1])),
        max_seqlen_q=most_queries,
        max_seqlen_k=size.tokens,
        key_rows=_padded(rows, size.keys),
    )


def _pinned(values: Tensor, device: torch.device) -> Tensor:
    """Ready for a copy to the device that the host does not wait for."""
    return values.pin_memory() if device.type == "cuda" and not values.is_cuda else values


def _padded(values: Tensor, length: int, *, fill: int = 0) -> Tensor:
    return constant_pad(values, (0, length - values.shape[0]), value=fill)


def _tensors(batch: PackedBatch) -> Iterator[Tensor]:
    yield from (batch.ids, batch.positions, batch.last_rows)
    for layout in (batch.every_token, batch.last_tokens):
        yield from (layout.cu_seqlens_q, layout.cu_seqlens_k)
        if layout.key_rows is not None:
            yield layout.key_rows


def _num_groups(layout: AttentionLayout) -> int:
    return layout.cu_seqlens_q.shape[0] - 1


def _num_keys(layout: AttentionLayout, batch: PackedBatch) -> int:
    return batch.num_tokens if layout.key_rows is None else layout.key_rows.shape[0]
