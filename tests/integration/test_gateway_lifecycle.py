"""The process: how it starts, what it refuses to start on, how it lives through Redis, how it stops, what it logs."""

import asyncio
import contextlib
import json
import queue
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import grpc
import pytest
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway import life
from gateway.config import GatewaySettings
from jobqueue.connection import connect
from jobqueue.messages import Operation
from qwen3.inference.v1 import embedding_pb2, embedding_pb2_grpc, model_pb2, rerank_pb2, tokenizer_pb2
from tests.support.echo import EchoWorker, eventually
from tests.support.processes import gateway, running
from tests.support.queues import until
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import TIMEOUT_S, Stubs, refusal

MARKER = "xyzzy-plugh-plover"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class DurableRedis:
    """A server on one socket that keeps its data when it is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen | None = None
        self.url = f"unix://{folder / 'redis.sock'}"

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", "redis.sock", "--appendonly", "yes", "--appendfsync", "always"]
        command = [str(embedded_binary()), *options, "--maxmemory-policy", "noeviction"]
        self._process = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL)
        eventually(self._answers)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        with connect(self.url) as client, contextlib.suppress(redis.RedisError):
            return client.ping()
        return False


@pytest.fixture
def durable_redis():
    with tempfile.TemporaryDirectory(prefix="q3d") as folder:
        server = DurableRedis(Path(folder))
        yield server
        server.kill()


@contextlib.contextmanager
def serving(redis_url: str, *options: str):
    """A gateway: its process and its stubs."""
    with gateway(redis_url, *options) as (process, address):
        stubs = Stubs(address)
        yield process, stubs
        stubs.channel.close()


def embed_later(stubs: Stubs, text: str = "text") -> grpc.Future:
    message = embedding_pb2.EmbedRequest(config=embedding_pb2.EmbedConfig(), inputs=[text])
    return stubs.embedding.Embed.future(message, timeout=TIMEOUT_S)


def health(stubs: Stubs, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(stubs.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S).status


def log_lines(process) -> list[dict]:
    return [json.loads(line) for line in process.log.splitlines()]


def test_a_call_outlives_a_crash_of_redis(durable_redis):
    durable_redis.start()
    with EchoWorker(durable_redis.url, "emb") as worker, serving(durable_redis.url) as (_, stubs):
        worker.hold()
        pending = embed_later(stubs)
        eventually(lambda: worker.num_queued() == 1)
        durable_redis.kill()
        eventually(lambda: health(stubs) == NOT_SERVING)
        assert health(stubs, "model:emb") == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stubs.embed(["text"])
        found = refusal(caught.value)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "QUEUE_AWAY")
        assert found.retry_s == 1.0
        assert found.trailers["grpc-retry-pushback-ms"] == "1000"
        assert not pending.done()
        durable_redis.start()
        eventually(lambda: health(stubs) == SERVING)
        worker.release()
        assert len(pending.result().embeddings) == 1
        assert len(stubs.embed(["text"]).embeddings) == 1


def test_what_needs_no_redis_works_without_it(durable_redis):
    durable_redis.start()
    with EchoWorker(durable_redis.url, "emb"), serving(durable_redis.url) as (process, stubs):
        durable_redis.kill()
        eventually(lambda: health(stubs) == NOT_SERVING)
        count = tokenizer_pb2.CountTokensRequest(inputs=["text"])
        assert stubs.tokenizer.CountTokens(count, timeout=TIMEOUT_S).total_tokens == 2
        assert len(stubs.models.ListModels(model_pb2.ListModelsRequest(), timeout=TIMEOUT_S).models) == 1
        away = [line for line in log_lines(process) if line["event"] == "redis away"]
        assert len(away) == 1  # told once, not at every poll
        assert process.stop() == 0


def test_a_gateway_waits_for_its_redis(durable_redis):
    options = ["gateway", "--redis", durable_redis.url, "--listen", "127.0.0.1:0"]
    with running(*options) as process:
        eventually(lambda: "waiting for redis" in process.log)
        durable_redis.start()
        assert process.ready().startswith("127.0.0.1:")
        assert process.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_gateway_that_waits_for_its_redis_can_be_stopped(tmp_path, number):
    with running("gateway", "--redis", f"unix://{tmp_path}/nobody.sock", "--listen", "127.0.0.1:0") as process:
        eventually(lambda: "waiting for redis" in process.log)
        process.signal(number)
        assert process.wait() == 0


def test_an_evicting_redis_is_refused_with_the_reason():
    with (
        redis_server(embedded_binary(), "--maxmemory-policy", "allkeys-lru") as url,
        running("gateway", "--redis", url, "--listen", "127.0.0.1:0") as process,
    ):
        assert process.wait() == 1
        [line] = log_lines(process)
        assert line["event"] == "cannot serve"
        assert "allkeys-lru" in line["error"]
        assert "noeviction" in line["error"]


def test_an_address_in_use_is_refused(redis_url):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with running("gateway", "--redis", redis_url, "--listen", address) as process:
            assert process.wait() == 1
            assert address in process.log


def test_bad_settings_end_the_process_with_status_two():
    with running("gateway", "--redis", "redis://:s3cret@db", env={"QWEN3_BULK_SHARE": "much"}) as process:
        assert process.wait() == 2
        assert "--bulk-share (QWEN3_BULK_SHARE) = 'much'" in process.log
        assert "s3cret" not in process.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_calls_in_flight_and_refuses_new_ones(redis_url, worker, number):
    with serving(redis_url, "--drain-grace-s", "300") as (process, stubs):
        watch = health_pb2_grpc.HealthStub(stubs.channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert next(watch).status == SERVING
        worker.hold()
        call = embed_later(stubs)
        eventually(lambda: worker.num_queued() == 1)
        process.signal(number)
        assert next(watch).status == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:  # when connections are closed for new calls
            next(watch)
        assert refusal(caught.value).reason == "DRAINING"
        with pytest.raises(grpc.RpcError) as caught:
            stubs.embed(["text"])
        # gRPC's own CANCELLED where the client has not heard of it
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert not call.done()
        worker.release()
        assert len(call.result().embeddings) == 1
        assert process.wait() == 0


def test_open_streams_of_other_services_do_not_hold_up_a_stop(redis_url, shared_worker):
    with serving(redis_url, "--drain-grace-s", "300") as (process, stubs):
        messages = queue.SimpleQueue()
        messages.put(reflection_pb2.ServerReflectionRequest(list_services=""))
        reflection = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)
        stream = reflection.ServerReflectionInfo(iter(messages.get, None))
        assert next(stream).list_services_response.service
        assert process.stop() == 0
        assert refusal(stream).reason == "DRAINING"
        messages.put(None)


def test_a_lame_duck_says_that_it_is_not_serving_and_serves(redis_url, shared_worker):
    with serving(redis_url, "--lame-duck-s", "300") as (process, stubs):
        process.signal(signal.SIGTERM)
        eventually(lambda: health(stubs) == NOT_SERVING)
        assert len(stubs.embed(["text"]).embeddings) == 1


def test_sighup_does_not_end_a_process_that_is_alone(redis_url, shared_worker):
    with serving(redis_url) as (process, stubs):
        process.signal(signal.SIGHUP)
        eventually(lambda: "SIGHUP is ignored" in process.log)
        assert len(stubs.embed(["text"]).embeddings) == 1


def test_calls_that_outlast_the_grace_are_ended_and_leave_the_queue(redis_url, worker):
    with serving(redis_url, "--drain-grace-s", "0.5") as (process, stubs):
        worker.hold()
        call = embed_later(stubs)
        eventually(lambda: worker.num_queued() == 1)
        assert process.stop() == 0
        assert call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        eventually(lambda: worker.num_queued() == 0)


def test_a_second_signal_leaves_at_once(redis_url, worker):
    with serving(redis_url, "--drain-grace-s", "300") as (process, stubs):
        worker.hold()
        call = embed_later(stubs)
        eventually(lambda: worker.num_queued() == 1)
        process.signal(signal.SIGTERM)
        eventually(lambda: "draining" in process.log)
        process.signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
        assert call.code() is grpc.StatusCode.UNAVAILABLE


def test_an_idle_gateway_stops_with_nothing_but_its_log(redis_url, shared_worker):
    with serving(redis_url) as (process, _):
        assert process.stop() == 0
        assert [line["event"] for line in log_lines(process)] == ["redis", "draining"]


async def test_calls_of_a_gateway_of_which_a_part_dies_are_told_to_go_elsewhere(redis_url, worker, monkeypatch):
    dying, address = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def die(_: object) -> None:
        await dying.wait()
        raise ZeroDivisionError

    monkeypatch.setattr(life.Registry, "run", die)
    monkeypatch.setattr(life, "say_ready", address.set_result)
    settings = GatewaySettings(redis=redis_url, listen="127.0.0.1:0", drain_grace_s=300)
    serving = asyncio.create_task(life.serve(settings, asyncio.Event(), None))
    worker.hold()
    async with grpc.aio.insecure_channel(await address) as channel:
        message = embedding_pb2.EmbedRequest(inputs=["text"])
        call = embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed(message, timeout=TIMEOUT_S)
        await until(lambda: worker.num_queued() == 1)
        dying.set()
        with pytest.raises(grpc.RpcError) as caught:
            await call
        assert refusal(caught.value).reason == "DRAINING"
        with pytest.raises(ExceptionGroup):
            await serving
    await until(lambda: worker.num_queued() == 0)


def test_cached_models_that_nobody_serves_are_named(redis_url, shared_worker):
    with serving(redis_url, "--cache", "typo,*,emb,nobody") as (process, _):
        eventually(lambda: '"models": ["nobody", "typo"]' in process.log)


def test_no_text_of_any_request_is_logged(redis_url, shared_worker):
    with (
        EchoWorker(redis_url, "rer", Operation.RERANK),
        serving(redis_url, "--log-level", "debug") as (process, stubs),
    ):
        config = {"instruction": MARKER}
        stubs.embed([MARKER], request_id="seen-1", **config)
        stubs.rerank_documents(MARKER, [MARKER], return_documents=True, **config)
        count = tokenizer_pb2.CountTokensRequest(inputs=[MARKER], **config)
        stubs.tokenizer.CountTokens(count, timeout=TIMEOUT_S)
        stubs.tokenizer.Tokenize(tokenizer_pb2.TokenizeRequest(inputs=[MARKER]), timeout=TIMEOUT_S)
        wrong = [
            (stubs.embedding.Embed, embedding_pb2.EmbedRequest(inputs=[MARKER, ""])),
            (stubs.embedding.Embed, embedding_pb2.EmbedRequest(inputs=[MARKER * 1000])),
            (stubs.embedding.Embed, embedding_pb2.EmbedRequest(inputs=["x"], request_id=f"{MARKER}\n")),
            (stubs.embedding.Embed, embedding_pb2.EmbedRequest(config={"model": MARKER}, inputs=["x"])),
            (stubs.rerank.Rerank, rerank_pb2.RerankRequest(query=MARKER * 1000, documents=[MARKER])),
            (stubs.models.GetModel, model_pb2.GetModelRequest(id=MARKER)),
            (stubs.channel.unary_unary("/qwen3.inference.v1.EmbeddingService/Embed"), MARKER.encode()),
        ]
        for method, message in wrong:
            with pytest.raises(grpc.RpcError):
                method(message, timeout=TIMEOUT_S)
        assert process.stop() == 0
        calls = [line for line in log_lines(process) if line["event"] == "call"]
        assert len(calls) == 4 + len(wrong)
        assert MARKER not in process.log


def test_every_call_is_one_log_line_with_its_id_code_and_duration(redis_url, shared_worker):
    with serving(redis_url) as (process, stubs):
        stubs.embed(["text"], request_id="good")
        with pytest.raises(grpc.RpcError):
            stubs.embed([""], request_id="bad")
        good, bad = (line for line in log_lines(process) if line["event"] == "call")
    assert (good["request_id"], good["code"], good["reason"]) == ("good", "OK", None)
    assert (bad["request_id"], bad["code"], bad["reason"]) == ("bad", "INVALID_ARGUMENT", "INVALID_FIELD")
    for line in (good, bad):
        assert line["method"] == "/qwen3.inference.v1.EmbeddingService/Embed"
        assert line["duration_us"] > 0
        assert (line["process"], line["level"]) == ("gateway", "info")
