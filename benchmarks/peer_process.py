"""A peer as the benchmark sees it: a process that runs a workload when told, by `benchmarks/peers/protocol.py`."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]


class PeerError(Exception):
    """The peer ended, and with it the run: its own words are on stderr."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one run of a workload took."""

    cpu_s: float
    wall_s: float


class PeerProcess:
    """A context manager: the peer is loaded inside."""

    def __init__(
        self,
        module: str,
        checkpoint: Path,
        workloads: Path,
        dtype: str,
        *,
        python: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        command = [python or sys.executable, "-m", module, str(checkpoint), str(workloads), dtype, *options]
        path = os.pathsep.join((str(ROOT), str(ROOT / "protos")))
        self._module = module
        self._process = subprocess.Popen(  # noqa: S603 - our own modules
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"},
        )

    def __enter__(self) -> Self:
        self._answer()  # that it is ready
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its stdin, which ends it

    def run(self, workload: str) -> Turn:
        answer = self._ask(workload)
        return Turn(cpu_s=answer["cpu_s"], wall_s=answer["wall_s"])

    def vectors(self, workload: str, path: Path) -> NDArray[np.float32]:
        """One row per sequence of the workload, float32; not all libraries leave their length as it is."""
        self._ask(f"vectors {workload} {path}")
        found: NDArray[np.float32] = np.load(path)
        return found

    def _ask(self, line: str) -> dict[str, Any]:
        if self._process.stdin is None:
            raise PeerError(self._module)
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            raise PeerError(f"{self._module} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
