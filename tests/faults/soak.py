"""`python -m tests.faults.soak`: a moderate load for half an hour, and the memory of every process meanwhile.

Every answer is checked by value. What is watched is resident memory: what grows without end would be a leak.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.faults.answers import TOKENIZER_FILE, byte_tokenizer
from tests.faults.checks import queues, until_idle
from tests.faults.load import Clients, End, Load
from tests.faults.plans import echo
from tests.faults.questions import EchoOracle, mixed
from tests.faults.redis_servers import server
from tests.faults.service import Service, service
from tests.faults.stage import Files, Size

EVERY_S = 5.0
NUM_ROWS = 6
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Resident MiB of the gateway and of the largest worker; Redis's own count and its resident MiB."""

    at_s: float
    num_calls: int
    gateway: float
    worker: float
    redis_used: float
    redis_resident: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the load (30)")
    parser.add_argument("--per-s", type=float, default=50.0, help="calls a second (50)")
    options = parser.parse_args()
    load, samples, left = asyncio.run(soak(minutes=options.minutes, per_s=options.per_s))
    show(load, samples)
    Console().print("idle at the end" if not left else f"left: {left}")


async def soak(*, minutes: float, per_s: float) -> tuple[Load, list[Sample], list[str]]:
    """One gateway, three workers, a Redis without persistence."""
    seconds = minutes * 60
    with tempfile.TemporaryDirectory(prefix="q3s", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        files = Files(tokenizer=folder / TOKENIZER_FILE, ledger=folder / "ledger")
        files.tokenizer.write_bytes(byte_tokenizer())
        plan = echo(files, Size(num_calls=0, is_long=True))
        async with (
            server(folder) as redis,
            service(redis, folder, workers=plan, num_gateways=1, gateway_options=()) as found,
        ):
            clients = Clients([gateway.address for gateway in found.gateways])
            oracle = EchoOracle(files.tokenizer.read_bytes())
            load = Load(clients, mixed, oracle, num_calls=int(seconds * per_s), seconds=seconds)
            samples = await _watched(load, redis, found)
            await clients.close()
            return load, samples, await until_idle(redis, queues())


async def _watched(load: Load, redis, found: Service) -> list[Sample]:
    """The load, and samples while it lasts."""
    samples, began_at = [], time.monotonic()
    running = asyncio.create_task(load.run())
    while not running.done():
        await asyncio.wait([running], timeout=EVERY_S)
        samples.append(await _sample(time.monotonic() - began_at, load, redis, found))
    await running
    return samples


async def _sample(at_s: float, load: Load, redis, found: Service) -> Sample:
    async with redis.client() as client:
        info = await client.info("memory")
    return Sample(
        at_s=at_s,
        num_calls=len(load.outcomes),
        gateway=_resident(found.gateways[0].child.pid),
        worker=max(_resident(worker.child.pid) for worker in found.workers),
        redis_used=info["used_memory"] / MIB,
        redis_resident=info["used_memory_rss"] / MIB,
    )


def _resident(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / MIB


def show(load: Load, samples: Sequence[Sample]) -> None:
    table = Table(title="Resident MiB, medians of each sixth of the load")
    for column in ("minutes", "calls answered", "gateway", "largest worker", "Redis, its own count", "Redis, resident"):
        table.add_column(column, justify="right")
    size = max(len(samples) // NUM_ROWS, 1)
    for start in range(0, size * NUM_ROWS, size):
        part = samples[start : start + size]
        if not part:
            break
        figures = [statistics.median(getattr(sample, name) for sample in part) for name in _COLUMNS]
        last = part[-1]
        table.add_row(f"{last.at_s / 60:.0f}", f"{last.num_calls:,}", *(f"{figure:.1f}" for figure in figures))
    Console(width=110).print(table)
    ends = {end.value: sum(outcome.end is end for outcome in load.outcomes) for end in End}
    Console().print({name: count for name, count in ends.items() if count})


_COLUMNS = ("gateway", "worker", "redis_used", "redis_resident")


if __name__ == "__main__":
    main()
