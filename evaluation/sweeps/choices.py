"""What a sweep tries: widths, encodings, and a second look at what encoded vectors find."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from evaluation.errors import EvaluationError
from qwen3_client.options import Encoding

_SMALL_ENCODINGS = ("int8", "binary")  # those that are worth rescoring


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A second look at what encoded vectors find: see Settings."""

    float_queries: bool = False
    rescore: int = 0

    @classmethod
    def parse(cls, text: str) -> "Look":
        """Of "no", "queries" or a number of documents. Raises EvaluationError for anything else."""
        if text == "no":
            return cls()
        if text == "queries":
            return cls(float_queries=True)
        if text.isdecimal() and int(text):
            return cls(rescore=int(text))
        raise EvaluationError(f"--rescore {text!r}: is no, queries or a number of documents")

    def __str__(self) -> str:
        return "queries" if self.float_queries else str(self.rescore or "no")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One row of a pass; 0 dimensions are the model's own."""

    dimensions: int
    encoding: Encoding
    look: Look


def choices(dimensions: Iterable[int], encodings: Iterable[Encoding], looks: Iterable[Look]) -> list[Choice]:
    """All combinations, without second looks at what is float already."""
    return [
        Choice(dimensions=width, encoding=encoding, look=look)
        for width, encoding, look in product(dimensions, encodings, looks)
        if look == Look() or encoding in _SMALL_ENCODINGS
    ]
