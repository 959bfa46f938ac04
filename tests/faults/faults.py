"""The faults: each breaks something under load, several times, and heals it again."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import grpc.aio
import redis

from tests.faults.checks import queues
from tests.faults.load import Clients, End
from tests.faults.plans import overload_capacity
from tests.faults.questions import embedding_only
from tests.faults.redis_servers import Server
from tests.faults.stage import Finish, Stage
from tests.faults.waiting import until

LEASE_S = 1.5
OUTAGE_S = 1.0
EXIT_HUNG = 70
LEAST_GOODPUT = 0.9
MOST_WAIT_S = 13.0  # the gateway's 10, and the batches that a worker holds


async def nothing(stage: Stage) -> None:
    """What breaks does so by itself."""


async def kill_points(stage: Stage) -> None:
    """The workers kill themselves; at least one of them must have."""
    await until(lambda: stage.load.has_ended, what="the load ends", give_up_s=120)
    stage.num_events = stage.service.count_ends(-signal.SIGKILL)
    stage.check(stage.num_events, "no worker died")


async def stop_past_the_lease(stage: Stage) -> None:
    """SIGSTOP until others have its jobs; then it goes on with what it believes to hold."""
    async for place in stage.moments(short=2, long=6):
        child = stage.service.workers[place % 3].child
        child.signal(signal.SIGSTOP)
        await asyncio.sleep(2 * LEASE_S)
        child.signal(signal.SIGCONT)


async def roll_workers(stage: Stage) -> None:
    async for _ in stage.moments(short=1, long=4):
        for worker in stage.service.workers:
            num_exits = len(worker.exits)
            worker.child.signal(signal.SIGTERM)
            await worker.until_replaced(num_exits + 1)


async def kill_gateways(stage: Stage) -> None:
    """One at a time; the other one takes over its clients."""
    async for place in stage.moments(short=1, long=4):
        gateway = stage.service.gateways[place % 2]
        await until(lambda: stage.load.num_in_flight, what="calls are in flight")
        gateway.child.kill()
        await asyncio.sleep(OUTAGE_S)
        await gateway.start_again()


async def kill_redis(stage: Stage) -> None:
    async for _ in stage.moments(short=2, long=5):
        stage.redis.kill()
        await asyncio.sleep(OUTAGE_S)
        await stage.redis.start()


async def kill_redis_and_cut_its_log(stage: Stage) -> None:
    """The last bytes never reached the disk."""
    async for place in stage.moments(short=2, long=5):
        stage.redis.kill()
        _cut_tail(stage.redis, num_bytes=1000 * (place + 1) + 7)
        await asyncio.sleep(OUTAGE_S)
        await stage.redis.start()


def _cut_tail(server: Server, *, num_bytes: int) -> None:
    log = max(_logs(server.folder), key=lambda path: path.stat().st_mtime_ns)
    os.truncate(log, max(log.stat().st_size - num_bytes, 0))


def _logs(folder: Path) -> list[Path]:
    """The append-only file, in the place of the server's version."""
    return [*folder.glob("appendonlydir/*.incr.aof"), *folder.glob("appendonly.aof")]


async def flush_all(stage: Stage) -> None:
    async for _ in stage.moments(short=4, long=20):
        await stage.redis.run("FLUSHALL")


async def flush_scripts(stage: Stage) -> None:
    async for _ in stage.moments(short=20, long=200):
        await stage.redis.run("SCRIPT", "FLUSH")


async def kill_clients(stage: Stage) -> None:
    """Storms: twenty rounds in a second, each of which closes every connection."""
    async for _ in stage.moments(short=2, long=8):
        async with stage.redis.client() as client:
            for _ in range(20):
                await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await asyncio.sleep(0.05)


async def pause_clients(stage: Stage) -> None:
    """Longer than a lease: when the server answers again, every worker counts as dead."""
    async for _ in stage.moments(short=1, long=5):
        await stage.redis.run("CLIENT", "PAUSE", int(2000 * LEASE_S), "ALL")
        await until(stage.redis.answers, what="Redis answers again")


async def fill_memory(stage: Stage) -> None:
    async for _ in stage.moments(short=2, long=6):
        await stage.redis.run("CONFIG", "SET", "maxmemory", 1_000_000)
        await asyncio.sleep(1.5 * OUTAGE_S)
        await stage.redis.run("CONFIG", "SET", "maxmemory", 0)


async def kill_master(stage: Stage) -> None:
    async for _ in stage.moments(short=1, long=3):
        master = await stage.redis.master()
        master.kill()
        await stage.redis.until_failed_over(master)
        await master.start()
        await stage.redis.until_whole()


async def stop_master(stage: Stage) -> None:
    async for _ in stage.moments(short=1, long=3):
        master = await stage.redis.master()
        master.child.signal(signal.SIGSTOP)
        try:
            await stage.redis.until_failed_over(master)
        finally:
            master.child.signal(signal.SIGCONT)
        await stage.redis.until_whole()


async def migrate_slots(stage: Stage) -> None:
    async for _ in stage.moments(short=4, long=20):
        for keys in queues():
            await stage.redis.move(keys.depth)


async def cut_the_wire(stage: Stage) -> None:
    stage.note = stage.redis.how
    async for _ in stage.moments(short=1, long=4):
        stage.redis.cut()
        await asyncio.sleep(3 * OUTAGE_S)
        stage.redis.heal()
        await until(lambda: _pings(stage), what="Redis can be reached")


async def _pings(stage: Stage) -> bool:
    try:
        async with stage.redis.client() as client:
            return bool(await client.ping())
    except (redis.RedisError, OSError):
        return False


async def hang_workers(stage: Stage) -> None:
    async for place in stage.moments(short=1, long=6):
        worker = stage.service.workers[place % 3]
        num_exits = len(worker.exits)
        worker.child.signal(signal.SIGUSR1)
        await worker.until_replaced(num_exits + 1)
        stage.check(worker.exits[-1] == EXIT_HUNG, f"a worker that hung ended with {worker.exits[-1]}")


async def kill_workers(stage: Stage) -> None:
    """From outside, while calls are in flight; the next one after the last has been replaced."""
    async for place in stage.moments(short=1, long=4):
        worker = stage.service.workers[place % len(stage.service.workers)]
        num_exits = len(worker.exits)
        await until(lambda: stage.load.num_in_flight, what="calls are in flight")
        worker.child.signal(signal.SIGKILL)
        await worker.until_replaced(num_exits + 1)


async def learn_the_pace(clients: Clients, redis: Server) -> None:
    """Until the workers have said how fast they are: before that nobody knows what is too much."""

    async def is_known() -> bool:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await asyncio.gather(*(clients.ask(embedding_only(number), number, 30.0) for number in range(4)))
        (embedding, _) = queues()
        return int(await redis.run("HGET", embedding.control, "tokens_per_s") or 0) > 0

    await until(is_known, what="the pace is known")


def weigh_overload(stage: Stage) -> None:
    """What was answered is nearly what can be, and whom the queue took it answered in time."""
    answered = [outcome for outcome in stage.load.outcomes if outcome.end is End.ANSWERED]
    began_at = min(outcome.started_at for outcome in stage.load.outcomes)
    seconds = max(outcome.ended_at for outcome in answered) - began_at
    num_tokens = sum(sum(len(text) + 1 for text in outcome.question.texts) for outcome in answered)
    goodput = num_tokens / seconds / overload_capacity(stage.size)
    waits = [outcome.attempt_s for outcome in answered if not outcome.question.is_bulk]
    stage.note = f"goodput {goodput:.0%} of capacity; interactive calls within {max(waits):.1f} s of their admission"
    stage.num_events = sum(outcome.end is End.REFUSED for outcome in stage.load.outcomes)
    stage.check(goodput >= LEAST_GOODPUT, f"goodput {goodput:.0%}")
    stage.check(max(waits) <= MOST_WAIT_S, f"an interactive call waited {max(waits):.1f} s")


def count_hurried(stage: Stage) -> None:
    stage.num_events = sum(outcome.end is End.HURRIED for outcome in stage.load.outcomes)


def count_poisoned(num_poisons: int, *, status: int = -signal.SIGKILL) -> Finish:
    """Each poison has ended three workers, and its caller was told."""

    def finish(stage: Stage) -> None:
        stage.num_events = sum(outcome.end is End.POISON for outcome in stage.load.outcomes)
        num_ends = stage.service.count_ends(status)
        stage.check(stage.num_events == num_poisons, f"{stage.num_events} of {num_poisons} callers told POISON_INPUT")
        stage.check(num_ends == 3 * num_poisons, f"{num_ends} workers ended")

    return finish
