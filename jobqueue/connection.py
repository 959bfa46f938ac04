"""Connecting to Redis by URL, and refusing a server that could lose jobs."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import redis
import redis.asyncio
from redis import ResponseError
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobqueue.errors import QueueAwayError, UnsuitableServerError

__all__ = [
    "REPLY_TIMEOUT_S",
    "AsyncRedis",
    "ResponseError",
    "SyncRedis",
    "check_server",
    "connect",
    "connect_async",
    "is_away",
    "probe",
    "probe_async",
    "redis_border",
]

# What redis-py raises where there is nobody to answer, or where somebody says that it cannot now.
_AWAY_ERRORS = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
    OSError,
)

# The same in replies that redis-py has no class for, and inside of scripts, where Redis puts a place in front.
_NOT_NOW = re.compile(r"^(.*: -)?(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b")

# Time does not heal these, though redis-py takes some of them for lost connections.
_REFUSALS = (redis.AuthenticationError, redis.exceptions.AuthorizationError, redis.exceptions.NoPermissionError)

OLDEST_VERSION = (6, 2)
CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 5.0  # a server that is silent for longer counts as away; blocking reads are shorter

# redis-py types its clients only in part.
SyncRedis: TypeAlias = "redis.Redis"
AsyncRedis: TypeAlias = "redis.asyncio.Redis"

T = TypeVar("T")


def connect(url: str) -> SyncRedis:
    """A blocking client. Raises UnsuitableServerError for what is no URL of a Redis server."""
    return _from_url(redis.Redis.from_url, url, retry=Retry(NoBackoff(), 0), socket_timeout=REPLY_TIMEOUT_S)


def connect_async(url: str) -> AsyncRedis:
    """An asyncio client. Raises UnsuitableServerError for what is no URL of a Redis server.

    It waits for ever: callers bound a whole pipeline, since redis-py's own timeout costs 25 us a command.
    """
    return _from_url(
        redis.asyncio.Redis.from_url, url, retry=redis.asyncio.retry.Retry(NoBackoff(), 0), socket_timeout=None
    )


def _from_url(build: Callable[..., T], url: str, **options: Any) -> T:
    try:
        return build(url, **options, **_OPTIONS)
    except ValueError:  # whose text may hold a part of the password
        raise UnsuitableServerError("redis: not a URL of a Redis server (redis://, rediss:// or unix://)") from None


# No silent resends, since a command sent twice is a job admitted twice; RESP2, whose replies look the same on every
# server version; and no end of connections, since every queue has a blocking read of its own.
_OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "max_connections": 2**31,
    "protocol": 2,
}


@contextlib.contextmanager
def redis_border() -> Iterator[None]:
    """Raises QueueAwayError for whatever redis-py raises while the server cannot answer; other errors pass."""
    try:
        yield
    except Exception as error:
        if is_away(error):
            raise QueueAwayError(str(error)) from error
        raise


def is_away(outcome: object) -> bool:
    """Whether a command's outcome says that the server cannot answer it now."""
    if isinstance(outcome, _AWAY_ERRORS):
        return True
    return isinstance(outcome, ResponseError) and _NOT_NOW.match(str(outcome)) is not None


def probe(client: SyncRedis) -> None:
    """Raises QueueAwayError while the server does not answer, UnsuitableServerError where it will not do."""
    with redis_border(), _refusals():
        check_server(cast(Mapping[str, Any], client.info()))


async def probe_async(client: AsyncRedis) -> None:
    """As `probe`."""
    with redis_border(), _refusals():
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            check_server(await client.info())


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except _REFUSALS as error:
        raise UnsuitableServerError(f"the Redis server refuses us: {error}") from error


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
