"""Which tokens of a batch are computed once although several sequences begin with them: pure, on token ids alone.

The sequences of a batch form a tree. Sorted, neighbours show how far each two agree, and every piece on which a group
of them agrees is one *segment*. A segment's tokens attend to those of its ancestors and to those before them in the
segment, so each is computed once, whatever the number of sequences that pass through it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jobqueue.messages import TokenIds

# An agreement shorter than this costs more to gather for than to compute again.
MIN_SHARED_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Tokens `begin` to `end` of sequence `source`, and of every other sequence that passes through it.

    `parent` is the index of the segment that ends at `begin`, -1 where `begin` is 0.
    """

    source: int
    begin: int
    end: int
    parent: int

    @property
    def length(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingPlan:
    """Segments, parents before children, and for each sequence the segment whose last token is its own last token."""

    segments: Sequence[Segment]
    last_segments: Sequence[int]

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed."""
        return sum(segment.length for segment in self.segments)


def plan_sharing(sequences: Sequence[TokenIds], *, min_shared: int = 1) -> SharingPlan:
    """The tree of the sequences, none of them empty. Agreements shorter than `min_shared` tokens are not used.

    Identical sequences are one. In the worst case, sequences that are all prefixes of one another, it takes time
    quadratic in their number.
    """
    keys = [sequence.tobytes() for sequence in sequences]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    distinct = [at for place, at in enumerate(order) if place == 0 or keys[at] != keys[order[place - 1]]]
    agreements = [0, *(agreement(sequences[a], sequences[b]) for a, b in pairwise(distinct))]
    lengths = [len(sequences[at]) for at in distinct]
    segments, lasts = _grow(lengths, agreements, min_shared=min_shared)
    last_of = {keys[at]: last for at, last in zip(distinct, lasts, strict=True)}
    return SharingPlan(
        segments=[
            Segment(source=distinct[source], begin=begin, end=end, parent=parent)
            for source, begin, end, parent in segments
        ],
        last_segments=[last_of[key] for key in keys],
    )


def agreement(first: TokenIds, second: TokenIds) -> int:
    """How many tokens two sequences begin with together."""
    length = min(len(first), len(second))
    differ = np.frombuffer(first, np.int32, length) != np.frombuffer(second, np.int32, length)
    at = int(differ.argmax())
    return at if differ[at] else length


def _grow(
    lengths: Sequence[int], agreements: Sequence[int], *, min_shared: int
) -> tuple[list[tuple[int, int, int, int]], list[int]]:
    """Segments (source, begin, end, parent) of sorted distinct sequences, and the last segment of each.

    `agreements[i]` is how far sequences i - 1 and i agree.
    """
    segments: list[tuple[int, int, int, int]] = []
    lasts = [-1] * len(lengths)
    groups = [(0, len(lengths), 0, -1)]  # sequences from, to; where their next segment begins, and its parent
    while groups:
        first, stop, begin, parent = groups.pop()
        shared = lengths[first] if stop - first == 1 else min(agreements[first + 1 : stop])
        if shared > begin and (stop - first == 1 or shared - begin >= min_shared):
            segments.append((first, begin, shared, parent))
            begin, parent = shared, len(segments) - 1
        if lengths[first] == begin:
            lasts[first] = parent
            first += 1
        starts = [at for at in range(first, stop) if at == first or agreements[at] == shared]
        groups += [(start, end, begin, parent) for start, end in pairwise([*starts, stop])]
    return segments, lasts
