"""Waiting for a condition instead of for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

POLL_S = 0.02
GIVE_UP_S = 30.0


async def until(
    condition: Callable[[], object | Awaitable[object]], *, what: str, give_up_s: float = GIVE_UP_S
) -> None:
    """Come back once `condition` holds. Raises TimeoutError, which names `what`, where it does not in time."""
    give_up = time.monotonic() + give_up_s
    while not await _holds(condition):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what}: not within {give_up_s:g} s")
        await asyncio.sleep(POLL_S)


async def _holds(condition: Callable[[], object | Awaitable[object]]) -> object:
    found = condition()
    return await found if inspect.isawaitable(found) else found
