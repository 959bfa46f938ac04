"""The service's life.

1. Redis starts, unless one is given.
2. The gateway and the workers start and load side by side.
3. Once the gateway serves every model, and says so, the address is announced.
4. A worker that dies is started again; anything else that dies ends the service.
5. At the end the gateway drains its calls while the workers still work, then the workers stop, then Redis.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from jobqueue.connection import connect_async, probe_async
from jobqueue.errors import QueueError
from runtime.children import Child, Program, StopRequest
from runtime.errors import ServiceError
from runtime.restarts import RestartPolicy
from standalone.redis_server import private_redis
from standalone.workers import WorkerKeeper

_log = structlog.get_logger()

_SERVING_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What runs: one gateway, some workers, and a given Redis or ("") a private one."""

    gateway: Program
    workers: tuple[Program, ...]
    environment: Mapping[str, str]
    redis_url: str
    stop_limit_s: float
    restart_policy: RestartPolicy


async def serve(plan: Plan, stop: StopRequest, announce: Callable[[str], None]) -> None:
    """Run the service until `stop.drain` is set; leaves no process and no file behind.

    `announce` is called once, with the gateway's HOST:PORT. Raises ServiceErrors in an ExceptionGroup, or one alone.
    """
    async with AsyncExitStack() as stack:
        redis_url, watched = await _open_redis(plan, stop, stack)
        # Not a flag: a URL may hold a password, and flags show in ps.
        variables = {**plan.environment, "QWEN3_REDIS": redis_url}
        keepers = [WorkerKeeper(program, variables, plan.restart_policy) for program in plan.workers]
        await stack.enter_async_context(_stopped_at_the_end(keepers, stop, plan.stop_limit_s))
        gateway = await Child.start(plan.gateway, variables)
        stack.push_async_callback(gateway.stop, hurry=stop.hurry, limit_s=plan.stop_limit_s)
        await _watch([*watched, gateway], keepers, _announcement(gateway, keepers, announce), stop)


async def _open_redis(plan: Plan, stop: StopRequest, stack: AsyncExitStack) -> tuple[str, list[Child]]:
    """The URL, and the child to watch where there is one."""
    if plan.redis_url:
        await _check_given(plan.redis_url)
        return plan.redis_url, []
    redis = await stack.enter_async_context(private_redis(stop))
    return redis.url, [redis.server]


async def _check_given(url: str) -> None:
    """Raises ServiceError with the reason: gateway and workers would wait for it without end."""
    try:
        async with connect_async(url) as redis:
            await probe_async(redis)
    except QueueError as error:
        raise ServiceError(f"the Redis server that --redis names cannot be used: {error}") from error


@asynccontextmanager
async def _stopped_at_the_end(
    keepers: Iterable[WorkerKeeper], stop: StopRequest, limit_s: float
) -> AsyncIterator[None]:
    try:
        yield
    finally:
        async with asyncio.TaskGroup() as group:
            for keeper in keepers:
                group.create_task(keeper.stop(stop, limit_s))


async def _watch(
    children: Iterable[Child],
    keepers: Iterable[WorkerKeeper],
    announcement: Coroutine[Any, Any, None],
    stop: StopRequest,
) -> None:
    """Until the operator asks for the end. Raises an ExceptionGroup where the service cannot go on."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_must_live(child)) for child in children]
            tasks += [group.create_task(keeper.keep_alive()) for keeper in keepers]
            tasks.append(group.create_task(announcement))
            await stop.drain.wait()
            for task in tasks:
                task.cancel()
    finally:
        stop.drain.set()  # whatever ended it, the operator's next signal is the one that hurries
        _log.info("draining")


async def _must_live(child: Child) -> None:
    await child.exited()
    raise child.death("by itself")


async def _announcement(gateway: Child, keepers: Iterable[WorkerKeeper], announce: Callable[[str], None]) -> None:
    """Announce the address once a call to any model would be served."""
    # Futures, and not until_ready(): a death here is told by whoever watches the child.
    for keeper in keepers:
        await keeper.ready
    await asyncio.wait([gateway.ready], timeout=_SERVING_LIMIT_S)
    if not gateway.ready.done():
        raise ServiceError("the gateway does not serve the models that the workers are ready for")
    announce(gateway.ready.result())
