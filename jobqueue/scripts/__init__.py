"""The atomic steps, one Lua file each; every file's head names its keys, arguments and reply."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script's source, and the digest that EVALSHA wants."""

    source: str
    digest: str


@cache
def load(name: str) -> Script:
    source = files(__package__).joinpath(f"{name}.lua").read_text()
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
