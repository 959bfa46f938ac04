"""The whole service as a process, with fake gateways and workers and a real private Redis."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

SERVICE = str(Path(__file__).with_name("fake_service.py"))


class Service:
    def __init__(self, folder, gateway_ways="", worker_ways=("",)):
        self.events_file = folder / "events"
        self.events_file.touch()
        self.process = subprocess.Popen(
            [sys.executable, SERVICE, str(self.events_file), gateway_ways, *worker_ways],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )

    def events(self):
        """`role event`, in the order they happened."""
        return [" ".join(line.split()[:2]) for line in self.events_file.read_text().splitlines()]

    def pids(self):
        return {int(line.split()[2]) for line in self.events_file.read_text().splitlines()}

    def until(self, event, times=1):
        while self.events().count(event) < times:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def family(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self):
        """Kill it where it still runs, and wait for its children too: they write to the folder until they end."""
        family = self.family() if self.process.poll() is None else []
        self.process.kill()
        self.process.communicate()
        psutil.wait_procs(family, timeout=60)


@pytest.fixture
def serve():
    services = []
    # Short, for the socket's path.
    with tempfile.TemporaryDirectory(prefix="q3-") as folder:

        def serve(gateway_ways="", worker_ways=("",)):
            services.append(Service(Path(folder), gateway_ways, worker_ways))
            return services[-1]

        yield serve
        for service in services:
            service.end()


def assert_nothing_is_left(family, folder):
    _gone, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert [path.name for path in folder.iterdir()] == ["events"]


def test_one_ready_line_is_printed_and_sigterm_drains_gateway_then_workers(serve):
    service = serve(worker_ways=("", ""))
    assert service.process.stdout.readline().startswith("ready 127.0.0.1:")
    assert {"gateway ready", "worker0 ready", "worker1 ready"} <= set(service.events())
    family = service.family()
    assert len(family) == 4
    service.process.send_signal(signal.SIGTERM)
    out, err = service.process.communicate(timeout=60)
    assert (service.process.returncode, out) == (0, "")
    assert "gateway says hello\n" in err
    events = service.events()
    assert {"gateway stopped", "worker0 stopped", "worker1 stopped"} <= set(events)
    assert events.index("gateway stopped") < min(events.index("worker0 stopping"), events.index("worker1 stopping"))
    assert_nothing_is_left(family, service.events_file.parent)


def test_every_child_is_told_the_private_redis(serve):
    service = serve()
    service.process.stdout.readline()
    urls = {line.split()[3] for line in service.events_file.read_text().splitlines()}
    assert len(urls) == 1
    assert urls.pop().startswith("unix://")


def test_a_second_signal_kills_at_once(serve):
    service = serve(gateway_ways="never-stops")
    service.process.stdout.readline()
    family = service.family()
    service.process.send_signal(signal.SIGINT)
    service.until("gateway stopping")
    service.process.send_signal(signal.SIGINT)
    _out, err = service.process.communicate(timeout=60)
    assert service.process.returncode == 1
    assert "a second signal cut the draining short" in err
    assert "gateway stopped" not in service.events()
    assert_nothing_is_left(family, service.events_file.parent)


def test_a_signal_before_ready_ends_everything(serve):
    service = serve(gateway_ways="never-ready")
    service.until("gateway started")
    service.process.send_signal(signal.SIGTERM)
    out, _err = service.process.communicate(timeout=60)
    assert (service.process.returncode, out) == (0, "")


def test_a_worker_that_dies_after_ready_is_started_again(serve):
    service = serve(worker_ways=("dies-once", ""))
    assert service.process.stdout.readline().startswith("ready")
    service.until("worker0 ready", times=2)
    service.process.send_signal(signal.SIGTERM)
    service.process.communicate(timeout=60)
    assert service.process.returncode == 0
    assert service.events().count("worker1 started") == 1


def test_a_worker_that_dies_five_times_ends_the_service(serve):
    service = serve(worker_ways=("dies-after-ready", ""))
    _out, err = service.process.communicate(timeout=60)
    assert service.process.returncode == 1
    assert "qwen3-serve: worker0 ended for the 5th time in 600 s with exit status 1; its last lines:\n" in err
    assert err.endswith("bad luck\n")
    assert service.events().count("worker0 started") == 5
    assert {"gateway stopped", "worker1 stopped"} <= set(service.events())


@pytest.mark.parametrize("way", ["dies-before-ready", "dies-once,dies-before-second-ready"])
def test_a_worker_that_dies_before_ready_ends_the_service_with_its_last_lines(serve, way):
    service = serve(worker_ways=(way,))
    _out, err = service.process.communicate(timeout=60)
    assert service.process.returncode == 1
    assert "qwen3-serve: worker0 ended before it was ready with exit status 1; its last lines:\n" in err
    assert err.endswith("out of luck\n")


@pytest.mark.parametrize(("way", "when"), [("dies-before-ready", "out of luck"), ("dies-after-ready", "bad luck")])
def test_a_gateway_that_dies_ends_the_service(serve, way, when):
    service = serve(gateway_ways=way)
    _out, err = service.process.communicate(timeout=60)
    assert service.process.returncode == 1
    assert "qwen3-serve: gateway ended by itself with exit status 1; its last lines:\n" in err
    assert err.endswith(f"{when}\n")


def test_a_redis_that_dies_ends_the_service(serve):
    service = serve()
    service.process.stdout.readline()
    family = service.family()
    next(child for child in family if child.name() == "redis-server").kill()
    _out, err = service.process.communicate(timeout=60)
    assert service.process.returncode == 1
    assert "redis-server ended by itself with exit status -9" in err
    assert_nothing_is_left(family, service.events_file.parent)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_no_child_survives_a_kill_of_the_service(serve):
    service = serve(gateway_ways="leaves-a-grandchild")
    service.process.stdout.readline()
    family = [child for child in service.family() if child.name() != "sleep"]
    assert len(family) == 3
    service.process.kill()
    _gone, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
