"""What to do when a batch does not fit in memory: halve it and try again, down to single sequences."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import structlog
from torch import Tensor

from jobqueue.messages import TokenIds
from worker.runner import ModelRunner

# One row per sequence; None for one that did not fit in memory even alone.
Rows: TypeAlias = Sequence[Tensor | None]
WaitingRows: TypeAlias = Callable[[], Rows]

# torch.OutOfMemoryError, CUDA's and Triton's own errors; cuBLAS; PyTorch's allocator on the CPU.
_SAYINGS = ("out of memory", "ALLOC_FAILED", "can't allocate memory")

log = structlog.get_logger()


def start_fitting(runner: ModelRunner, sequences: Sequence[TokenIds], prefixes: Sequence[TokenIds] = ()) -> WaitingRows:
    """Begin a batch, or where memory does not hold it, its parts one after the other."""
    try:
        wait = runner.start(sequences, prefixes)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return lambda: tuple(wait())
    # Out of the handler, whose exception held on to the tensors of the failed batch.
    log.warning("out of memory", num_sequences=len(sequences), num_tokens=sum(map(len, sequences)))
    runner.release_memory()
    if len(sequences) == 1:
        return lambda: (None,)
    half = len(sequences) // 2
    parts = [start_fitting(runner, part) for part in (sequences[:half], sequences[half:])]
    return lambda: [row for part in parts for row in part()]


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    return isinstance(error, MemoryError) or any(saying in str(error) for saying in _SAYINGS)
