"""What `[embedding:|rerank:]MODEL` on the command line means."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeAlias, get_args

Task: TypeAlias = Literal["embedding", "rerank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A hub id or a local folder, and its task where the caller says it."""

    name: str
    task: Task | None

    @property
    def served_id(self) -> str:
        """The id that its worker announces: the hub id, or the folder's own name."""
        folder = Path(self.name).expanduser()
        return folder.resolve().name if folder.is_dir() else self.name

    @classmethod
    def parse(cls, text: str) -> Self:
        """`rerank:NAME` or `NAME`. Raises ValueError for another word before the colon, or no name."""
        head, colon, name = text.partition(":")
        # A colon after a slash belongs to a folder's name.
        if not colon or "/" in head:
            return cls(name=_non_empty(text), task=None)
        for task in get_args(Task):
            if head == task:
                return cls(name=_non_empty(name), task=task)
        raise ValueError(f"{head!r} in {text!r} is not a task: embedding:MODEL or rerank:MODEL is expected")


def _non_empty(name: str) -> str:
    if not name:
        raise ValueError("a model's name is missing")
    return name
