"""Whether an outcome says that Redis cannot answer now, and which refusals time does not heal."""

import contextlib
import re
from collections.abc import Iterator

import redis
from redis.exceptions import AskError, ClusterError, RedisClusterException, SlotNotCoveredError, TryAgainError

from jobqueue.errors import QueueAwayError, UnsuitableServerError

# What redis-py raises where there is nobody to answer, or where somebody says that it cannot now. A MovedError is an
# AskError; either is left over where a cluster changes faster than redis-py follows.
_AWAY_ERRORS = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    AskError,
    ClusterError,
    SlotNotCoveredError,
    TryAgainError,
    OSError,
)

# The same in replies that redis-py has no class for, and inside of scripts, where Redis 6.2 puts a place in front. A
# script meets keys that are not its own, or a cluster that is down, while a slot moves to another server.
_NOT_NOW = re.compile(
    r"^(.*: -)?(ASK|BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|MOVED|NOREPLICAS|OOM|READONLY|TRYAGAIN)\b"
    r"|^UNBLOCKED force unblock"
    r"|[Ss]cript attempted to .*(non local key|cluster is down)"
)

_NO_REPLY = (redis.ConnectionError, redis.TimeoutError, OSError)
_STAYS = re.compile(r"^(.*: -)?(BUSY|MISCONF|NOREPLICAS|OOM|TRYAGAIN)\b")

# redis-py has no class for these either, and raises the same for mistakes in a call.
_CLUSTER_NOT_NOW = re.compile(
    r"Cluster cannot be connected|slots are not covered|could not agree on a valid slots cache"
)
_NO_CLUSTER = "Cluster mode is not enabled"

# redis-py takes some of these for lost connections.
REFUSALS = (redis.AuthenticationError, redis.exceptions.AuthorizationError, redis.exceptions.NoPermissionError)


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
    if isinstance(outcome, RedisClusterException):
        return _CLUSTER_NOT_NOW.search(str(outcome)) is not None
    return isinstance(outcome, redis.ResponseError) and _NOT_NOW.search(str(outcome)) is not None


def is_no_reply(outcome: object) -> bool:
    """Whether nobody said anything, so that nobody knows what was done. A server that loads its data says so."""
    return isinstance(outcome, _NO_REPLY) and not isinstance(outcome, redis.BusyLoadingError)


def is_elsewhere(outcome: object) -> bool:
    """Whether another connection may find a server that can answer; one that is full or busy would stay so."""
    return is_away(outcome) and not isinstance(outcome, redis.OutOfMemoryError) and not _STAYS.search(str(outcome))


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Raises UnsuitableServerError where the server answers, and never will otherwise; other errors pass."""
    try:
        yield
    except Exception as error:
        reason = _refusal(error)
        if reason is None:
            raise
        raise UnsuitableServerError(f"the Redis server refuses us: {reason}") from error


def _refusal(error: BaseException) -> str | None:
    """Why it refuses. Of a cluster that nobody could reach, redis-py tells the last node's answer."""
    if isinstance(error, REFUSALS):
        return str(error)
    if not isinstance(error, RedisClusterException):
        return None
    if _NO_CLUSTER in str(error):
        return "it is no Cluster: use redis://"
    return _refusal(error.__cause__) if error.__cause__ else None
