"""The engine of this project: packed batches, shared and cached prefixes, a pruned last layer."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from jobqueue.messages import TokenIds
from runtime.errors import SettingError
from worker.model.attention import select_attention
from worker.model.checkpoint import Checkpoint
from worker.model.graphs import Graphs, cuda_capture
from worker.model.kernels import block_maker, select_kernels
from worker.model.qwen3 import Qwen3
from worker.model.weights import load_weights
from worker.packing import PackedBatch, count_computed_tokens, pack
from worker.placement import Placement
from worker.prefix_cache import PrefixCache, PrefixKeysValues, PrefixRecorder
from worker.runner import RunnerStats, Waiting


class PackedRunner:
    """A model on one device. On CUDA a batch is enqueued and copied back while the host goes on."""

    engine = "packed"

    def __init__(
        self,
        checkpoint: Checkpoint,
        placement: Placement,
        *,
        attention: str = "auto",
        kernels: str = "auto",
        prefix_cache_bytes: int = 0,
        cuda_graphs: bool = False,
    ) -> None:
        """Load the weights. Raises CheckpointError where they do not fit, SettingError for what is not here."""
        self.attention, attend = select_attention(placement.device, placement.dtype, attention)
        self.kernels = select_kernels(placement.device, placement.dtype, kernels)
        weights = load_weights(
            checkpoint.weight_files,
            checkpoint.config,
            device=placement.device,
            dtype=placement.dtype,
            make_layer=block_maker(self.kernels, checkpoint.config),
        )
        self._model = Qwen3(checkpoint.config, weights, attend)
        self._device = placement.device
        self._uploads = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._graphs = self._capture() if cuda_graphs else None
        self._prefix_cache = PrefixCache(
            max_bytes=prefix_cache_bytes, token_bytes=checkpoint.config.key_value_bytes(placement.dtype.itemsize)
        )
        self._num_input_tokens = self._num_computed_tokens = 0

    @torch.inference_mode()
    def start(self, sequences: Sequence[TokenIds], prefixes: Sequence[TokenIds] = ()) -> Waiting:
        with _on(self._device):
            hidden, batch = self._replay(sequences) or self._compute(sequences, prefixes)
            self._num_input_tokens += sum(map(len, sequences))
            self._num_computed_tokens += batch.num_tokens
            return (lambda: hidden) if self._uploads is None else _Download(hidden, batch)

    def release_memory(self) -> None:
        self._prefix_cache.clear()
        if self._device.type == "cuda":
            # What failed may have kernels under way that read the upload stream's memory, which is free for others now.
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()

    def count_computed(self, sequences: Sequence[TokenIds]) -> int:
        return count_computed_tokens(sequences)

    def stats(self) -> RunnerStats:
        return RunnerStats(
            num_input_tokens=self._num_input_tokens,
            num_computed_tokens=self._num_computed_tokens,
            prefix_cache=self._prefix_cache.stats,
        )

    def _capture(self) -> Graphs:
        if self._device.type != "cuda":
            raise SettingError(f"--cuda-graphs: runs on CUDA, not on {self._device.type}")
        if self.attention == "sdpa":
            raise SettingError("--cuda-graphs: attention sdpa loops over sequences, which a graph cannot")
        with _on(self._device):
            return Graphs(self._model, self._device, capture=cuda_capture())

    def _replay(self, sequences: Sequence[TokenIds]) -> tuple[Tensor, PackedBatch] | None:
        """A small batch, replayed: there, what a cached prefix would save is less than launching costs."""
        if self._graphs is None or sum(map(len, sequences)) > self._graphs.most_keys:
            return None
        batch = pack(sequences, torch.device("cpu"))
        graph = self._graphs.find(batch)
        return None if graph is None else (graph.forward(batch).float(), batch)

    def _compute(self, sequences: Sequence[TokenIds], prefixes: Sequence[TokenIds]) -> tuple[Tensor, PackedBatch]:
        cached = self._prefix_cache.find(prefixes)
        kept = self._prefix_cache.worth_keeping(prefixes)
        batch = self._pack(sequences, cached=cached, kept=kept)
        recorder = PrefixRecorder(kept, batch.kept_rows, num_layers=self._model.config.num_hidden_layers)
        hidden = self._model.forward(batch, recorder.record).float()
        for prefix in recorder.recorded():
            self._prefix_cache.keep(prefix)
        return hidden, batch

    def _pack(
        self, sequences: Sequence[TokenIds], *, cached: Sequence[PrefixKeysValues], kept: Sequence[TokenIds]
    ) -> PackedBatch:
        """On CUDA the copies have a stream of their own, so that they do not wait for the batch that runs."""
        if self._uploads is None:
            return pack(sequences, self._device, cached=cached, kept=kept)
        with torch.cuda.stream(self._uploads):
            batch = pack(sequences, self._device, cached=cached, kept=kept)
        torch.cuda.current_stream().wait_stream(self._uploads)
        return batch


class _Download:
    """The way back of a batch's result, enqueued behind it; called, it waits for the end.

    It holds the batch until then: memory of the upload stream could otherwise be used anew while the batch still reads.
    """

    def __init__(self, hidden: Tensor, batch: PackedBatch) -> None:
        self._batch = batch
        self._host = torch.empty(hidden.shape, dtype=hidden.dtype, pin_memory=True)
        self._host.copy_(hidden, non_blocking=True)
        self._done = torch.cuda.Event()
        self._done.record()

    def __call__(self) -> Tensor:
        self._done.synchronize()
        return self._host


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Make it the calling thread's current device, which kernels are launched on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
