"""Redis as the rows need it: one server, a master with sentinels, a cluster of two masters, a server behind a wire."""

import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import redis.asyncio
from redis.asyncio.cluster import RedisCluster

from tests.faults.children import HOST, Child, free_port
from tests.faults.waiting import until
from tests.support.redis_servers import embedded_binary

SERVICE = "faults"
NUM_SLOTS = 16_384
DOWN_AFTER_MS = 500
ANSWER_S = 2.0


class Redis(Protocol):
    """What a row's Redis must offer: a URL for the service, and a client for the harness."""

    @property
    def url(self) -> str: ...

    def client(self) -> Any:
        """An asyncio client of whatever takes writes now, as a context manager."""
        ...


def binary() -> Path:
    """The machine's own server, else the embedded one, which an activated environment has on its path as well."""
    places = [place for place in os.get_exec_path() if Path(place) != Path(sys.prefix, "bin")]
    own = shutil.which("redis-server", path=os.pathsep.join(places))
    return Path(own) if own else embedded_binary()


class Server:
    """One redis-server, which may be killed and started again with the same folder and port."""

    def __init__(self, folder: Path, *options: str, host: str = HOST, prefix: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.host = host
        self.folder = folder / f"redis-{self.port}"
        self.folder.mkdir()
        arguments = ["--port", str(self.port), "--bind", host, "--dir", str(self.folder), "--save", ""]
        self._command = [*prefix, str(binary()), *arguments, "--protected-mode", "no", *options]
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}"

    @property
    def child(self) -> Child:
        if self._child is None:
            raise RuntimeError("the server has not been started")
        return self._child

    def client(self) -> Any:
        return redis.asyncio.Redis.from_url(self.url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S)

    async def run(self, *command: Any) -> Any:
        """One command, on a connection of its own."""
        async with self.client() as client:
            return await client.execute_command(*command)

    async def start(self) -> None:
        self._child = Child(self._command, folder=self.folder, name="redis")
        await until(self.answers, what=f"Redis at {self.url} answers")

    async def answers(self) -> bool:
        try:
            return bool(await self.run("PING"))
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self.child.kill()

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()


@contextlib.asynccontextmanager
async def server(folder: Path, *options: str) -> AsyncIterator[Server]:
    found = Server(folder, *options)
    try:
        await found.start()
        yield found
    finally:
        found.close()


class Sentinels:
    """A master, a replica, and three sentinels that watch them."""

    def __init__(self, folder: Path) -> None:
        self.servers = [Server(folder), Server(folder)]
        self._folder = folder
        self._ports = [free_port() for _ in range(3)]
        self._children: list[Child] = []

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in self._ports)}/{SERVICE}"

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        master = await self.master()
        async with master.client() as client:
            yield client

    async def start(self) -> None:
        master, replica = self.servers
        await master.start()
        await replica.start()
        await replica.run("REPLICAOF", HOST, master.port)
        await until(lambda: _is_linked(replica), what="the replica follows")
        for port in self._ports:
            self._start_sentinel(port, master)
        await until(self._is_complete, what="the sentinels know each other and the replica")

    def _start_sentinel(self, port: int, master: Server) -> None:
        config = self._folder / f"sentinel-{port}.conf"
        config.write_text(
            f"port {port}\nbind {HOST}\ndir {self._folder}\nprotected-mode no\n"
            f"sentinel monitor {SERVICE} {HOST} {master.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        name = f"sentinel-{port}"
        self._children.append(Child([str(binary()), str(config), "--sentinel"], folder=self._folder, name=name))

    async def master(self) -> Server:
        """Whom the sentinels take for it."""
        _, port = await self._ask("SENTINEL", "get-master-addr-by-name", SERVICE)
        return next(found for found in self.servers if found.port == int(port))

    async def until_failed_over(self, old: Server) -> None:
        async def has_new_master() -> bool:
            with contextlib.suppress(redis.RedisError):  # who changes its role cuts its connections
                master = await self.master()
                return master is not old and (await master.run("ROLE"))[0] == b"master"
            return False

        await until(has_new_master, what="a new master")

    async def until_whole(self) -> None:
        """Both servers are there again, one following the other."""

        async def is_whole() -> bool:
            with contextlib.suppress(redis.RedisError):
                master = await self.master()
                (replica,) = [found for found in self.servers if found is not master]
                return await _is_linked(replica)
            return False

        await until(is_whole, what="the old master follows the new one")

    async def _is_complete(self) -> bool:
        return all([await self._knows_all(port) for port in self._ports])

    async def _knows_all(self, port: int) -> bool:
        try:
            flat = await _run(port, "SENTINEL", "master", SERVICE)
        except redis.RedisError:
            return False
        found = dict(zip(flat[::2], flat[1::2], strict=True)) if isinstance(flat, list) else flat
        return int(_get(found, "num-other-sentinels")) == 2 and int(_get(found, "num-slaves")) == 1

    async def _ask(self, *command: Any) -> Any:
        return await _run(self._ports[0], *command)

    def close(self) -> None:
        for child in self._children:
            child.kill()
        for found in self.servers:
            found.close()


@contextlib.asynccontextmanager
async def sentinels(folder: Path) -> AsyncIterator[Sentinels]:
    found = Sentinels(folder)
    try:
        await found.start()
        yield found
    finally:
        found.close()


class Cluster:
    """Two masters, each with half of the slots."""

    def __init__(self, folder: Path) -> None:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
        self.servers = [Server(folder, *options), Server(folder, *options)]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'{HOST}:{found.port}' for found in self.servers)}"

    def client(self) -> Any:
        return RedisCluster.from_url(self.servers[0].url)

    async def start(self) -> None:
        for found in self.servers:
            await found.start()
        half = NUM_SLOTS // 2
        await self.servers[0].run("CLUSTER", "ADDSLOTS", *range(half))
        await self.servers[1].run("CLUSTER", "ADDSLOTS", *range(half, NUM_SLOTS))
        await self.servers[0].run("CLUSTER", "MEET", HOST, self.servers[1].port)
        await until(self._is_whole, what="the cluster is whole")

    async def _is_whole(self) -> bool:
        states = [await found.run("CLUSTER", "INFO") for found in self.servers]
        return all(_says(state, "cluster_state", "ok") and _says(state, "cluster_known_nodes", "2") for state in states)

    async def move(self, key: str) -> None:
        """Give the key's slot, with all that is in it, to the other master."""
        source, target = self.servers
        slot = int(await source.run("CLUSTER", "KEYSLOT", key))
        source_id, target_id = [_text(await found.run("CLUSTER", "MYID")) for found in self.servers]
        if not await self._owns(source_id, slot):
            source, target, source_id, target_id = target, source, target_id, source_id
        await target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        await source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        while keys := await source.run("CLUSTER", "GETKEYSINSLOT", slot, 100):
            await source.run("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
        for found in (target, source):
            await found.run("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    async def _owns(self, node_id: str, slot: int) -> bool:
        """By the first server's map."""
        for line in _text(await self.servers[0].run("CLUSTER", "NODES")).splitlines():
            (
                name,
                *_,
            ) = line.split()
            ranges = [part.split("-") for part in line.split()[8:] if not part.startswith("[")]
            if name == node_id:
                return any(int(part[0]) <= slot <= int(part[-1]) for part in ranges)
        return False

    def close(self) -> None:
        for found in self.servers:
            found.close()


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    found = Cluster(folder)
    try:
        await found.start()
        yield found
    finally:
        found.close()


async def _run(port: int, *command: Any) -> Any:
    client: Any = redis.asyncio.Redis(host=HOST, port=port, socket_timeout=ANSWER_S)
    async with client:
        return await client.execute_command(*command)


async def _is_linked(replica: Server) -> bool:
    role = await replica.run("ROLE")
    return bool(role[0] == b"slave" and role[3] == b"connected")


def _get(found: dict[Any, Any], name: str) -> Any:
    return found[name] if name in found else found[name.encode()]


def _says(info: Any, name: str, value: str) -> bool:
    if isinstance(info, dict):
        return str(info.get(name)) == value
    return f"{name}:{value}\r\n" in _text(info)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
