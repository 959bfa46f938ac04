"""A Redis behind a wire that can be cut without a word: no FIN, no RST, packets that go nowhere.

A network namespace of its own where this process may make one; else a proxy that stops forwarding and closes nothing.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from tests.faults.children import HOST, free_port
from tests.faults.redis_servers import Server


class Wire(Protocol):
    """`how` says in words what is cut."""

    how: str
    url: str

    def client(self) -> Any: ...

    def cut(self) -> None: ...

    def heal(self) -> None: ...


@contextlib.asynccontextmanager
async def wire(folder: Path) -> AsyncIterator[Wire]:
    async with _namespace(folder) if _may_make_namespaces() else _proxy(folder) as found:
        yield found


class NamespaceWire:
    """A server in a network namespace; cutting takes its end of the link down."""

    how = "in a network namespace whose link is taken down"

    def __init__(self, folder: Path) -> None:
        self._name = f"q3f{os.getpid()}"
        self._ours, self._theirs = f"{self._name}a"[-15:], f"{self._name}b"[-15:]
        subnet = f"10.233.{os.getpid() % 256}"
        self._our_address, self._their_address = f"{subnet}.1/30", f"{subnet}.2/30"
        prefix = ["ip", "netns", "exec", self._name]
        self.server = Server(folder, host=f"{subnet}.2", prefix=prefix)
        self.url = self.server.url

    def client(self) -> Any:
        return self.server.client()

    def make(self) -> None:
        _ip("netns", "add", self._name)
        _ip("link", "add", self._ours, "type", "veth", "peer", "name", self._theirs, "netns", self._name)
        _ip("addr", "add", self._our_address, "dev", self._ours)
        _ip("link", "set", self._ours, "up")
        _ip("-n", self._name, "addr", "add", self._their_address, "dev", self._theirs)
        _ip("-n", self._name, "link", "set", self._theirs, "up")

    def cut(self) -> None:
        _ip("-n", self._name, "link", "set", self._theirs, "down")

    def heal(self) -> None:
        _ip("-n", self._name, "link", "set", self._theirs, "up")

    def remove(self) -> None:
        _ip("netns", "del", self._name)


@contextlib.asynccontextmanager
async def _namespace(folder: Path) -> AsyncIterator[NamespaceWire]:
    found = NamespaceWire(folder)
    try:
        found.make()
        await found.server.start()
        yield found
    finally:
        found.server.close()
        found.remove()


class ProxyWire:
    """A server behind a forwarder of this process."""

    how = "behind a proxy that stops forwarding and closes nothing"

    def __init__(self, server: Server) -> None:
        self._server = server
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = free_port()
        self.url = f"redis://{HOST}:{self._port}"

    def client(self) -> Any:
        return self._server.client()

    def cut(self) -> None:
        self._flows.clear()

    def heal(self) -> None:
        self._flows.set()

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, HOST, self._port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        their_reader, their_writer = await asyncio.open_connection(HOST, self._server.port)
        for source, sink in ((reader, their_writer), (their_reader, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        sink.close()

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _proxy(folder: Path) -> AsyncIterator[ProxyWire]:
    server = Server(folder)
    found = ProxyWire(server)
    try:
        await server.start()
        async with await found.listen():
            yield found
            await found.close()
    finally:
        server.close()


def _may_make_namespaces() -> bool:
    name = f"q3probe{os.getpid()}"
    try:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "add", "q3probe", "type", "veth")
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            _ip("netns", "del", name)
    return True


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
