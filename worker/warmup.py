"""The first batches of a worker, on random tokens: they find out what fits, before any job is at stake."""

import random
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
import torch

from jobqueue.messages import TokenIds
from runtime.errors import SettingError
from worker.batching import MOST_TOKENS_PER_COST
from worker.runner import ModelRunner
from worker.splitting import is_out_of_memory

LEAST_BUDGET = 1024
_TEXT_TOKENS = 512
_SMALL_TOKENS = 64

log = structlog.get_logger()


def warm_up(runner: ModelRunner, *, vocab_size: int) -> None:
    """Run one small batch, so that the first call does not pay for what is made once."""
    runner.start([_Ids(vocab_size).draw(_SMALL_TOKENS)])()


def check_longest_input(runner: ModelRunner, *, max_input_tokens: int, vocab_size: int) -> None:
    """Raises SettingError where memory does not hold the longest input alone."""
    if not _fits(runner, [_Ids(vocab_size).draw(max_input_tokens)]):
        raise SettingError(f"--max-input-tokens {max_input_tokens}: a text of that length does not fit in memory")


@contextmanager
def reserved(num_bytes: int, device: torch.device) -> Iterator[None]:
    """Hold memory that the prefix cache will take, while it is found out what else fits beside it."""
    try:
        held = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not is_out_of_memory(error):
            raise
        raise SettingError("--prefix-cache-mib: twice that much does not fit in memory beside the weights") from error
    yield
    del held


def find_budget(runner: ModelRunner, *, largest: int, vocab_size: int) -> int:
    """The largest batch cost that memory holds: `largest`, or that halved until it fits.

    Memory grows with tokens, those that are gathered for each text included: a batch has the most for its cost where
    short texts share nearly all that they may. Raises SettingError where no useful batch fits.
    """
    budget = largest
    while not _fits(runner, _apart(budget, vocab_size)) or not _fits(runner, _sharing(budget, vocab_size)):
        log.warning("batch does not fit in memory", max_batch_tokens=budget)
        budget //= 2
        if budget < LEAST_BUDGET:
            raise SettingError(f"--max-batch-tokens: not even {2 * budget} tokens fit in memory")
    return budget


def _apart(budget: int, vocab_size: int) -> list[TokenIds]:
    """Texts that share nothing, of `budget` tokens together."""
    draw = _Ids(vocab_size).draw
    return [draw(min(_TEXT_TOKENS, budget - begin)) for begin in range(0, budget, _TEXT_TOKENS)]


def _sharing(budget: int, vocab_size: int) -> list[TokenIds]:
    """Texts of one prefix, with `budget` tokens of their own and as many in all as a batch may have."""
    draw = _Ids(vocab_size).draw
    num_own = _TEXT_TOKENS // MOST_TOKENS_PER_COST
    prefix = draw(_TEXT_TOKENS - num_own)
    return [prefix + draw(num_own) for _ in range(budget // num_own)]


class _Ids:
    """Seeded random token ids."""

    def __init__(self, vocab_size: int) -> None:
        self._vocabulary = range(vocab_size)
        self._chance = random.Random(0)  # noqa: S311 - no secret

    def draw(self, num: int) -> TokenIds:
        return array("i", self._chance.choices(self._vocabulary, k=num))


def _fits(runner: ModelRunner, sequences: Sequence[TokenIds]) -> bool:
    try:
        runner.start(sequences)()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    runner.release_memory()
    return False
