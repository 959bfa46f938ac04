"""Playing a row: start its Redis and service, load them, break them, and look at what has come of it."""

import asyncio
import tempfile
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from tests.faults.answers import TOKENIZER_FILE, byte_tokenizer
from tests.faults.checks import Result, judge, queues, until_idle
from tests.faults.load import Clients, Load
from tests.faults.questions import EchoOracle
from tests.faults.real_engine import QUEUE, RecordedOracle
from tests.faults.redis_servers import Redis
from tests.faults.service import Service, service
from tests.faults.stage import Files, Row, Size, Stage

PLAY_LIMIT_S = 400.0


async def play(row: Row, size: Size) -> Result:
    """The row's result. Nothing that it started is left when this comes back, or raises."""
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="q3f", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        files = _files(folder)
        async with (
            asyncio.timeout(PLAY_LIMIT_S),
            row.redis(folder) as redis,
            _service(row, redis, files, size) as found,
        ):
            stage = await _perform(row, size, redis, found, files)
            problems = [*stage.problems, *await _end(row, stage)]
        return judge(
            row,
            stage.load,
            ledger=files.ledger,
            num_events=stage.num_events,
            seconds=time.monotonic() - started_at,
            note=stage.note,
            problems=problems,
        )


def _files(folder: Path) -> Files:
    files = Files(tokenizer=folder / TOKENIZER_FILE, ledger=folder / "ledger")
    files.tokenizer.write_bytes(byte_tokenizer())
    return files


def _service(row: Row, redis: Redis, files: Files, size: Size) -> AbstractAsyncContextManager[Service]:
    return service(
        redis,
        files.ledger.parent,
        workers=row.plan(files, size),
        num_gateways=row.num_gateways,
        gateway_options=row.gateway_options,
    )


async def _perform(row: Row, size: Size, redis: Redis, found: Service, files: Files) -> Stage:
    """The load, and the fault beside it."""
    clients = Clients([gateway.address for gateway in found.gateways])
    oracle = await RecordedOracle.record(clients) if row.is_real else EchoOracle(files.tokenizer.read_bytes())
    seconds = row.long_s if size.is_long else row.short_s
    load = Load(clients, row.ask, oracle, num_calls=size.num_calls, seconds=seconds)
    stage = Stage(redis=redis, service=found, load=load, size=size)
    try:
        if row.prepare is not None:
            await row.prepare(clients, redis)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            group.create_task(row.inject(stage))
    finally:
        await clients.close()
    if row.finish is not None:
        row.finish(stage)
    return stage


async def _end(row: Row, stage: Stage) -> list[str]:
    """What is wrong when the load is over: something is left, something has died, something was logged."""
    left = await until_idle(stage.redis, [QUEUE] if row.is_real else queues())
    exits = {status for worker in stage.service.workers for status in worker.exits} - row.worker_exits
    unordered = await stage.service.stop()
    return [
        *left,
        *(f"a worker ended with {status}" for status in exits),
        *unordered,
        *stage.service.bad_lines()[:3],
    ]
