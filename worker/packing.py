"""Token sequences of any lengths, one behind the other, as the packed forward pass takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobqueue.messages import TokenIds


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """`num_sequences` sequences without padding, all tensors on one device."""

    ids: Tensor  # (total_tokens,) int32
    positions: Tensor  # (total_tokens,) int32, from 0 within each sequence
    cu_seqlens: Tensor  # (num_sequences + 1,) int32, where each sequence begins and ends
    max_seqlen: int
    last_rows: Tensor  # (num_sequences,) int64, the row of each sequence's last token

    @property
    def num_sequences(self) -> int:
        return self.last_rows.shape[0]


def pack(sequences: Sequence[TokenIds], device: torch.device) -> PackedBatch:
    """Lay out at least one sequence of typecode "i", none of them empty.

    On CUDA the copies go through pinned memory and are only enqueued: the current stream orders them.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int32)
    if lengths.size == 0 or lengths.min() == 0:
        raise ValueError("an empty sequence has no last token to pool")
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    ids = np.concatenate([np.frombuffer(sequence, dtype=np.int32) for sequence in sequences])
    positions = np.arange(ids.size, dtype=np.int32) - np.repeat(cu_seqlens[:-1], lengths)
    return PackedBatch(
        ids=_to_device(ids, device),
        positions=_to_device(positions, device),
        cu_seqlens=_to_device(cu_seqlens, device),
        max_seqlen=int(lengths.max()),
        last_rows=_to_device(cu_seqlens[1:].astype(np.int64) - 1, device),
    )


def _to_device(values: "np.ndarray[Any, Any]", device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
