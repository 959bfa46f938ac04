"""Redis behind Sentinels: who they say is the master, asked again at every new connection."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import redis
import redis.asyncio
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool

from jobqueue.away import REFUSALS
from jobqueue.urls import ServerUrl

SENTINEL_TIMEOUT_S = 1.0  # the others are asked next, and the caller's own patience is a few seconds

Address = tuple[str, int]


def connect_master(url: ServerUrl, options: Mapping[str, Any]) -> redis.Redis:
    """A blocking client of the service's master; `options` are those of its connections."""
    how = {**_sentinel_options(url), "retry": options["retry"]}
    sentinels = Sentinels([redis.Redis(host=host, port=port, **how) for host, port in url.addresses])
    make_pool: Any = MasterPool
    pool = make_pool(url.service, sentinels, ssl=url.tls, redis_connect_func=_greet_master, **options)
    return redis.Redis.from_pool(pool)


def connect_master_async(url: ServerUrl, options: Mapping[str, Any]) -> redis.asyncio.Redis:
    """As `connect_master`, for asyncio."""
    how = {**_sentinel_options(url), "retry": options["retry"]}
    sentinels = AsyncSentinels([redis.asyncio.Redis(host=host, port=port, **how) for host, port in url.addresses])
    make_pool: Any = AsyncMasterPool
    pool = make_pool(url.service, sentinels, ssl=url.tls, redis_connect_func=_greet_master_async, **options)
    return redis.asyncio.Redis.from_pool(pool)


def _sentinel_options(url: ServerUrl) -> dict[str, Any]:
    limits = {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    return {**url.sentinel_options, **limits, "ssl": url.tls, "protocol": 2}


class MasterPool(SentinelConnectionPool):
    """Connections to the master that Sentinel named last.

    redis-py's own lets those that are in use stay with the master before, which may take writes for ten seconds more,
    until it is told that it is a replica, and then forgets them.
    """

    def get_master_address(self) -> Address:
        pool: Any = super()
        before, address = self.master_address, cast(Address, pool.get_master_address())
        if address != before:
            pool.update_active_connections_for_reconnect()
        return address


class AsyncMasterPool(AsyncSentinelConnectionPool):
    """As `MasterPool`."""

    async def get_master_address(self) -> Address:
        pool: Any = super()
        before, address = self.master_address, cast(Address, await pool.get_master_address())
        if address != before:
            await pool.update_active_connections_for_reconnect()
        return address


class Sentinels:
    """What redis-py's pool asks for the master.

    redis-py's own keeps its connections to the Sentinels open after the client was closed, and tells of a wrong
    password as if a server were away.
    """

    def __init__(self, clients: Sequence[Any]) -> None:
        self._clients = list(clients)

    def discover_master(self, service: str) -> Address:
        """The address of the first master that is up for its Sentinel; that one is asked first from then on.

        Raises MasterNotFoundError, or AuthenticationError and the like where that is all that was said.
        """
        answers: list[object] = []
        for client in tuple(self._clients):
            try:
                state = client.execute_command("SENTINEL MASTER", service)
            except redis.RedisError as error:
                answers.append(error)
            else:
                if address := _address_of(state):
                    self._clients.sort(key=lambda other: other is not client)
                    return address
                answers.append("the master is down")
            finally:
                client.connection_pool.disconnect(inuse_connections=False)
        raise _not_found(service, answers)


class AsyncSentinels:
    """As `Sentinels`."""

    def __init__(self, clients: Sequence[Any]) -> None:
        self._clients = list(clients)

    async def discover_master(self, service: str) -> Address:
        """As Sentinels.discover_master."""
        answers: list[object] = []
        for client in tuple(self._clients):
            try:
                state = await client.execute_command("SENTINEL MASTER", service)
            except redis.RedisError as error:
                answers.append(error)
            else:
                if address := _address_of(state):
                    self._clients.sort(key=lambda other: other is not client)
                    return address
                answers.append("the master is down")
            finally:
                await client.connection_pool.disconnect(inuse_connections=False)
        raise _not_found(service, answers)


def _address_of(state: Mapping[str, Any]) -> Address | None:
    if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
        return None
    return state["ip"], state["port"]


def _not_found(service: str, answers: Sequence[object]) -> redis.RedisError:
    refused = next((answer for answer in answers if isinstance(answer, REFUSALS)), None)
    if refused is not None:
        return refused
    return MasterNotFoundError(f"no Sentinel names a master of {service!r}: {'; '.join(map(str, answers))}")


def _greet_master(connection: Any) -> None:
    """Open a connection, to a master only: what Sentinel says of a failover may be older than what the server knows."""
    connection.on_connect()
    connection.send_command("ROLE", check_health=False)
    _check_role(connection.read_response())
    _check_address(connection)


async def _greet_master_async(connection: Any) -> None:
    await connection.on_connect()
    await connection.send_command("ROLE", check_health=False)
    _check_role(await connection.read_response())
    _check_address(connection)


def _check_role(reply: Sequence[Any]) -> None:
    if reply[0] != b"master":
        raise MasterNotFoundError("the server that Sentinel names is a replica")


def _check_address(connection: Any) -> None:
    """A master that stood still for a while may answer after another one was named."""
    if connection.connection_pool.master_address != (connection.host, connection.port):
        raise MasterNotFoundError("Sentinel has named another master meanwhile")
