"""Texts to compute, as random token ids: of plans for parity, of typical calls for speed."""

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np

from jobqueue.messages import TokenIds
from worker.sharing import MIN_SHARED_TOKENS

OTHER_LENGTHS = (128, 2048, 8192, 32_768)
MIXED = "mixed 8-512"
_NOTHING: TokenIds = array("i")
NOTHING_SHARED = 1 << 30  # no agreement is that long


class RandomIds:
    """Token ids that no earlier call had."""

    def __init__(self, vocab_size: int, seed: int) -> None:
        self._chance = np.random.default_rng(seed)
        self._vocab_size = vocab_size

    def text(self, length: int, *, behind: TokenIds = _NOTHING) -> TokenIds:
        drawn = array("i", self._chance.integers(self._vocab_size, size=length, dtype=np.int32).tobytes())
        return behind + drawn

    def texts(self, lengths: Sequence[int], *, behind: TokenIds = _NOTHING) -> list[TokenIds]:
        return [self.text(length, behind=behind) for length in lengths]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCase:
    """A batch that is laid out in one way. `prefix` is what its texts begin with and an earlier batch computed."""

    name: str
    sequences: Sequence[TokenIds]
    prefix: TokenIds = field(default_factory=lambda: _NOTHING)
    min_shared: int = MIN_SHARED_TOKENS


def plan_cases(vocab_size: int, *, seed: int = 0) -> list[PlanCase]:
    """One of every kind of plan, short texts and one-token texts among them."""
    ids = RandomIds(vocab_size, seed)
    cached, root = ids.text(48), ids.text(24)
    instructions = ids.texts((40,) * 4)  # several, since texts that share one share its errors too
    branches = [ids.text(length, behind=root) for length in (16, 33)]
    distinct = ids.texts((12, 1, 33, 48, 64, 90, 110, 150))
    tails = (1, 5, 9, 13, 20, 27, 33, 41, 50, 57, 64, 78, 90, 120)
    return [
        PlanCase(
            name="plain",
            sequences=ids.texts((1, 2, 3, 5, 8, 17, 33, 64, 100, 130, 200, 257)),
            min_shared=NOTHING_SHARED,
        ),
        PlanCase(
            name="shared",
            sequences=[text for instruction in instructions for text in ids.texts(tails[::3], behind=instruction)],
        ),
        PlanCase(
            name="nested",
            sequences=[text for branch in branches for text in ids.texts((2, 21, 40, 60, 80, 100), behind=branch)],
        ),
        PlanCase(name="duplicates", sequences=[*distinct, *distinct, distinct[-1][:70], ids.text(30)]),
        PlanCase(name="cached", sequences=ids.texts(tails, behind=cached), prefix=cached),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Texts of these lengths, behind `num_shared` tokens that all of them begin with."""

    name: str
    own_lengths: tuple[int, ...]
    num_shared: int = 0
    is_compared: bool = False  # with transformers

    @property
    def num_tokens(self) -> int:
        return sum(self.own_lengths) + len(self.own_lengths) * self.num_shared

    def draw(self, ids: RandomIds) -> list[TokenIds]:
        return ids.texts(self.own_lengths, behind=ids.text(self.num_shared))


def target_workloads(batch_tokens: int) -> tuple[Workload, ...]:
    """Those that a target of speed is set for; batches are filled to `batch_tokens`, at least 512."""
    return (
        replace(_uniform(512, batch_tokens), is_compared=True),
        Workload(name=MIXED, own_lengths=_mixed_lengths(batch_tokens), is_compared=True),
    )


def other_workloads(batch_tokens: int) -> tuple[Workload, ...]:
    """The longest text first, whose memory is to be known; a rerank call; short queries; the other lengths."""
    chance = random.Random(0)
    documents, queries = (
        [chance.randrange(*bounds) for _ in range(num)] for num, bounds in ((50, (50, 200)), (64, (5, 20)))
    )
    longest, *shorter = sorted({length for length in OTHER_LENGTHS if length <= batch_tokens}, reverse=True)
    return (
        _uniform(longest, batch_tokens),
        Workload(name="rerank 1 x 50", own_lengths=tuple(documents), num_shared=130, is_compared=True),
        Workload(name="64 queries", own_lengths=tuple(queries), num_shared=40, is_compared=True),
        *(_uniform(length, batch_tokens) for length in reversed(shorter)),
    )


def _uniform(length: int, batch_tokens: int) -> Workload:
    return Workload(name=str(length), own_lengths=(length,) * (batch_tokens // length))


def _mixed_lengths(batch_tokens: int) -> tuple[int, ...]:
    """Spread evenly on a logarithmic scale from 8 to 512, as many as fit."""
    chance = random.Random(0)
    lengths = [int(8 * 64 ** chance.random()) for _ in range(batch_tokens // 8)]
    num_fitting = sum(end <= batch_tokens for end in accumulate(lengths))
    return tuple(lengths[:num_fitting])
