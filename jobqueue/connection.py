"""Connecting to Redis by URL, and refusing a server that could lose jobs."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any, TypeAlias, cast

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
from redis import ResponseError
from redis.backoff import NoBackoff
from redis.cluster import REDIS_ALLOWED_KEYS
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from jobqueue.away import is_away, redis_border, refusals
from jobqueue.clusters import AsyncCluster, Cluster, LateCluster
from jobqueue.errors import QueueAwayError, UnsuitableServerError
from jobqueue.sentinels import connect_master, connect_master_async
from jobqueue.server import ServerInfo, describe_server, weakest
from jobqueue.urls import Mode, ServerUrl, parse_server_url

__all__ = [
    "REPLY_TIMEOUT_S",
    "SETTLE_S",
    "AsyncRedis",
    "ResponseError",
    "ServerInfo",
    "SyncRedis",
    "connect",
    "connect_async",
    "follow_master",
    "follow_master_async",
    "forget_connections",
    "forget_connections_async",
    "is_away",
    "is_cluster",
    "probe",
    "probe_async",
    "redis_border",
]

CONNECT_TIMEOUT_S = 5.0
FORGET_TIMEOUT_S = 2.0
SETTLE_S = 3.0  # who stops waits that long for a server that is away
REPLY_TIMEOUT_S = 5.0  # a server that is silent for longer counts as away; less would be a busy machine's own pauses

# What the rest of the code may use. Cluster clients have the same commands, and no type in common with these.
SyncRedis: TypeAlias = redis.Redis
AsyncRedis: TypeAlias = redis.asyncio.Redis

# RESP2, whose replies look the same on every server version; and no end of connections, since every queue has a
# blocking read of its own.
_OPTIONS: Mapping[str, Any] = {"protocol": 2, "max_connections": 2**31}


def connect(url: str) -> SyncRedis:
    """A blocking client, which connects with its first command.

    Raises UnsuitableServerError for what is no URL of a Redis server, or has options that redis-py does not know.
    """
    found = parse_server_url(url)
    options = {**_options(found), "socket_timeout": REPLY_TIMEOUT_S}
    with _unknown_options():
        return _connect(found, options)


def connect_async(url: str) -> AsyncRedis:
    """As `connect`, for asyncio.

    It waits for ever: callers bound a whole pipeline, since redis-py's own timeout costs 25 us a command.
    """
    found = parse_server_url(url)
    options = {**_options(found), "socket_timeout": None}
    with _unknown_options():
        return _connect_async(found, options)


def is_cluster(client: SyncRedis | AsyncRedis) -> bool:
    """Whether keys live on several servers: then a pipeline's commands may fail one server at a time."""
    return isinstance(client, LateCluster | AsyncCluster)


def forget_connections(client: SyncRedis) -> None:
    """After an outcome that is away: the next command finds its server anew.

    Commands in flight on other threads end as they would. A server that is away still shows with the next command.
    """
    if isinstance(client, LateCluster):
        with contextlib.suppress(QueueAwayError), redis_border():
            client.forget_connections()
        return
    pool: Any = client.connection_pool
    pool.update_active_connections_for_reconnect()
    pool.disconnect(inuse_connections=False)


async def forget_connections_async(client: AsyncRedis) -> None:
    """As `forget_connections`, in at most two seconds."""
    cluster: object = client
    with contextlib.suppress(QueueAwayError), redis_border():
        async with asyncio.timeout(FORGET_TIMEOUT_S):
            if isinstance(cluster, AsyncCluster):
                await cluster.forget_connections()
                return
            pool: Any = client.connection_pool
            await pool.update_active_connections_for_reconnect()
            await pool.disconnect(inuse_connections=False)


def follow_master(client: SyncRedis) -> None:
    """Ask Sentinel for the master, and leave the one before where it is another; to be called every second or two."""
    if _mode(client) is not Mode.SENTINEL:
        return
    pool: Any = client.connection_pool
    with contextlib.suppress(QueueAwayError), redis_border():
        pool.get_master_address()


async def follow_master_async(client: AsyncRedis) -> None:
    """As `follow_master`."""
    if _mode(client) is not Mode.SENTINEL:
        return
    pool: Any = client.connection_pool
    with contextlib.suppress(QueueAwayError), redis_border():
        async with asyncio.timeout(FORGET_TIMEOUT_S):
            await pool.get_master_address()


def probe(client: SyncRedis) -> ServerInfo:
    """What the server is.

    Raises QueueAwayError while it does not answer, UnsuitableServerError where it will not do or refuses us.
    """
    with redis_border(), refusals():
        if not isinstance(client, LateCluster):
            return _describe(client)
        return weakest([_describe(client, target_nodes=node) for node in client.get_primaries()])


async def probe_async(client: AsyncRedis) -> ServerInfo:
    """As `probe`."""
    with redis_border(), refusals():
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            if not is_cluster(client):
                return await _describe_async(client)
            cluster = await cast(AsyncCluster, client).initialize()
            return weakest([await _describe_async(client, target_nodes=node) for node in cluster.get_primaries()])


def _options(url: ServerUrl) -> dict[str, Any]:
    return {"socket_connect_timeout": CONNECT_TIMEOUT_S, **url.options, **_OPTIONS}


def _connect(url: ServerUrl, options: dict[str, Any]) -> SyncRedis:
    if url.mode is Mode.CLUSTER:
        _check_cluster_options(options)
        return cast(SyncRedis, LateCluster(partial(_connect_cluster, url, options)))
    options["retry"] = Retry(NoBackoff(), 0)
    if url.mode is Mode.SENTINEL:
        return connect_master(url, options)
    pool = redis.ConnectionPool(connection_class=_connection_class(redis.connection, url), **options)
    pool.connection_class(**pool.connection_kwargs)  # else unknown options would show with the first command
    return redis.Redis.from_pool(pool)


def _connect_async(url: ServerUrl, options: dict[str, Any]) -> AsyncRedis:
    retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
    if url.mode is Mode.CLUSTER:
        nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in url.addresses]
        _check_cluster_options(options)
        cluster = AsyncCluster(startup_nodes=nodes, ssl=url.tls, retry=retry, reinitialize_steps=0, **options)
        return cast(AsyncRedis, cluster)
    options["retry"] = retry
    if url.mode is Mode.SENTINEL:
        return connect_master_async(url, options)
    pool = redis.asyncio.ConnectionPool(connection_class=_connection_class(redis.asyncio.connection, url), **options)
    pool.connection_class(**pool.connection_kwargs)
    return redis.asyncio.Redis.from_pool(pool)


def _connect_cluster(url: ServerUrl, options: dict[str, Any]) -> Cluster:
    """No resends here either; redirections, which say that nothing was done, are followed all the same."""
    node: Any = redis.cluster.ClusterNode
    nodes = [node(host, port) for host, port in url.addresses]
    return Cluster(startup_nodes=nodes, ssl=url.tls, retry=Retry(NoBackoff(), 0), reinitialize_steps=0, **options)


def _connection_class(module: ModuleType, url: ServerUrl) -> Any:
    """Of redis-py's two halves the one asked for."""
    if "path" in url.options:
        return module.UnixDomainSocketConnection
    return module.SSLConnection if url.tls else module.Connection


def _check_cluster_options(options: Mapping[str, Any]) -> None:
    """redis-py leaves out in silence what a Cluster client cannot do."""
    unknown = sorted(options.keys() - set(REDIS_ALLOWED_KEYS))
    if unknown:
        raise TypeError(", ".join(unknown))


@contextlib.contextmanager
def _unknown_options() -> Iterator[None]:
    """redis-py's own errors may hold what the URL says."""
    try:
        yield
    except (TypeError, ValueError, redis.RedisError, RedisClusterException):
        raise UnsuitableServerError("redis: the URL has options that redis-py does not know, or not so") from None


def _describe(client: Any, **where: Any) -> ServerInfo:
    return describe_server(client.info(**where), mode=_mode(client), save=_saved(client, **where))


async def _describe_async(client: Any, **where: Any) -> ServerInfo:
    info = await client.info(**where)
    return describe_server(info, mode=_mode(client), save=await _saved_async(client, **where))


def _mode(client: SyncRedis | AsyncRedis) -> Mode:
    if is_cluster(client):
        return Mode.CLUSTER
    pools = SentinelConnectionPool | redis.asyncio.sentinel.SentinelConnectionPool
    return Mode.SENTINEL if isinstance(client.connection_pool, pools) else Mode.STANDALONE


def _saved(client: Any, **where: Any) -> str | None:
    """The setting `save`; None where the server does not tell, as managed ones do not."""
    try:
        return cast(str | None, client.config_get("save", **where).get("save"))
    except ResponseError as error:
        if is_away(error):
            raise
        return None


async def _saved_async(client: Any, **where: Any) -> str | None:
    try:
        return cast(str | None, (await client.config_get("save", **where)).get("save"))
    except ResponseError as error:
        if is_away(error):
            raise
        return None
