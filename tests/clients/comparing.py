"""Whether a client did what Python's did."""

import math
from collections.abc import Sequence
from itertools import pairwise

MAX_ATTEMPTS = 5
TOLERANCE = 1e-6  # float32's, in a sum of 64 products


class DifferenceError(Exception):
    """The client prints something else, or does not wait as it is told."""


def compare(printed: Sequence[dict], expected: Sequence[dict]) -> None:
    if len(printed) != len(expected):
        raise DifferenceError(f"{len(printed)} lines, expected {len(expected)}: {printed}")
    for line, wanted in zip(printed, expected, strict=True):
        if not _is_same(line, wanted):
            raise DifferenceError(f"printed  {line}\nexpected {wanted}")


def compare_attempts(refused_at_s: Sequence[float], *, retry_s: float) -> None:
    """The call without a worker was tried as often as the retry policy says, and not before its time."""
    if len(refused_at_s) != MAX_ATTEMPTS:
        raise DifferenceError(f"{len(refused_at_s)} attempts at a call that is UNAVAILABLE, expected {MAX_ATTEMPTS}")
    waits_s = [after - before for before, after in pairwise(refused_at_s)]
    if min(waits_s) < 0.9 * retry_s:  # the two ends of a wait are seen at the server, not where it is kept
        raise DifferenceError(f"waits of {waits_s} s, told {retry_s} s")


def _is_same(found: object, wanted: object) -> bool:
    match wanted:
        case dict():
            return isinstance(found, dict) and found.keys() == wanted.keys() and _are_same(found, wanted)
        case list():
            return isinstance(found, list) and len(found) == len(wanted) and all(map(_is_same, found, wanted))
        case float():
            return isinstance(found, int | float) and math.isclose(found, wanted, rel_tol=0, abs_tol=TOLERANCE)
        case _:
            return found == wanted


def _are_same(found: dict, wanted: dict) -> bool:
    """Status codes are spelt as each language spells them: INVALID_ARGUMENT, InvalidArgument."""
    return all(
        _plain(found[name]) == _plain(wanted[name]) if name == "code" else _is_same(found[name], wanted[name])
        for name in wanted
    )


def _plain(code: str) -> str:
    return code.replace("_", "").lower()
