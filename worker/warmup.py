"""The first batches of a worker, on random tokens: they find out what fits, before any job is at stake."""

import random
from array import array
from collections.abc import Sequence

import structlog

from jobqueue.messages import TokenIds
from runtime.errors import SettingError
from worker.runner import ModelRunner
from worker.splitting import is_out_of_memory

LEAST_BUDGET = 1024
_TEXT_TOKENS = 512
_SMALL_TOKENS = 64

log = structlog.get_logger()


def warm_up(runner: ModelRunner, *, vocab_size: int) -> None:
    """Run one small batch, so that the first call does not pay for what is made once."""
    runner.start(_random_sequences([_SMALL_TOKENS], vocab_size))()


def find_budget(runner: ModelRunner, *, largest: int, max_input_tokens: int, vocab_size: int) -> int:
    """The largest batch cost that memory holds: `largest`, or that halved until it fits.

    Memory grows with tokens, and a batch has the most for its cost where its texts are short. Raises SettingError where
    the longest input does not fit alone, or no useful batch does.
    """
    if not _fits(runner, _random_sequences([max_input_tokens], vocab_size)):
        raise SettingError(f"--max-input-tokens {max_input_tokens}: a text of that length does not fit in memory")
    budget = largest
    while not _fits(runner, _random_sequences(_lengths(budget), vocab_size)):
        budget //= 2
        log.warning("batch does not fit in memory", tried=budget)
        if budget < LEAST_BUDGET:
            raise SettingError(f"--max-batch-tokens: not even {2 * budget} tokens fit in memory")
    return budget


def _lengths(num_tokens: int) -> list[int]:
    whole, rest = divmod(num_tokens, _TEXT_TOKENS)
    return [_TEXT_TOKENS] * whole + [rest] * (rest > 0)


def _random_sequences(lengths: Sequence[int], vocab_size: int) -> list[TokenIds]:
    chance = random.Random(0)  # noqa: S311 - no secret
    return [array("i", chance.choices(range(vocab_size), k=length)) for length in lengths]


def _fits(runner: ModelRunner, sequences: Sequence[TokenIds]) -> bool:
    try:
        runner.start(sequences)()
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not is_out_of_memory(error):
            raise
    else:
        return True
    runner.release_memory()
    return False
