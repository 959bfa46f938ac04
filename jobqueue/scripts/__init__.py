"""The atomic steps, one Lua file each; every file's head names its arguments and reply, `common.lua` the keys."""

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
    """The script of that name, behind what all scripts share."""
    folder = files(__package__)
    source = "\n".join(folder.joinpath(f"{part}.lua").read_text() for part in ("common", name))
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
