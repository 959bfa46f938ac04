"""`python -m tests.faults.overload`: ten times what the workers can do, for a minute, through a real gateway.

First what they can do is measured, with more callers than they need. Then calls come open loop at ten times that, three
of ten bulk. Of twenty callers that are refused one comes back when it was told, until it is answered; the others leave.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import grpc.aio
import psutil
from rich.console import Console
from rich.table import Table

from tests.faults.answers import TOKENIZER_FILE, byte_tokenizer
from tests.faults.checks import queues, until_idle
from tests.faults.load import Clients
from tests.faults.plans import embedders
from tests.faults.questions import EchoOracle, Question, embedding_only
from tests.faults.redis_servers import server
from tests.faults.service import service
from tests.faults.stage import Files
from tests.support.wire import refusal

TIMES = 10
TOKENS_PER_S = 4000
PATIENCE_S = 90.0
CAPACITY_S, NUM_CALLERS = 15.0, 64
RETURN_ONE_IN = 20
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call's end. Times in s; `told_s` and `came_back_s` are from its first refusal, where it had one."""

    question: Question
    num_tokens: int = 0
    queue_s: float = 0.0
    told_s: float | None = None
    came_back_s: float = 0.0
    ended_at: float = 0.0
    is_late: bool = False

    @property
    def is_answered(self) -> bool:
        return self.num_tokens > 0


class Crowd:
    """Asks, and notes what becomes of it."""

    def __init__(self, clients: Clients, oracle: EchoOracle) -> None:
        self._clients, self._oracle = clients, oracle
        self.calls: list[Call] = []

    async def closed_loop(self, seconds: float) -> None:
        """As many callers as keep the workers busy."""
        end_at = time.monotonic() + seconds

        async def ask_on(first: int) -> None:
            number = first
            while time.monotonic() < end_at:
                await self.ask(replace(embedding_only(number), is_bulk=False), returns=True)
                number += NUM_CALLERS

        await asyncio.gather(*(ask_on(number) for number in range(NUM_CALLERS)))

    async def open_loop(self, per_s: float, seconds: float) -> None:
        began_at = time.monotonic()
        async with asyncio.TaskGroup() as asked:
            for number in range(int(per_s * seconds)):
                await asyncio.sleep(max(began_at + number / per_s - time.monotonic(), 0))
                asked.create_task(self.ask(embedding_only(number), returns=number % RETURN_ONE_IN == 0))

    async def ask(self, question: Question, *, returns: bool) -> None:
        """One call, and where it `returns`, again when it was told."""
        call, give_up = Call(question=question), time.monotonic() + PATIENCE_S
        attempt, refused_at = 0, 0.0
        while True:
            asked_at = time.monotonic()
            try:
                response = await self._clients.ask(question, attempt, max(give_up - asked_at, 0.001))
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    call = replace(call, is_late=True)
                    break
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                told_s = refusal(error).retry_s
                if call.told_s is None:
                    call, refused_at = replace(call, told_s=told_s), time.monotonic()
                if not returns or time.monotonic() + told_s > give_up:
                    break
                await asyncio.sleep(told_s)
                attempt += 1
            else:
                assert self._oracle.is_right(question, response), "a wrong answer"
                call = replace(
                    call,
                    num_tokens=response.usage.input_tokens,
                    queue_s=response.timing.queue_us / 1e6,
                    came_back_s=asked_at - refused_at if refused_at else 0.0,
                )
                break
        self.calls.append(replace(call, ended_at=time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the overload (60)")
    asyncio.run(play(parser.parse_args().seconds))


async def play(seconds: float) -> None:
    """Capacity, then overload, then idle; prints what came of it."""
    with tempfile.TemporaryDirectory(prefix="q3o", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        files = Files(tokenizer=folder / TOKENIZER_FILE, ledger=folder / "ledger")
        files.tokenizer.write_bytes(byte_tokenizer())
        workers = embedders(files, 2, tokens_per_s=TOKENS_PER_S / 2)
        async with (
            server(folder) as redis,
            service(redis, folder, workers=workers, num_gateways=1, gateway_options=()) as found,
        ):
            clients = Clients([gateway.address for gateway in found.gateways])
            oracle = EchoOracle(files.tokenizer.read_bytes())
            gateway = psutil.Process(found.gateways[0].child.pid)
            quiet = Crowd(clients, oracle)
            capacity, mean_tokens = await _capacity(quiet)
            before = await _memory(redis, gateway)
            crowd, began_at = Crowd(clients, oracle), time.monotonic()
            loaded = asyncio.create_task(crowd.open_loop(TIMES * capacity / mean_tokens, seconds))
            peaks = await _peaks(loaded, redis, gateway)
            await loaded
            left = await until_idle(redis, queues())
            await clients.close()
    show(crowd.calls, capacity=capacity, began_at=began_at, seconds=seconds, before=before, peaks=peaks, left=left)


async def _capacity(crowd: Crowd) -> tuple[float, float]:
    """Tokens per second that the workers end, and tokens of a call; the first fifth is not counted."""
    began_at = time.monotonic()
    await crowd.closed_loop(CAPACITY_S)
    counted = [call for call in crowd.calls if began_at + CAPACITY_S / 5 < call.ended_at < began_at + CAPACITY_S]
    num_tokens = sum(call.num_tokens for call in counted)
    return num_tokens / (CAPACITY_S * 4 / 5), num_tokens / len(counted)


async def _memory(redis, gateway: psutil.Process) -> tuple[float, float]:
    """MiB that Redis uses, and that are resident of the gateway."""
    async with redis.client() as client:
        used = (await client.info("memory"))["used_memory"]
    return used / MIB, gateway.memory_info().rss / MIB


async def _peaks(running: asyncio.Task, redis, gateway: psutil.Process) -> tuple[float, float]:
    peaks = (0.0, 0.0)
    while not running.done():
        await asyncio.wait([running], timeout=0.5)
        peaks = tuple(map(max, peaks, await _memory(redis, gateway)))
    return peaks


def show(
    calls: Sequence[Call],
    *,
    capacity: float,
    began_at: float,
    seconds: float,
    before: tuple[float, float],
    peaks: tuple[float, float],
    left: Sequence[str],
) -> None:
    in_time = [call for call in calls if call.is_answered and call.ended_at <= began_at + seconds]
    goodput = sum(call.num_tokens for call in in_time) / seconds
    waits = [call.queue_s for call in calls if call.is_answered and not call.question.is_bulk]
    returned = [call for call in calls if call.is_answered and call.told_s is not None]
    ratios = sorted(call.came_back_s / call.told_s for call in returned)
    right = sum(0.5 <= ratio <= 2 for ratio in ratios) / len(ratios)
    table = Table(title=f"{TIMES} times the capacity for {seconds:.0f} s", show_header=False)
    table.add_row("capacity, measured before", f"{capacity:,.0f} tokens/s")
    table.add_row("goodput", f"{goodput:,.0f} tokens/s, {goodput / capacity:.1%} of it")
    table.add_row("calls, answered", f"{len(calls):,}, {sum(call.is_answered for call in calls):,}")
    table.add_row("not answered by their deadline", str(sum(call.is_late for call in calls)))
    table.add_row("interactive ones waited", f"p50 {statistics.median(waits):.2f} s, at most {max(waits):.2f} s")
    told = [call.told_s for call in calls if call.told_s is not None]
    table.add_row(
        "refused ones were told", f"{min(told):.1f} to {max(told):.1f} s, p50 {statistics.median(told):.1f} s"
    )
    table.add_row("those who came back and were answered", f"{len(returned)}")
    table.add_row("  admitted within twice the told time", f"{right:.1%}; worst {ratios[-1]:.2f} times")
    table.add_row("Redis's memory", f"{before[0]:.1f} MiB before, {peaks[0]:.1f} at most")
    table.add_row("gateway's resident memory", f"{before[1]:.0f} MiB before, {peaks[1]:.0f} at most")
    table.add_row("afterwards", "; ".join(left) or "idle")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
