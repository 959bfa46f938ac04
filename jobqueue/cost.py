"""What a sequence costs, so that one 32K text and hundreds of short ones both make a full batch."""

import math


def sequence_cost(num_tokens: int, attention_cost: float) -> int:
    """Cost of a sequence in tokens of linear work: n + c n^2, c being attention's FLOPs against the linear ones'."""
    return math.ceil(num_tokens + attention_cost * num_tokens * num_tokens)
