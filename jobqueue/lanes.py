"""The two lanes of a queue."""

from enum import IntEnum


class Lane(IntEnum):
    """Values equal the public contract's priorities; a test holds them together."""

    INTERACTIVE = 1
    BULK = 2

    @property
    def key(self) -> str:
        """The lane's name in Redis."""
        return "hi" if self is Lane.INTERACTIVE else "lo"

    @classmethod
    def from_key(cls, key: str) -> "Lane":
        return {"hi": cls.INTERACTIVE, "lo": cls.BULK}[key]
