"""Padded batches of like lengths, as libraries make them that cannot compute unequal sequences together."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.protocol import Sequences, Vectors

_PADDING_ID = 151_643  # <|endoftext|>; masked, so any id would do


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedBatch:
    """Sequences of a batch, each at its row's right end: (batch, longest) int64. `mask` is 1 where there is a token."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


def run_sorted(sequences: Sequences, batch_size: int, run: Callable[[PaddedBatch], Vectors]) -> Vectors:
    """Run batches of `batch_size`, the longest sequences first; the rows come back in the order given."""
    order = np.argsort([-len(ids) for ids in sequences], kind="stable")
    rows = [
        run(pad_left([sequences[index] for index in order[begin : begin + batch_size]]))
        for begin in range(0, len(order), batch_size)
    ]
    found: Vectors = np.concatenate(rows)[np.argsort(order)]
    return found


def pad_left(sequences: Sequences) -> PaddedBatch:
    longest = max(map(len, sequences))
    input_ids = np.full((len(sequences), longest), _PADDING_ID, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, ids in enumerate(sequences):
        input_ids[row, longest - len(ids) :] = ids
        attention_mask[row, longest - len(ids) :] = 1
    return PaddedBatch(input_ids=input_ids, attention_mask=attention_mask)
