"""The time of one call at a time through the whole service, and where it goes."""

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping

import grpc.aio
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.gateway_sides import Side, Sides
from benchmarks.queue import our_side
from qwen3.inference.v1 import embedding_pb2, embedding_pb2_grpc

NUM_CALLS = 1_000
ROUNDS = 5

Hops = Mapping[str, float]


def show_latency(found: Sides, text: str, console: Console) -> Hops:
    """Medians in ms; printed, and returned."""
    hops = uvloop.run(_measure(found, text))
    table = Table(title="One call at a time, median of ms")
    table.add_column("hop")
    table.add_column("ms", justify="right")
    for name, ms in hops.items():
        table.add_row(name, f"{ms:.3f}")
    console.print(table)
    return hops


async def _measure(found: Sides, text: str) -> Hops:
    rounds: dict[str, list[float]] = {}
    async with our_side(found.redis_url) as ask:
        for _ in range(ROUNDS):
            bare, _none = await _of_calls(found.named("bare"), text)
            service, stages = await _of_calls(found.named("off"), text)
            queue = await _median_ms(ask)
            figures = {"bare gRPC": bare, "the queue's own round trip": queue, "service": service, **stages}
            for name, ms in figures.items():
                rounds.setdefault(name, []).append(ms)
    middles = {name: statistics.median(values) for name, values in rounds.items()}
    ratio = middles["service"] / (middles["bare gRPC"] + middles["the queue's own round trip"])
    return middles | {"service / (bare gRPC + queue)": ratio}


async def _of_calls(side: Side, text: str) -> tuple[float, Hops]:
    """The median of calls to a side, and of what it says of its stages."""
    timings = []
    async with grpc.aio.insecure_channel(side.address) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        request = embedding_pb2.EmbedRequest(inputs=[text])

        async def call() -> None:
            response = await stub.Embed(request)
            timings.append(response.timing)

        whole = await _median_ms(call)
    inside = _middle_ms([timing.total_us for timing in timings])
    tokenize = _middle_ms([timing.tokenize_us for timing in timings])
    waiting = _middle_ms([timing.queue_us for timing in timings])
    return whole, {
        "  of it gRPC and client": whole - inside,
        "  of it tokenising": tokenize,
        "  of it admitted and waiting for the batch": waiting,
        "  of it the rest: admission, answer, reply": inside - tokenize - waiting,
    }


async def _median_ms(ask: Callable[[], Awaitable[object]]) -> float:
    seconds = []
    for _ in range(NUM_CALLS // ROUNDS):
        started = time.perf_counter()
        await ask()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1e3


def _middle_ms(values_us: list[int]) -> float:
    return statistics.median(values_us) / 1e3
