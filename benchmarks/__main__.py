"""`python -m benchmarks`: a service on a small checkpoint, measured beside sentence-transformers in the same run.

The checkpoint's weights are random and its shape is small: what counts are the ratios, and the service's own cost.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer

from benchmarks.service import Load, run_load
from benchmarks.texts import mixed_texts
from worker.make_checkpoint import make_checkpoint
from worker.model.task import ModelTask

TABLE_WIDTH = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run measured; the library's rates are texts per second."""

    loads: Sequence[Load]
    in_process: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--checkpoint", help="folder of an embedding model; else a small one is made")
    parser.add_argument("--texts", type=int, default=512, help="texts of each load (512)")
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(arguments.checkpoint or _small_checkpoint(folder))
        figures = measure(checkpoint, mixed_texts(arguments.texts, seed=1))
    show(figures)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(asdict(figures), indent=1) + "\n")


def _small_checkpoint(folder: str) -> Path:
    checkpoint = Path(folder) / "small"
    make_checkpoint(checkpoint, task=ModelTask.EMBED, seed=0)
    return checkpoint


def measure(checkpoint: Path, texts: Sequence[str]) -> Figures:
    with serving(checkpoint) as address:
        name = checkpoint.name
        loads = [
            run_load(address, name, texts[:128], batch=1, in_flight=1, name="1 text a call, 1 in flight"),
            run_load(address, name, texts, batch=1, in_flight=32, name="1 text a call, 32 in flight"),
            run_load(address, name, texts, batch=64, in_flight=4, name="64 texts a call, 4 in flight"),
        ]
    rates = {f"sentence-transformers, batch {batch}": in_process(checkpoint, texts, batch) for batch in (8, 32)}
    return Figures(loads=loads, in_process=rates)


@contextmanager
def serving(checkpoint: Path) -> Iterator[str]:
    """A service of its own, as qwen3-serve starts it; its address."""
    command = [sys.executable, "-m", "standalone", f"embedding:{checkpoint}", "--listen", "127.0.0.1:0"]
    command += ["--log-level", "warning"]
    patient = os.environ | {"QWEN3_MAX_WAIT_S": "3600"}  # all texts come at once, and none is to be refused
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=patient) as process:  # noqa: S603 - our own
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield line.removeprefix("ready ").strip()
        finally:
            process.terminate()


def in_process(checkpoint: Path, texts: Sequence[str], batch: int) -> float:
    """Texts per second of the library alone, in float32, without any service around it."""
    model = SentenceTransformer(str(checkpoint), device="cpu", model_kwargs={"dtype": "float32"}, local_files_only=True)
    model.encode(list(texts[:batch]), batch_size=batch)
    started = time.perf_counter()
    model.encode(list(texts), batch_size=batch)
    return len(texts) / (time.perf_counter() - started)


def show(figures: Figures) -> None:
    table = Table("load", "texts/s", "tokens/s", "p50 ms", "p99 ms", "queue ms", "tokenize ms", "compute ms")
    for load in figures.loads:
        numbers = (load.texts_per_s, load.tokens_per_s, load.p50_ms, load.p99_ms)
        times = (load.queue_ms, load.tokenize_ms, load.compute_ms)
        table.add_row(load.name, *(f"{number:,.1f}" for number in (*numbers, *times)))
    for name, rate in figures.in_process.items():
        table.add_row(name, f"{rate:,.1f}", *[""] * 6)
    Console(width=TABLE_WIDTH).print(table)


if __name__ == "__main__":
    main()
