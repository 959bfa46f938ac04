"""Several processes under one parent: one address, one life."""

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.config import GatewaySettings
from gateway.processes import Requests, serve_in_processes
from qwen3.inference.v1 import embedding_pb2
from tests.support.echo import EchoWorker, eventually
from tests.support.load import Load
from tests.support.processes import Process, gateway, running
from tests.support.queues import until
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import TIMEOUT_S, Stubs

SERVING = health_pb2.HealthCheckResponse.SERVING


def children_of(process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


def is_gone(process: psutil.Process) -> bool:
    """A container may have nobody to reap orphans."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def serving_pids(process) -> set[int]:
    """Of those who have written a line about a call."""
    lines = [json.loads(line) for line in process.log.splitlines()]
    return {int(line["pid"]) for line in lines if line["event"] == "call"}


@contextlib.contextmanager
def stubs(address: str):
    """Over a connection of its own: channels of one process share theirs otherwise, and so all meet one gateway."""
    found = Stubs(address, grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]))
    yield found
    found.channel.close()


def test_all_processes_serve_on_one_address(redis_url, worker):
    with gateway(redis_url, "--processes", "3") as (process, address):
        pids = {child.pid for child in children_of(process)}
        assert len(pids) == 3
        while serving_pids(process) < pids:  # each connection is the kernel's choice
            with Load(address, num_channels=4) as load:
                load.more(8)
            assert set(load.codes) == {"OK"}
        assert process.stop() == 0


def test_a_process_that_dies_is_started_again(redis_url, worker):
    with gateway(redis_url, "--processes", "2") as (process, address), Load(address) as load:
        load.more()
        victim, other = children_of(process)
        victim.kill()
        eventually(lambda: len(children_of(process)) == 2 and victim.pid not in {c.pid for c in children_of(process)})
        load.more()
        assert other.is_running()
    assert set(load.codes) == {"OK"}  # those that it took with it were tried again


def test_sighup_replaces_all_processes(redis_url, worker):
    with gateway(redis_url, "--processes", "2") as (process, address), stubs(address) as client:
        before = set(children_of(process))
        process.signal(signal.SIGHUP)
        eventually(lambda: '"restarted"' in process.log)
        assert len(children_of(process)) == 2
        assert not before & set(children_of(process))
        assert len(client.embed(["text"]).embeddings) == 1


def test_what_does_not_come_up_replaces_nothing(redis_url, worker, tmp_path):
    access = tmp_path / "access.toml"
    access.write_text('[tenants.somebody]\nmodels = ["*"]\n')
    options = ["--access", str(access), "--processes", "2"]
    with gateway(redis_url, *options) as (process, address), stubs(address) as client:
        before = set(children_of(process))
        access.write_text("not TOML")
        process.signal(signal.SIGHUP)
        eventually(lambda: '"not restarted"' in process.log)
        assert set(children_of(process)) == before
        health = health_pb2_grpc.HealthStub(client.channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status == SERVING


@dataclass(frozen=True, slots=True, kw_only=True)
class ByFile:
    """A gateway of two processes whose settings are all in a file."""

    process: Process
    file: Path
    settings: Mapping[str, object]

    def change(self, **settings: object) -> None:
        """Write the file anew, with these in place of what it began with."""
        write(self.file, {**self.settings, **settings})

    def restart(self, end: str) -> None:
        """Come back once the log says `end`."""
        num_before = self.process.log.count(f'"{end}"')
        self.process.signal(signal.SIGHUP)
        eventually(lambda: self.process.log.count(f'"{end}"') > num_before)


@contextlib.contextmanager
def by_file(folder: Path, **settings: object):
    file = folder / "settings.toml"
    write(file, settings)
    with running("gateway", "--config", str(file), "--processes", "2") as process:
        yield ByFile(process=process, file=file, settings=settings)


def write(file: Path, settings: Mapping[str, object]) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    file.write_text("\n".join(["[gateway]", *lines]))


@pytest.fixture(scope="module")
def to_all(redis_url, tmp_path_factory):
    """One that listens beyond this machine."""
    settings = {"redis": redis_url, "listen": "0.0.0.0:0", "insecure": True}
    with by_file(tmp_path_factory.mktemp("settings"), **settings) as found:
        found.process.ready()
        yield found


def test_a_restart_without_tls_is_refused_where_the_processes_listen_beyond_this_machine(to_all):
    before = set(children_of(to_all.process))
    to_all.change(listen="127.0.0.1:0", insecure=False)  # not where they listen
    to_all.restart("not restarted")
    assert "which needs --tls-cert" in to_all.process.log
    assert set(children_of(to_all.process)) == before


def test_a_restart_that_waits_for_a_mistake_gives_way_to_the_next_one(to_all):
    process, before = to_all.process, set(children_of(to_all.process))
    to_all.change(await_models=["typo"])
    process.signal(signal.SIGHUP)
    eventually(lambda: len(children_of(process)) == 3)
    [waiting] = set(children_of(process)) - before
    eventually(lambda: f'"pid": "{waiting.pid}"' in process.log)  # it has read the file
    to_all.change()
    to_all.restart("restarted")
    assert "was not ready when it was to be replaced again" in process.log
    assert is_gone(waiting)
    assert len(set(children_of(process)) - before) == 2


def test_what_the_parent_goes_by_outlives_a_restart(redis_url, worker, tmp_path):
    with by_file(tmp_path, redis=redis_url, listen="127.0.0.1:0", drain_grace_s=300) as found:
        process, address = found.process, found.process.ready()
        found.change(listen="nobody.invalid:1", http_listen="127.0.0.1:0", lame_duck_s=0, drain_grace_s=0.001)
        found.restart("restarted")
        with calls_in_flight(address, worker) as calls:
            process.signal(signal.SIGTERM)
            eventually(lambda: process.log.count('"draining"') == 4)
            worker.release()
            assert [len(call.result().embeddings) for call in calls] == [1] * len(calls)
        assert process.wait() == 0
        assert '"http"' not in process.log


async def test_a_process_that_is_not_ready_in_time_replaces_nothing(redis_url, monkeypatch):
    arguments = ["--redis", redis_url, "--listen", "127.0.0.1:0", "--processes", "2"]
    requests, ready = Requests(), asyncio.Event()
    settings = GatewaySettings.from_command_line(arguments)
    with structlog.testing.capture_logs() as logs:
        serving = asyncio.create_task(serve_in_processes(settings, arguments, requests, lambda _: ready.set()))
        await ready.wait()
        monkeypatch.setattr("gateway.processes.READY_LIMIT_S", 0.0)
        before = set(psutil.Process().children())
        requests.restart.set()
        await until(lambda: any(line["event"] == "not restarted" for line in logs))
        assert set(psutil.Process().children()) == before
        requests.stop.drain.set()
        await serving
    [line] = [line for line in logs if line["event"] == "not restarted"]
    assert line["error"] == "a gateway process was not ready after 0 s"


@pytest.mark.parametrize("flag", ["--listen", "--http-listen"])
def test_an_address_in_use_is_refused_even_where_it_could_be_shared(redis_url, flag):
    addresses = {"--listen": "127.0.0.1:0", "--http-listen": "127.0.0.1:0"}
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        addresses[flag] = f"127.0.0.1:{taken.getsockname()[1]}"
        options = [word for pair in addresses.items() for word in pair]
        with running("gateway", "--redis", redis_url, "--processes", "2", *options) as process:
            assert process.wait() == 1
            assert f"{flag} {addresses[flag]}: cannot listen there" in process.log


def test_processes_that_die_before_they_are_ready_end_the_parent_with_the_reason():
    with (
        redis_server(embedded_binary(), "--maxmemory-policy", "allkeys-lru") as url,
        running("gateway", "--redis", url, "--processes", "2", "--listen", "127.0.0.1:0") as process,
    ):
        assert process.wait() == 1
        last = json.loads(process.log.splitlines()[-1])
        assert last["event"] == "cannot serve"
        assert "noeviction" in last["error"]


def embed_later(client: Stubs, text: str) -> grpc.Future:
    return client.embedding.Embed.future(embedding_pb2.EmbedRequest(inputs=[text]), timeout=TIMEOUT_S)


@contextlib.contextmanager
def calls_in_flight(address: str, worker: EchoWorker):
    """Eight, each on a connection of its own, that wait for the worker."""
    worker.hold()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(stubs(address)) for _ in range(8)]
        calls = [embed_later(client, f"text {number}") for number, client in enumerate(clients)]
        eventually(lambda: worker.num_queued() == len(calls))
        yield calls


def test_a_stop_lets_calls_in_flight_finish_in_all_processes(redis_url, worker):
    with gateway(redis_url, "--processes", "2", "--drain-grace-s", "300") as (process, address):
        children = children_of(process)
        with calls_in_flight(address, worker) as calls:
            process.signal(signal.SIGTERM)
            eventually(lambda: process.log.count('"draining"') == 2)
            worker.release()
            assert [len(call.result().embeddings) for call in calls] == [1] * len(calls)
        assert process.wait() == 0
        assert all(is_gone(child) for child in children)


def test_a_stop_in_the_middle_of_a_restart_cuts_no_call(redis_url, worker):
    with gateway(redis_url, "--processes", "2", "--drain-grace-s", "300") as (process, address):
        with calls_in_flight(address, worker) as calls:
            process.signal(signal.SIGHUP)
            eventually(lambda: process.log.count('"draining"') == 1)
            process.signal(signal.SIGTERM)
            eventually(lambda: process.log.count('"draining"') == 3)
            worker.release()
            assert [len(call.result().embeddings) for call in calls] == [1] * len(calls)
        assert process.wait() == 0


def test_a_second_signal_kills_at_once(redis_url, worker):
    with gateway(redis_url, "--processes", "2", "--drain-grace-s", "300") as (process, address), stubs(address) as one:
        children = children_of(process)
        worker.hold()
        call = embed_later(one, "text")
        eventually(lambda: worker.num_queued() == 1)
        process.signal(signal.SIGTERM)
        eventually(lambda: process.log.count('"draining"') == 2)
        process.signal(signal.SIGTERM)
        assert process.wait() == 1
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert all(is_gone(child) for child in children)


def test_a_killed_parent_leaves_no_process(redis_url, worker):
    with gateway(redis_url, "--processes", "2") as (process, _):
        children = children_of(process)
        process.signal(signal.SIGKILL)
        eventually(lambda: all(is_gone(child) for child in children))
