"""Connecting to Redis by URL, and refusing a server that could lose jobs."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobqueue.errors import UnsuitableServerError

# What redis-py raises where the server is away, is still loading, is read-only or has no memory left.
AWAY_ERRORS = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    OSError,
)

OUT_OF_MEMORY = "-OOM"  # inside a script, Redis 6.2 words it in a way that redis-py does not know

OLDEST_VERSION = (6, 2)
CONNECT_TIMEOUT_S = 5.0

# redis-py types its clients only in part.
SyncRedis: TypeAlias = "redis.Redis"
AsyncRedis: TypeAlias = "redis.asyncio.Redis"


def connect(url: str) -> SyncRedis:
    """A blocking client. Raises ValueError for a URL that redis-py does not know."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_OPTIONS)


def connect_async(url: str) -> AsyncRedis:
    """An asyncio client. Raises ValueError for a URL that redis-py does not know."""
    return redis.asyncio.Redis.from_url(url, retry=redis.asyncio.retry.Retry(NoBackoff(), 0), **_OPTIONS)


# No socket timeout, since blocking reads wait as long as they please; no silent resends, since a command sent twice
# is a job admitted twice; RESP2, whose replies look the same on every server version.
_OPTIONS: dict[str, Any] = {
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "protocol": 2,
}


def is_away(outcome: object) -> bool:
    """Whether a command's outcome says that the server cannot answer it now."""
    return isinstance(outcome, AWAY_ERRORS) or (
        isinstance(outcome, redis.ResponseError) and OUT_OF_MEMORY in str(outcome)
    )


def check_server(info: Mapping[str, Any]) -> None:
    """Raises UnsuitableServerError unless INFO is of a server that the protocol is safe on."""
    version = str(info["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
        raise UnsuitableServerError(f"Redis {version} is too old: 6.2 or newer is needed")
    policy = str(info["maxmemory_policy"])
    if policy != "noeviction":
        raise UnsuitableServerError(
            f"the Redis server's maxmemory-policy is {policy!r}, under which it may drop jobs: set it to noeviction"
        )
