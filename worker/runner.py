"""What every engine is to the worker: token ids in, the last token's hidden state out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from torch import Tensor

from jobqueue.messages import TokenIds
from worker.prefix_cache import PrefixCacheStats

Waiting: TypeAlias = Callable[[], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerStats:
    """What a runner has done since it was loaded: tokens that came in and those of them that were computed."""

    num_input_tokens: int
    num_computed_tokens: int
    prefix_cache: PrefixCacheStats = field(default_factory=PrefixCacheStats)


class ModelRunner(Protocol):
    """A loaded model on one device. `start` may be called from one thread at a time, what it returns from another.

    `engine`, `attention` and `kernels` are names for logs, metrics and announcements.
    """

    @property
    def engine(self) -> str: ...

    @property
    def attention(self) -> str: ...

    @property
    def kernels(self) -> str: ...

    def start(self, sequences: Sequence[TokenIds], prefixes: Sequence[TokenIds] = ()) -> Waiting:
        """Begin a batch of sequences, none empty; the call that comes back waits for its end.

        That call returns each sequence's last hidden state after the final norm, (sequences, hidden size) float32 on
        the CPU, in the order given. `prefixes`, each the beginning of a sequence, are what later ones may begin with
        as well. Raises RuntimeError or MemoryError, saying so, where memory does not hold the batch.
        """
        ...

    def release_memory(self) -> None:
        """Let go of memory that no batch needs."""
        ...

    def count_computed(self, sequences: Sequence[TokenIds]) -> int:
        """Tokens that would be computed if these sequences were a batch of their own."""
        ...

    def stats(self) -> RunnerStats: ...
