"""`python -m tests.support.floors EXTRA...`: the lowest versions that extras promise to work with, as constraints."""

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

LOWER_BOUND = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")


def floors(extras: Sequence[str]) -> Iterator[str]:
    """Raises ValueError for a dependency without a lower bound."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    for extra in extras:
        for dependency in project["optional-dependencies"][extra]:
            if not dependency.startswith(f"{project['name']}["):  # another extra of ours
                yield _floor(dependency)


def _floor(dependency: str) -> str:
    bound = LOWER_BOUND.fullmatch(dependency)
    if bound is None:
        raise ValueError(f"{dependency!r} is not NAME>=VERSION")
    return f"{bound[1]}=={bound[2]}"


if __name__ == "__main__":
    print("\n".join(floors(sys.argv[1:])))
