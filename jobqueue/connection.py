"""Connecting to Redis by URL, and refusing a server that could lose jobs."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobqueue.errors import QueueAwayError, UnsuitableServerError

# What redis-py raises where the server is away, is still loading, is read-only or has no memory left.
AWAY_ERRORS = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    OSError,
)

OUT_OF_MEMORY = "-OOM"  # inside a script, Redis 6.2 words it in a way that redis-py does not know

# Time does not heal these, though redis-py takes some of them for lost connections.
_REFUSALS = (redis.AuthenticationError, redis.exceptions.AuthorizationError, redis.exceptions.NoPermissionError)

OLDEST_VERSION = (6, 2)
CONNECT_TIMEOUT_S = 5.0

# redis-py types its clients only in part.
SyncRedis: TypeAlias = "redis.Redis"
AsyncRedis: TypeAlias = "redis.asyncio.Redis"

T = TypeVar("T")


def connect(url: str) -> SyncRedis:
    """A blocking client. Raises UnsuitableServerError for what is no URL of a Redis server."""
    return _from_url(redis.Redis.from_url, url, retry=Retry(NoBackoff(), 0))


def connect_async(url: str) -> AsyncRedis:
    """An asyncio client. Raises UnsuitableServerError for what is no URL of a Redis server."""
    return _from_url(redis.asyncio.Redis.from_url, url, retry=redis.asyncio.retry.Retry(NoBackoff(), 0))


def _from_url(build: Callable[..., T], url: str, **options: Any) -> T:
    try:
        return build(url, **options, **_OPTIONS)
    except ValueError:  # whose text may hold a part of the password
        raise UnsuitableServerError("redis: not a URL of a Redis server (redis://, rediss:// or unix://)") from None


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


def probe(client: SyncRedis) -> None:
    """Raises QueueAwayError while the server does not answer, UnsuitableServerError where it will not do."""
    try:
        check_server(cast(Mapping[str, Any], client.info()))
    except _REFUSALS as error:
        raise UnsuitableServerError(f"the Redis server refuses us: {error}") from error
    except AWAY_ERRORS as error:
        raise QueueAwayError(str(error)) from error


async def probe_async(client: AsyncRedis) -> None:
    """As `probe`."""
    try:
        check_server(await client.info())
    except _REFUSALS as error:
        raise UnsuitableServerError(f"the Redis server refuses us: {error}") from error
    except AWAY_ERRORS as error:
        raise QueueAwayError(str(error)) from error


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
