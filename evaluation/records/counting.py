"""What a task asked for and what of it was sent."""

from dataclasses import dataclass, fields

import numpy as np

from evaluation.records.rows import Rows

READ_FIELDS = [("num_tokens", "<i4"), ("truncated", "?")]  # of a row: what was read for an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of one task or several. A text that mteb asks for twice counts twice, but is sent once.

    The first five are of all texts (for a reranker: of pairs of query and document), the last three of those that
    went to the service in this run: `seconds` is the time that they took. `num_refused` are pairs whose query leaves
    no room for a document.
    """

    num_texts: int = 0
    num_tokens: int = 0
    num_truncated: int = 0
    num_placeholders: int = 0
    num_refused: int = 0
    num_sent_texts: int = 0
    num_sent_tokens: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, rows: Rows, *, num_placeholders: int) -> "Counts":
        """What was asked for, of its answers: they have READ_FIELDS."""
        return cls(
            num_texts=len(rows),
            num_tokens=int(rows["num_tokens"].sum(dtype=np.int64)),
            num_truncated=int(rows["truncated"].sum()),
            num_placeholders=num_placeholders,
        )

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    @property
    def tokens_per_s(self) -> float:
        """Of what was sent; 0 where nothing was."""
        return self.num_sent_tokens / self.seconds if self.seconds else 0.0


class Tally:
    """Counts that are added to while a task runs."""

    def __init__(self) -> None:
        self._counts = Counts()

    def add(self, counts: Counts) -> None:
        self._counts += counts

    def take(self) -> Counts:
        """All since the last time."""
        counts, self._counts = self._counts, Counts()
        return counts
