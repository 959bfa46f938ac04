"""What a sequence costs, and how many fit together: pure integers."""

import math
from collections.abc import Iterator, Sequence


def sequence_cost(num_tokens: int, attention_cost: float) -> int:
    """Cost of a sequence in tokens of linear work: n + c n^2, c being attention's FLOPs against the linear ones'.

    So one 32K text and hundreds of short ones both make a full batch.
    """
    return math.ceil(num_tokens + attention_cost * num_tokens * num_tokens)


def job_cost(lengths: Sequence[int], num_shared: int, attention_cost: float) -> int:
    """Cost of sequences whose first `num_shared` tokens are the same, and are computed once."""
    repeated = (len(lengths) - 1) * sequence_cost(num_shared, attention_cost)
    return sum(sequence_cost(length, attention_cost) for length in lengths) - repeated


def split_by_size(sizes: Sequence[int], limit: int) -> Iterator[range]:
    """Cut items, in order, into consecutive groups of at most `limit` together; an item over it stands alone."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > limit:
            yield range(start, index)
            start, total = index, 0
        total += size
    if sizes:
        yield range(start, len(sizes))
