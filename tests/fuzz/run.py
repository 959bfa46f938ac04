"""A gateway with everything on, before echo workers, is sent all of it; and then has to be as it was before."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import psutil

from gateway.identity.api_keys import ApiKey
from jobqueue.messages import Operation
from qwen3.inference.v1 import embedding_pb2
from tests.fuzz.cases import make_case
from tests.fuzz.oddities import oddities, play
from tests.fuzz.outcomes import LIMIT_S
from tests.fuzz.rpcs import all_rpcs
from tests.fuzz.sending import Findings, send_all
from tests.support.echo import EchoWorker, eventually
from tests.support.http import Scrape, http_address
from tests.support.processes import Process, gateway
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import Stubs

NUM_CHANNELS = 4
NUM_ROUNDS = 10  # of which the first one warms up
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Messages of each rpc, and connections with random frames."""

    num_messages: int
    num_random: int


@dataclass(slots=True, kw_only=True)
class Report:
    """`rss_mib` after each round. `problems` are what is wrong with the gateway after all of it."""

    found: Findings = field(default_factory=Findings)
    connections: Counter[str] = field(default_factory=Counter)
    rss_mib: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def growth_mib(self) -> float:
        return self.rss_mib[-1] - self.rss_mib[0]


def fuzz(size: Size, *, seed: int, folder: Path, say: Callable[[str], None]) -> Report:
    """Every rpc in turns, then the odd connections."""
    report, key = Report(), ApiKey.new()
    with (
        redis_server(embedded_binary()) as url,
        _workers(url) as workers,
        _gateway(url, key, folder) as (process, address),
    ):
        asyncio.run(_send_rounds(size, seed, address, key, process, report, say))
        _play_oddities(size, seed, address, report)
        report.problems += _problems(process, address, key, workers)
    return report


@contextlib.contextmanager
def _workers(url: str) -> Iterator[list[EchoWorker]]:
    with EchoWorker(url, "emb") as embedding, EchoWorker(url, "rer", Operation.RERANK) as reranking:
        yield [embedding, reranking]


@contextlib.contextmanager
def _gateway(url: str, key: ApiKey, folder: Path) -> Iterator[tuple[Process, str]]:
    """With access control, a quota that nobody meets, a cache, metrics and traces that nobody collects."""
    access = folder / "access.toml"
    tenant = '[tenants.fuzz]\nmodels = ["*"]\nquota = { requests_per_s = 1000000 }\n'
    access.write_text(f'{tenant}[tenants.fuzz.keys.{key.id}]\nsha256 = "{key.sha256}"\n')
    options = ["--access", str(access), "--cache", "*", "--http-listen", "127.0.0.1:0"]
    traces = ["--otlp-endpoint", "http://127.0.0.1:9", "--trace-share", "0.5"]
    with gateway(url, *options, *traces, "--max-wait-s", "600") as found:
        yield found


async def _send_rounds(
    size: Size, seed: int, address: str, key: ApiKey, process: Process, report: Report, say: Callable[[str], None]
) -> None:
    step, served = max(size.num_messages // NUM_ROUNDS, 1), psutil.Process(process.pid)
    async with _channels(address) as channels:
        for number in range(NUM_ROUNDS):
            for rpc in all_rpcs():
                cases = (make_case(rpc, each, seed=seed) for each in range(number * step, (number + 1) * step))
                await send_all(channels, cases, key.reveal(), report.found)
            report.rss_mib.append(served.memory_info().rss / MIB)
            say(f"round {number + 1}: {report.found.num_calls} calls, RSS {report.rss_mib[-1]:.0f} MiB")


@contextlib.asynccontextmanager
async def _channels(address: str) -> AsyncIterator[list[grpc.aio.Channel]]:
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=own))
            for _ in range(NUM_CHANNELS)
        ]


def _play_oddities(size: Size, seed: int, address: str, report: Report) -> None:
    for oddity in oddities(seed=seed, num_random=size.num_random):
        try:
            report.connections[play(oddity, address)] += 1
        except TimeoutError:
            report.problems.append(f"{oddity.name}: it hung")


def _problems(process: Process, address: str, key: ApiKey, workers: Sequence[EchoWorker]) -> list[str]:
    """What is wrong with a gateway that has nothing to do."""
    stubs = Stubs(address)
    request = embedding_pb2.EmbedRequest(inputs=["text"])
    answer = stubs.embedding.Embed(request, metadata=_credentials(key.reveal()), timeout=LIMIT_S)
    stubs.channel.close()
    http = http_address(process)
    checks = {
        "no answer": lambda: len(answer.embeddings) == 1,
        "work in the queue": lambda: sum(worker.num_queued() for worker in workers) == 0,
        "calls in flight": lambda: Scrape(http).value("qwen3_calls_in_flight") == 0,
        "bugs": lambda: Scrape(http).value("qwen3_calls_total", code="INTERNAL") == 0,
        "unknown errors": lambda: Scrape(http).value("qwen3_calls_total", code="UNKNOWN") == 0,
    }
    return [name for name, holds in checks.items() if not _holds_in_the_end(holds)] + _odd_lines(process)


def _holds_in_the_end(condition: Callable[[], bool]) -> bool:
    try:
        eventually(condition)
    except AssertionError:
        return False
    return True


def _odd_lines(process: Process) -> list[str]:
    """Lines of the log that are no JSON, or that tell of an exception."""
    lines = process.log.splitlines()
    return [line[:300] for line in lines if not line.startswith("{") or "exception" in json.loads(line)][:5]


def _credentials(key: str) -> Sequence[tuple[str, str]]:
    return (("authorization", f"Bearer {key}"),)
