"""API keys: `q3_ID_SECRET`, of which a gateway knows the id and the secret's SHA-256.

A fast hash is enough, since nobody can guess 256 random bits; a slow one would be paid for at every call.
"""

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Self

PREFIX = "q3"  # for those who scan for lost secrets
ID_BYTES = 5
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """`id` is no secret: logs and the access file name the key by it."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        return cls(id=secrets.token_hex(ID_BYTES), secret=secrets.token_urlsafe(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for what is no key."""
        prefix, _, rest = text.partition("_")
        id_, _, secret = rest.partition("_")
        return cls(id=id_, secret=secret) if prefix == PREFIX and id_ and secret else None

    @property
    def sha256(self) -> str:
        """Of the secret, in hexadecimal: what is kept of it."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def reveal(self) -> str:
        """The key as its owner sends it."""
        return f"{PREFIX}_{self.id}_{self.secret}"
