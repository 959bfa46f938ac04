"""Traces from the caller through gateway, queue and worker and back, as a collector gets them."""

import json
import socket

import pytest
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider

from qwen3.inference.v1.embedding_pb2 import EmbedChunk, EmbedConfig, EmbedRequest, EmbedStreamRequest
from tests.support import collector as kinds
from tests.support.collector import collecting
from tests.support.echo import EchoWorker, eventually
from tests.support.processes import gateway, worker
from tests.support.queues import own_queue
from tests.support.wire import TIMEOUT_S, Stubs

MARKER = "xyzzy-plugh-plover"
SECRET = "q3-very-secret-key"
EMBED = "qwen3.inference.v1.EmbeddingService/Embed"
UNSAMPLED = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")


@pytest.fixture
def collector():
    with collecting() as found:
        yield found


@pytest.fixture
def nobodys_url():
    """Where nobody listens, nor can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def echo(redis_url):
    with EchoWorker(redis_url, "traced") as found:
        yield found


def embed(stubs, *metadata, model="traced"):
    request = EmbedRequest(config=EmbedConfig(model=model), inputs=[MARKER, f"{MARKER} again"])
    return stubs.embedding.Embed(request, timeout=TIMEOUT_S, metadata=metadata)


def call_lines(process) -> list[dict]:
    lines = [json.loads(line) for line in process.log.splitlines()]
    return [line for line in lines if line["event"] == "call"]


def test_a_call_can_be_followed_from_its_caller_to_the_batch_and_back(redis_url, embedding_checkpoint, collector):
    caller = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("caller")
    endpoint = ["--otlp-endpoint", collector.url]
    with (
        worker(redis_url, embedding_checkpoint, *endpoint) as working,
        gateway(redis_url, *endpoint, "--trace-share", "0") as (serving, address),
        caller as span,
    ):
        headers = {}
        inject(headers)
        stubs = Stubs(address)
        embed(stubs, UNSAMPLED, model="tiny-embedding")
        private = [("authorization", f"Bearer {SECRET}"), ("tracestate", f"malformed {SECRET}")]
        response = embed(stubs, *headers.items(), *private, model="tiny-embedding")
        assert (serving.stop(), working.stop()) == (0, 0)
        untraced, traced = call_lines(serving)
        written = b"".join(collector.bodies) + serving.log.encode() + working.log.encode()

    trace_id, queue = f"{span.get_span_context().trace_id:032x}", f"tiny-embedding@{response.model_revision}"
    server, tokenize = collector.named(EMBED), collector.named("tokenize")
    send, receive = collector.named(f"send {queue}"), collector.named(f"receive {queue}")
    process, settle = collector.named(f"process {queue}"), collector.named(f"settle {queue}")

    assert server.parent_id == f"{span.get_span_context().span_id:016x}"
    assert {step.parent_id for step in (tokenize, send, receive)} == {server.id}
    assert {step.trace_id for step in (server, tokenize, send, receive)} == {trace_id}
    assert process.links == [(trace_id, send.id)]
    assert process.parent_id == ""
    assert settle.parent_id == process.id
    assert settle.trace_id == process.trace_id != trace_id

    assert server.kind == kinds.SERVER
    assert [step.kind for step in (tokenize, send, receive)] == [kinds.INTERNAL, kinds.PRODUCER, kinds.CLIENT]
    assert [step.kind for step in (process, settle)] == [kinds.CONSUMER, kinds.CLIENT]
    assert send.began_ns <= process.began_ns <= settle.began_ns <= settle.ended_ns
    assert settle.began_ns <= receive.ended_ns <= server.ended_ns
    assert server.resource["service.name"] == "qwen3-gateway"
    assert process.resource["service.name"] == "qwen3-worker"

    assert server.attributes["rpc.response.status_code"] == "OK"
    assert server.attributes["gen_ai.usage.input_tokens"] == response.usage.input_tokens
    assert server.attributes["gen_ai.embeddings.dimension.count"] == response.dimensions
    assert process.attributes["messaging.batch.message_count"] == 1
    assert process.attributes["gen_ai.usage.input_tokens"] == response.usage.input_tokens

    assert traced["trace_id"] == trace_id
    assert "trace_id" not in untraced
    for hidden in (MARKER.encode(), SECRET.encode(), *(each.packed[:16] for each in response.embeddings)):
        assert hidden not in written


def test_where_nobody_samples_nothing_is_exported_and_jobs_carry_nothing(redis_url, echo, collector):
    with gateway(redis_url, "--otlp-endpoint", collector.url, "--trace-share", "0") as (process, address):
        stubs = Stubs(address)
        embed(stubs)
        embed(stubs, UNSAMPLED)
        assert process.stop() == 0
    assert not collector.bodies
    assert [taken.trace for taken, _ in echo.jobs] == ["", ""]


def test_a_share_of_the_calls_without_a_trace_begins_one_that_log_and_job_name(redis_url, echo, collector):
    with gateway(redis_url, "--otlp-endpoint", collector.url, "--trace-share", "1") as (process, address):
        embed(Stubs(address))
        assert process.stop() == 0
        (line,) = call_lines(process)
    server, send = collector.named(EMBED), collector.named(f"send {echo.announcement.queue}")
    assert server.parent_id == ""
    assert server.trace_id == line["trace_id"]
    assert [taken.trace[:52] for taken, _ in echo.jobs] == [f"00-{server.trace_id}-{send.id}"]


def test_a_call_that_is_given_up_has_failed_on_its_way_without_its_words(redis_url, echo, collector):
    with gateway(redis_url, "--otlp-endpoint", collector.url, "--trace-share", "1") as (process, address):
        echo.hold()
        request = EmbedRequest(config=EmbedConfig(model="traced"), inputs=[MARKER])
        pending = Stubs(address).embedding.Embed.future(request, timeout=TIMEOUT_S)
        eventually(lambda: echo.jobs)
        pending.cancel()
        eventually(lambda: call_lines(process))
        assert process.stop() == 0
    assert collector.named(EMBED).attributes["error.type"] == "CANCELLED"
    on_its_way = [span for span in collector.spans if span.name.startswith(("send ", "receive "))][-1]
    assert on_its_way.is_failure
    assert on_its_way.attributes["error.type"] == "CancelledError"
    assert MARKER.encode() not in b"".join(collector.bodies)


def test_the_chunks_of_a_stream_are_below_its_span(redis_url, echo, collector):
    requests = [EmbedStreamRequest(config=EmbedConfig(model="traced"))]
    requests += [EmbedStreamRequest(chunk=EmbedChunk(chunk_id=number, inputs=[f"{number}"])) for number in (1, 2)]
    with gateway(redis_url, "--otlp-endpoint", collector.url, "--trace-share", "1") as (process, address):
        responses = Stubs(address).embedding.EmbedStream(iter(requests), timeout=TIMEOUT_S)
        assert sorted(response.chunk_id for response in responses) == [1, 2]
        assert process.stop() == 0
    stream = collector.named("qwen3.inference.v1.EmbeddingService/EmbedStream")
    chunks = [span for span in collector.spans if span.name.endswith(" chunk")]
    sends = [span for span in collector.spans if span.name.startswith("send ")]
    assert sorted(chunk.attributes["qwen3.chunk_id"] for chunk in chunks) == [1, 2]
    assert {chunk.parent_id for chunk in chunks} == {stream.id}
    assert {send.parent_id for send in sends} == {chunk.id for chunk in chunks}


@pytest.mark.parametrize("away", ["nobody listens", "never answers"])
def test_a_collector_that_is_away_fails_no_call_and_holds_up_no_stop(
    away, redis_url, echo, collector, nobodys_url, monkeypatch
):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")  # ms, so that it has tried before the end
    collector.hold()
    url = collector.url if away == "never answers" else nobodys_url
    with gateway(redis_url, "--otlp-endpoint", url, "--trace-share", "1") as (process, address):
        stubs = Stubs(address)
        for _ in range(5):
            assert len(embed(stubs).embeddings) == 2
        eventually(lambda: collector.bodies if away == "never answers" else "exporting" in process.log)
        assert process.stop() == 0
        lines = [json.loads(line) for line in process.log.splitlines()]
    assert len([line for line in lines if "export" in line["event"]]) <= 1
    assert len([line for line in lines if line["event"] == "call" and line["code"] == "OK"]) == 5


def test_a_worker_reads_jobs_with_a_trace_and_without(any_redis_url):
    """The field came later than the queue: old gateways send none, and old workers read past it."""
    with own_queue(any_redis_url) as queue:
        queue.admit(1, 2, trace="00-aa-bb-01")
        queue.admit(3)
        fields = [set(found) for _, found in queue.client.xrange(queue.keys.lane("hi"))]
        assert [b"trace" in found for found in fields] == [True, True, False]
        taken = queue.consumer("worker").take(budget=100, num_held=0).jobs
        assert [job.trace for job in taken] == ["00-aa-bb-01", "00-aa-bb-01", ""]
