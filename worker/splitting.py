"""What to do when a batch does not fit in memory: halve it and try again, down to single sequences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import structlog
import torch
from torch import Tensor

from jobqueue.messages import TokenIds
from worker.runner import ModelRunner

_CPU_ALLOCATOR_SAYS = "can't allocate memory"  # a plain RuntimeError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One row per sequence that fitted in memory, alone or with others; None for one that did not even alone."""

    rows: tuple[Tensor | None, ...]


WaitingFitted: TypeAlias = Callable[[], Fitted]


def start_fitting(
    runner: ModelRunner, sequences: Sequence[TokenIds], prefixes: Sequence[TokenIds] = ()
) -> WaitingFitted:
    """Begin a batch, or where memory does not hold it, its parts one after the other."""
    try:
        wait = runner.start(sequences, prefixes)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not is_out_of_memory(error):
            raise
    else:
        return lambda: Fitted(rows=tuple(wait()))
    # Out of the handler, whose exception held on to the tensors of the failed batch.
    log.warning("out of memory", num_sequences=len(sequences), num_tokens=sum(map(len, sequences)))
    runner.release_memory()
    if len(sequences) == 1:
        return lambda: Fitted(rows=(None,))
    half = len(sequences) // 2
    parts = [start_fitting(runner, part) for part in (sequences[:half], sequences[half:])]
    return lambda: Fitted(rows=tuple(row for part in parts for row in part().rows))


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or _CPU_ALLOCATOR_SAYS in str(error)
