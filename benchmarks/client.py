"""`python -m benchmarks.client`: what the Python client costs beside bare stubs, in CPU of the calling process.

The server is another process, which answers vectors of zeros at once. Stubs get the same arrays out of the same
replies, but have no deadline, retries, batching or typed errors. The sides take turns, so that noise meets all.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.queue_servers import child
from qwen3.inference.v1 import embedding_pb2, embedding_pb2_grpc
from qwen3_client import AsyncClient, Client
from qwen3_client.batches import MAX_CHUNK_TEXTS

TEXT = "What is the capital of China, and how many people live there?"
ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`num_calls` calls of `num_texts` each; a bulk one goes over a stream."""

    name: str
    num_texts: int
    num_calls: int
    is_bulk: bool = False


WORKLOADS = (
    Workload(name="1 text", num_texts=1, num_calls=1000),
    Workload(name="32 texts", num_texts=32, num_calls=300),
    Workload(name="250 texts", num_texts=250, num_calls=60),
    Workload(name="bulk of 16,384", num_texts=16_384, num_calls=1, is_bulk=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU of the calling process, all of its threads, in us; the median of the rounds."""

    side: str
    workload: str
    cpu_us_per_call: float
    cpu_us_per_1000_vectors: float


Side = Callable[[Workload], None]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of every side ({ROUNDS})")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    with child("benchmarks.gateway_bare") as (_, address), asyncio.Runner() as runner:
        costs = measure(sides(address, runner), rounds=arguments.rounds)
    show(costs)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")


def sides(address: str, runner: asyncio.Runner) -> dict[str, Side]:
    """All of them, each for blocking use."""

    def wait_for(side: Callable[[str, Workload], Awaitable[None]]) -> Side:
        async def run(workload: Workload) -> None:
            await side(address, workload)

        return lambda workload: runner.run(run(workload))

    return {
        "stubs": lambda workload: stubs(address, workload),
        "Client": lambda workload: client(address, workload),
        "aio stubs": wait_for(aio_stubs),
        "AsyncClient": wait_for(async_client),
    }


def stubs(address: str, workload: Workload) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        for _ in range(workload.num_calls):
            if workload.is_bulk:
                _joined([_array(answer.result) for answer in stub.EmbedStream(_messages(workload))])
            else:
                _array(stub.Embed(_request(workload)))


def client(address: str, workload: Workload) -> None:
    texts = [TEXT] * workload.num_texts
    with Client(address) as found:
        for _ in range(workload.num_calls):
            _check(found.embed(texts).vectors, workload)


async def aio_stubs(address: str, workload: Workload) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        for _ in range(workload.num_calls):
            if workload.is_bulk:
                stream = stub.EmbedStream(_aio_messages(workload))
                _joined([_array(answer.result) async for answer in stream])
            else:
                _array(await stub.Embed(_request(workload)))


async def async_client(address: str, workload: Workload) -> None:
    texts = [TEXT] * workload.num_texts
    async with AsyncClient(address) as found:
        for _ in range(workload.num_calls):
            _check((await found.embed(texts)).vectors, workload)


def _request(workload: Workload) -> embedding_pb2.EmbedRequest:
    return embedding_pb2.EmbedRequest(inputs=[TEXT] * workload.num_texts)


def _messages(workload: Workload) -> Iterator[embedding_pb2.EmbedStreamRequest]:
    yield embedding_pb2.EmbedStreamRequest(config=embedding_pb2.EmbedConfig())
    for number in range(workload.num_texts // MAX_CHUNK_TEXTS):
        chunk = embedding_pb2.EmbedChunk(chunk_id=number, inputs=[TEXT] * MAX_CHUNK_TEXTS)
        yield embedding_pb2.EmbedStreamRequest(chunk=chunk)


async def _aio_messages(workload: Workload) -> AsyncIterator[embedding_pb2.EmbedStreamRequest]:
    for message in _messages(workload):
        yield message


def _array(response: embedding_pb2.EmbedResponse) -> NDArray[Any]:
    packed = b"".join(embedding.packed for embedding in response.embeddings)
    return np.frombuffer(packed, "<f4").reshape(len(response.embeddings), -1)


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts)


def _check(vectors: NDArray[Any], workload: Workload) -> None:
    if len(vectors) != workload.num_texts:
        raise RuntimeError(f"{len(vectors)} vectors of {workload.num_texts} texts")


def measure(found: dict[str, Side], *, rounds: int) -> list[Cost]:
    """Of every workload and side."""
    runs: dict[tuple[str, str], list[Cost]] = {}
    for number in range(rounds + 1):
        for workload in WORKLOADS:
            for name, side in found.items():
                cost = _measured(name, side, workload)
                if number:  # the first one warms up
                    runs.setdefault((workload.name, name), []).append(cost)
    return [_median(costs) for costs in runs.values()]


def _measured(name: str, side: Side, workload: Workload) -> Cost:
    before = time.process_time()
    side(workload)
    cpu_us = (time.process_time() - before) * 1e6
    num_vectors = workload.num_calls * workload.num_texts
    return Cost(
        side=name,
        workload=workload.name,
        cpu_us_per_call=cpu_us / workload.num_calls,
        cpu_us_per_1000_vectors=cpu_us / num_vectors * 1000,
    )


def _median(costs: Sequence[Cost]) -> Cost:
    middle = statistics.median_low(cost.cpu_us_per_call for cost in costs)
    return next(cost for cost in costs if cost.cpu_us_per_call == middle)


def show(costs: Sequence[Cost]) -> None:
    table = Table(title="CPU of the calling process; vectors of 1,024 float32 values")
    for column in ("workload", "side", "CPU us/call", "CPU us/1,000 vectors", "stubs = 1"):
        table.add_column(column, justify="left" if column in ("workload", "side") else "right")
    bare: Cost | None = None
    for cost in costs:
        bare = cost if "stubs" in cost.side or bare is None else bare
        cells = f"{cost.cpu_us_per_call:,.0f}", f"{cost.cpu_us_per_1000_vectors:,.0f}"
        ratio = cost.cpu_us_per_call / bare.cpu_us_per_call
        table.add_row(cost.workload, cost.side, *cells, f"{ratio:.2f}", end_section=cost.side == "AsyncClient")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
