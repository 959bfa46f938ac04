"""How the benchmark talks to a peer: lines on stdin, a JSON object a line on stdout.

The first object is {"ready": true, "name": ..., "version": ...}. Then the benchmark writes, a line each,

    NAME               run the workload once: {"cpu_s": ..., "wall_s": ...}
    vectors NAME PATH  run it and save the vectors, (sequences, hidden size) float32, as .npy: {"saved": PATH}

and closes stdin to end the peer. NAME is a key of WORKLOADS_JSON, {NAME: [[token id, ...], ...], ...}, and may hold
spaces; PATH may not. Some libraries normalise their vectors: compare directions. An error ends the peer, loudly.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

NUM_THREADS = 2
# Read when a library is loaded. Spinning threads would count as work, and do harm where cores are shared.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": str(NUM_THREADS),
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_SAVE = "vectors "

Sequences: TypeAlias = Sequence[Sequence[int]]
Vectors: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a peer is to load, and the options that are its own."""

    checkpoint: Path
    dtype: str
    max_length: int  # of all sequences of all workloads
    options: argparse.Namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A loaded library. `prepare` drops what earlier runs of these sequences left behind; it is not measured."""

    name: str
    version: str
    run: Callable[[Sequences], Vectors]
    prepare: Callable[[Sequences], None] = lambda _sequences: None


def serve(parser: argparse.ArgumentParser, load: Callable[[Setting], Peer]) -> None:
    """Load the peer that the command line asks for, and answer until stdin ends."""
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("workloads", type=Path)
    parser.add_argument("dtype", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    os.environ.update(_ENVIRONMENT)
    workloads: dict[str, Sequences] = json.loads(options.workloads.read_text())
    max_length = max(len(ids) for sequences in workloads.values() for ids in sequences)
    with _own_stdout() as answers:
        peer = load(Setting(checkpoint=options.checkpoint, dtype=options.dtype, max_length=max_length, options=options))
        _say(answers, {"ready": True, "name": peer.name, "version": peer.version})
        for line in sys.stdin:
            _say(answers, _answer(peer, workloads, line.rstrip("\n")))


@contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Stdout for answers only: whatever a library prints goes to stderr, even from native code."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        yield answers


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _answer(peer: Peer, workloads: dict[str, Sequences], line: str) -> dict[str, Any]:
    if not line.startswith(_SAVE):
        return _measure(peer, workloads[line])
    name, path = line.removeprefix(_SAVE).rsplit(" ", maxsplit=1)
    peer.prepare(workloads[name])
    np.save(path, peer.run(workloads[name]).astype(np.float32))
    return {"saved": path}


def _measure(peer: Peer, sequences: Sequences) -> dict[str, float]:
    peer.prepare(sequences)
    cpu_s, wall_s = _cpu_s(), time.perf_counter()
    peer.run(sequences)
    return {"cpu_s": _cpu_s() - cpu_s, "wall_s": time.perf_counter() - wall_s}


def _cpu_s() -> float:
    """Of all threads of this process, and of children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
