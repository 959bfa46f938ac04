"""What a running gateway tells over HTTP: probes through its life, metrics of real calls and queues."""

import contextlib
import signal
import tempfile
from pathlib import Path

import grpc
import pytest

from qwen3.inference.v1 import embedding_pb2
from tests.support.echo import EchoWorker, eventually
from tests.support.http import Scrape, get, http_address
from tests.support.processes import gateway, running
from tests.support.redis_servers import embedded_binary, free_ports, redis_server
from tests.support.wire import Stubs

HTTP = ("--http-listen", "127.0.0.1:0")
MARKER = "xyzzy-plugh-plover"


def embed_request() -> embedding_pb2.EmbedRequest:
    return embedding_pb2.EmbedRequest(config=embedding_pb2.EmbedConfig(), inputs=["text"])


@contextlib.contextmanager
def serving(redis_url: str, *options: str):
    """A gateway: its process, its stubs, and where it tells of itself."""
    with gateway(redis_url, *HTTP, *options) as (process, address):
        stubs = Stubs(address)
        yield process, stubs, http_address(process)
        stubs.channel.close()


def test_calls_are_counted_by_method_model_code_and_reason(redis_url, worker):
    with serving(redis_url) as (_, stubs, address):
        num_tokens = stubs.embed(["one", "two"]).usage.input_tokens
        with pytest.raises(grpc.RpcError):
            stubs.embed([""])
        with pytest.raises(grpc.RpcError):
            stubs.channel.unary_unary(f"/{MARKER}/Method")(b"", timeout=10)
        with pytest.raises(grpc.RpcError):
            stubs.embed(["text"], model=MARKER)
        scrape = Scrape(address)
    assert scrape.value("qwen3_calls_total", method="Embed", model="emb", code="OK", reason="") == 1
    assert scrape.value("qwen3_calls_total", method="Embed", model="", reason="INVALID_FIELD") == 1
    assert scrape.value("qwen3_calls_total", method="Embed", model="", code="NOT_FOUND") == 1
    assert scrape.value("qwen3_calls_total") == 3
    assert scrape.value("qwen3_calls_in_flight") == 0
    assert scrape.value("qwen3_call_inputs_total", model="emb") == 2
    assert scrape.value("qwen3_call_input_tokens_total", model="emb") == num_tokens
    assert scrape.value("qwen3_call_seconds_count", method="Embed", model="emb") == 1
    seconds = scrape.value("qwen3_call_seconds_sum", method="Embed", model="emb")
    assert scrape.value("qwen3_call_stage_seconds_total", model="emb") == pytest.approx(seconds, rel=0.01, abs=2e-5)
    assert MARKER not in scrape.text


def test_a_queue_is_shown_as_redis_has_it(redis_url, worker):
    with serving(redis_url) as (_, stubs, address):
        worker.hold()
        calls = [stubs.embedding.Embed.future(embed_request(), timeout=60) for _ in range(3)]
        model = {"model": "emb", "revision": "r1"}
        eventually(lambda: Scrape(address).value("qwen3_queue_jobs", lane="interactive", **model) == 3)
        scrape = Scrape(address)
        assert scrape.value("qwen3_calls_in_flight", method="Embed") == 3
        assert scrape.value("qwen3_queue_tokens", lane="interactive", **model) > 0
        assert scrape.value("qwen3_queue_jobs", lane="bulk", **model) == 0
        assert scrape.value("qwen3_queue_oldest_seconds", lane="interactive", **model) > 0
        assert scrape.value("qwen3_queue_workers", state="live", **model) == 1
        assert scrape.value("qwen3_redis_up") == 1
        worker.release()
        for call in calls:
            call.result()
        eventually(lambda: Scrape(address).value("qwen3_queue_jobs", **model) == 0)


def test_a_gateway_is_alive_before_it_is_ready_and_not_ready_once_it_is_told_to_stop(redis_url, worker):
    with serving(redis_url, "--drain-grace-s", "300") as (process, stubs, address):
        assert get(address, "/livez") == get(address, "/readyz") == (200, "ok\n")
        worker.hold()
        call = stubs.embedding.Embed.future(embed_request(), timeout=60)
        eventually(lambda: worker.num_queued() == 1)
        process.signal(signal.SIGTERM)
        eventually(lambda: get(address, "/readyz") == (503, "stopping\n"))
        assert get(address, "/livez") == (200, "ok\n")
        assert Scrape(address).value("qwen3_calls_in_flight", method="Embed") == 1
        worker.release()
        call.result()
        assert process.wait() == 0


def test_a_gateway_without_redis_is_alive_and_not_ready():
    with tempfile.TemporaryDirectory(prefix="q3h") as folder:
        url = f"unix://{Path(folder)}/nobody.sock"
        with running("gateway", "--redis", url, "--listen", "127.0.0.1:0", *HTTP) as process:
            address = http_address(process)
            assert get(address, "/livez") == (200, "ok\n")
            assert get(address, "/readyz") == (503, "starting\n")
            assert Scrape(address).value("qwen3_redis_up") == 0
            assert process.stop() == 0


def test_a_gateway_that_loses_redis_is_not_ready_and_shows_nothing_old():
    with contextlib.ExitStack() as server:
        url = server.enter_context(redis_server(embedded_binary()))
        with EchoWorker(url, "emb"), serving(url) as (_, _, address):
            eventually(lambda: Scrape(address).value("qwen3_queue_workers", state="live") == 1)
            server.close()
            eventually(lambda: get(address, "/readyz") == (503, "redis is away\n"))
            assert get(address, "/livez") == (200, "ok\n")
            eventually(lambda: "qwen3_redis_up 0.0" in Scrape(address).text)
            assert "qwen3_queue_workers{" not in Scrape(address).text


@pytest.fixture
def free_address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


def test_processes_on_one_port_show_their_sum(redis_url, worker, free_address):
    with gateway(redis_url, "--http-listen", free_address, "--processes", "2") as (process, grpc_address):
        for _ in range(8):
            stubs = Stubs(grpc_address)  # a connection of its own, which the kernel gives to one of the processes
            stubs.embed(["text"])
            stubs.channel.close()
        eventually(lambda: Scrape(free_address).value("qwen3_calls_total", method="Embed", code="OK") == 8)
        scrape = Scrape(free_address)
        assert scrape.value("qwen3_call_seconds_count", method="Embed", model="emb") == 8
        assert scrape.value("qwen3_calls_in_flight") == 0
        eventually(lambda: Scrape(free_address).value("qwen3_queue_workers", model="emb", state="live") == 1)
        assert scrape.text.count("qwen3_build_info{") == 1
        assert process.stop() == 0


def test_a_process_that_drains_leaves_the_port_to_the_others(redis_url, worker, free_address):
    """Of two processes one drains for as long as its call runs; probes meet only those that go on."""
    options = ("--http-listen", free_address, "--processes", "2", "--drain-grace-s", "300")
    with gateway(redis_url, *options) as (process, grpc_address):
        stubs = Stubs(grpc_address)
        worker.hold()
        call = stubs.embedding.Embed.future(embed_request(), timeout=120)
        eventually(lambda: worker.num_queued() == 1)
        process.signal(signal.SIGHUP)
        eventually(lambda: "draining" in process.log)
        eventually(lambda: all(is_ready(free_address) for _ in range(20)))
        assert not call.done()
        worker.release()
        call.result()
        stubs.channel.close()


def is_ready(address: str) -> bool:
    with contextlib.suppress(OSError):  # the kernel gives up connections that wait at a port that is closed
        return get(address, "/readyz")[0] == 200
    return False
