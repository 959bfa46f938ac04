"""What messages about settings share: no password in them, and what may have been meant."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_HIDDEN = "***"
_NEAR = 0.8  # all variables have QWEN3_ in common


def hide_passwords(value: Any) -> Any:
    """`value` with the user and password of a URL in it, and passwords in its query, replaced by ***."""
    match value:
        case str():
            value = re.sub(r"://.*@", f"://{_HIDDEN}@", value, flags=re.DOTALL)
            return re.sub(r"(password=)[^&]*", rf"\1{_HIDDEN}", value)
        case list():
            return [hide_passwords(item) for item in value]
        case dict():
            return {key: hide_passwords(item) for key, item in value.items()}
    return value


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; is --redis meant?`, or nothing where no known word is near."""
    near = get_close_matches(word, known, n=1, cutoff=_NEAR)
    return f"; is {near[0]} meant?" if near else ""
