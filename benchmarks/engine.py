"""`python -m benchmarks.engine`: the packed engine alone, beside itself without sharing and transformers, in one run.

Real 0.6B layers, four of them, random weights, on the CPU. Engines take turns; CPU seconds are compared, since wall
time on shared cores says little. Tokens are those of the texts, whatever an engine computes of them.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModel

from jobqueue.messages import TokenIds
from worker.make_checkpoint import PUBLISHED_SHAPES, make_checkpoint
from worker.model.attention import select_attention
from worker.model.checkpoint import resolve_checkpoint
from worker.model.qwen3 import Qwen3
from worker.model.task import ModelTask
from worker.model.weights import load_weights
from worker.packing import pack

CPU = torch.device("cpu")
END_OF_TEXT = 151_643
NEVER = 2**31  # no agreement is that long: the plain plan
PADDED_BATCH = 32
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Engine = Callable[[Sequence[TokenIds]], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One workload in one dtype: median CPU seconds of each engine, and tokens before and after sharing."""

    workload: str
    dtype: str
    num_tokens: int
    num_computed: int
    cpu_s: Mapping[str, float]


def workloads() -> dict[str, list[TokenIds]]:
    chance = random.Random(1)

    def ids(num: int) -> list[int]:
        return [chance.randrange(END_OF_TEXT) for _ in range(num)]

    instruction, query = ids(40), ids(90)
    sequences = {
        "mixed 8-512": [ids(int(8 * 64 ** chance.random())) for _ in range(32)],
        "64 queries, one instruction": [instruction + ids(chance.randrange(5, 20)) for _ in range(64)],
        "rerank 1 x 50": [query + ids(chance.randrange(50, 200)) for _ in range(50)],
    }
    return {name: [array("i", ids) for ids in found] for name, found in sequences.items()}


def ours(folder: Path, dtype: str, *, min_shared: int | None = None) -> Engine:
    checkpoint = resolve_checkpoint(str(folder), task=None, name=None, revision="bench")
    weights = load_weights(checkpoint.weight_files, checkpoint.config, device=CPU, dtype=DTYPES[dtype], yes_no=None)
    model = Qwen3(checkpoint.config, weights, select_attention(CPU, DTYPES[dtype])[1])
    options = {} if min_shared is None else {"min_shared": min_shared}
    return lambda sequences: model.forward(pack(sequences, CPU, **options))


def padded(folder: Path, dtype: str) -> Engine:
    """What transformers and sentence-transformers do: left padding, batches of 32 sorted by length."""
    model = AutoModel.from_pretrained(folder, dtype=DTYPES[dtype]).eval()

    def run(sequences: Sequence[TokenIds]) -> Tensor:
        by_length = sorted(sequences, key=len)
        batches = [by_length[start : start + PADDED_BATCH] for start in range(0, len(by_length), PADDED_BATCH)]
        with torch.inference_mode():
            return torch.cat([_last_hidden(model, batch) for batch in batches])

    return run


def _last_hidden(model: torch.nn.Module, batch: Sequence[TokenIds]) -> Tensor:
    longest = max(map(len, batch))
    ids = torch.full((len(batch), longest), END_OF_TEXT)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(batch):
        ids[row, longest - len(sequence) :] = torch.tensor(sequence)
        mask[row, longest - len(sequence) :] = 1
    hidden: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state[:, -1]
    return hidden


def measure(folder: Path, dtype: str, *, repeats: int) -> list[Row]:
    engines = {
        "shared": ours(folder, dtype),
        "plain": ours(folder, dtype, min_shared=NEVER),
        "transformers": padded(folder, dtype),
    }
    return [_measure(name, sequences, dtype, engines, repeats) for name, sequences in workloads().items()]


def _measure(name: str, sequences: Sequence[TokenIds], dtype: str, engines: Mapping[str, Engine], repeats: int) -> Row:
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    for turn in range(repeats + 1):
        for engine, run in engines.items():
            started = time.process_time()
            run(sequences)
            if turn:  # the first one warms up
                times[engine].append(time.process_time() - started)
    return Row(
        workload=name,
        dtype=dtype,
        num_tokens=sum(map(len, sequences)),
        num_computed=pack(sequences, CPU).num_tokens,
        cpu_s={engine: statistics.median(found) for engine, found in times.items()},
    )


def show(rows: Sequence[Row]) -> None:
    table = Table("workload", "dtype", "tokens", "computed", "shared s", "plain s", "transformers s", "ratios")
    for row in rows:
        shared, plain, library = (row.cpu_s[engine] for engine in ("shared", "plain", "transformers"))
        ratios = f"{plain / shared:.2f} to plain, {library / shared:.2f} to transformers"
        numbers = (str(row.num_tokens), str(row.num_computed), f"{shared:.2f}", f"{plain:.2f}", f"{library:.2f}")
        table.add_row(row.workload, row.dtype, *numbers, ratios)
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="turns of each engine, after one to warm up (3)")
    parser.add_argument("--json", help="file to write the figures to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "four-layers"
        shape = replace(PUBLISHED_SHAPES["0.6B"], num_hidden_layers=4)
        make_checkpoint(checkpoint, task=ModelTask.EMBED, seed=1, shape=shape)
        rows = [row for dtype in DTYPES for row in measure(checkpoint, dtype, repeats=arguments.repeats)]
    show(rows)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
