"""The services that a sweep compares, as a command line names them."""

from dataclasses import dataclass, fields
from typing import Any, get_args

from evaluation.errors import EvaluationError
from evaluation.protocol.settings import Dtype

_SWITCH = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A served embedding model, and how its workers were started: the service does not tell, so the user states it."""

    target: str
    dtype: Dtype
    engine: str
    prefix_cache: bool = True
    model: str = ""

    @classmethod
    def parse(cls, text: str) -> "Service":
        """Of `HOST:PORT,dtype=bfloat16,engine=packed`, perhaps with `prefix_cache=no` and `model=ID`.

        Raises EvaluationError for anything else.
        """
        target, *said = text.split(",")
        stated: dict[str, Any] = dict(_fact(text, fact) for fact in said)
        known = [field.name for field in fields(cls)][1:]
        missing = [name for name in ("dtype", "engine") if not stated.get(name)]
        unknown = [name for name in stated if name not in known]
        if not target or missing or unknown:
            raise EvaluationError(
                f"--service {text!r}: needs HOST:PORT,dtype=...,engine=..., and may have prefix_cache=no and model=..."
            )
        if stated["dtype"] not in get_args(Dtype):
            raise EvaluationError(f"--service {text!r}: dtype is one of {', '.join(get_args(Dtype))}")
        return cls(target=target, **stated)


def _fact(text: str, fact: str) -> tuple[str, object]:
    name, _, value = fact.partition("=")
    if name != "prefix_cache":
        return name, value
    if value not in _SWITCH:
        raise EvaluationError(f"--service {text!r}: prefix_cache is yes or no")
    return name, _SWITCH[value]
