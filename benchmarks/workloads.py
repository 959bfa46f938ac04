"""What the engines are given: seeded random token ids, of the lengths that real loads have."""

import random
from collections.abc import Sequence

END_OF_TEXT = 151_643
INSTRUCTION_TOKENS = 40
QUERY_TOKENS = 90

Workload = Sequence[Sequence[int]]


def workloads() -> dict[str, Workload]:
    chance = random.Random(1)

    def ids(num: int) -> list[int]:
        return [chance.randrange(END_OF_TEXT) for _ in range(num)]

    instruction, query = ids(INSTRUCTION_TOKENS), ids(QUERY_TOKENS)
    return {
        "mixed 8-512": [ids(chance.randrange(8, 513)) for _ in range(24)],
        "64 queries, one instruction": [instruction + ids(chance.randrange(5, 20)) for _ in range(64)],
        "1 query": [instruction + ids(12)],
        "rerank 1 x 50": [query + ids(chance.randrange(50, 200)) for _ in range(50)],
        "nothing shared": [ids(128) for _ in range(24)],
        "long 4-8k": [ids(4096), ids(5120)],
    }


def prefix_tokens(sequences: Workload) -> int:
    """How many first tokens a job of these sequences would call its prefix, 0 where they share none."""
    lengths = {"64 queries, one instruction": INSTRUCTION_TOKENS, "1 query": INSTRUCTION_TOKENS}
    lengths["rerank 1 x 50"] = QUERY_TOKENS
    name = next(name for name, known in workloads().items() if known[0] == sequences[0])
    return lengths.get(name, 0)
