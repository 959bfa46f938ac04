from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from gateway.calls import Call, Work
from gateway.config import GatewaySettings
from gateway.identity.callers import Caller
from gateway.observing.spans import passage, step
from gateway.observing.tracing import CallTraces
from jobqueue.lanes import Lane

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
EMBED = "/qwen3.inference.v1.EmbeddingService/Embed"


class Traced:
    """What a tracer has exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")

    @property
    def spans(self) -> dict:
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def traced() -> Traced:
    return Traced()


@pytest.mark.parametrize("value", ["localhost:4318", "ftp://collector", "http://"])
def test_an_endpoint_that_is_no_http_url_is_refused(value, capsys):
    with pytest.raises(SystemExit):
        GatewaySettings.from_command_line(["--redis", "redis://localhost", "--otlp-endpoint", value])
    assert "--otlp-endpoint" in capsys.readouterr().err


def call_of(method=EMBED, **fields) -> Call:
    return Call(method=method, request_id="req-1", started=0.0, deadline=0.0, **fields)


def traceparent(flags: str, version: str = "00") -> list[tuple[str, str]]:
    return [("user-agent", "x"), ("traceparent", f"{version}-{TRACE_ID}-{SPAN_ID}-{flags}")]


def ended(traced: Traced, metadata, *, share: float, call: Call | None = None, code="OK", reason=None) -> dict:
    """The spans of a call without steps."""
    traces, call = CallTraces(traced.tracer, share=share), call or call_of()
    traces.began(call, metadata)
    traces.ended(call, code, reason)
    return traced.spans


@pytest.mark.parametrize(
    "metadata", [[], [("user-agent", "x")], [("traceparent", "nonsense")], traceparent("01", "ff")]
)
def test_a_share_of_the_calls_without_a_readable_trace_is_traced(metadata, traced):
    assert not ended(traced, metadata, share=0.0)
    (span,) = ended(traced, metadata, share=1.0).values()
    assert span.parent is None
    assert span.kind is SpanKind.SERVER


@pytest.mark.parametrize(
    "metadata", [traceparent("00"), traceparent("02"), traceparent("00 "), traceparent("00", "01")]
)
def test_a_call_whose_caller_does_not_sample_its_trace_is_not_traced(metadata, traced):
    assert not ended(traced, metadata, share=1.0)


@pytest.mark.parametrize("metadata", [traceparent("01"), traceparent("03"), traceparent("01", "01")])
def test_a_call_goes_on_with_the_trace_of_its_caller(metadata, traced):
    (span,) = ended(traced, [*metadata, ("tracestate", "vendor=a")], share=0.0).values()
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, SPAN_ID)
    assert f"{span.context.trace_id:032x}" == TRACE_ID
    assert span.context.trace_state.to_header() == "vendor=a"


def test_probes_of_health_are_not_traced(traced):
    assert not ended(traced, traceparent("01"), share=1.0, call=call_of("/grpc.health.v1.Health/Check"))


def test_a_calls_span_says_what_it_was_and_what_became_of_it(traced):
    work = Work(model="emb", lane=Lane.BULK, num_inputs=2, input_tokens=7, tokenize_us=1, dimensions=64)
    call = call_of(work=work, caller=Caller(tenant="acme"))
    span = ended(traced, [], share=1.0, call=call)["qwen3.inference.v1.EmbeddingService/Embed"]
    assert dict(span.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": "qwen3.inference.v1.EmbeddingService/Embed",
        "rpc.response.status_code": "OK",
        "qwen3.request_id": "req-1",
        "qwen3.tenant": "acme",
        "qwen3.lane": "bulk",
        "qwen3.num_inputs": 2,
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": "emb",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.embeddings.dimension.count": 64,
    }
    assert span.status.is_unset


@pytest.mark.parametrize(("code", "is_failure"), [("UNAVAILABLE", True), ("INVALID_ARGUMENT", False)])
def test_a_refused_call_says_why_and_is_a_failure_where_that_is_the_servers(code, is_failure, traced):
    (span,) = ended(traced, [], share=1.0, code=code, reason="BECAUSE").values()
    assert span.attributes["error.type"] == span.attributes["rpc.response.status_code"] == code
    assert span.attributes["qwen3.error_reason"] == "BECAUSE"
    assert span.status.is_ok != is_failure


def test_the_steps_of_a_call_are_below_it_and_the_queue_gets_the_senders_context(traced):
    traces, call = CallTraces(traced.tracer, share=1.0), call_of()
    traces.began(call, [])
    with step(call.trace, "tokenize"):
        pass
    with passage(call.trace, "m@1") as through:
        assert "receive m@1" not in traced.spans
        through.on_admitted()
        assert "send m@1" in traced.spans
    traces.ended(call, "OK", None)
    spans = traced.spans
    assert list(spans) == ["tokenize", "send m@1", "receive m@1", "qwen3.inference.v1.EmbeddingService/Embed"]
    *steps, server = spans.values()
    assert {span.parent.span_id for span in steps} == {server.context.span_id}
    assert [span.kind for span in steps] == [SpanKind.INTERNAL, SpanKind.PRODUCER, SpanKind.CLIENT]
    sender = spans["send m@1"].context
    assert through.trace == f"00-{sender.trace_id:032x}-{sender.span_id:016x}-{sender.trace_flags:02x}"
    assert spans["send m@1"].attributes["messaging.operation.type"] == "send"
    assert spans["receive m@1"].attributes["messaging.operation.type"] == "receive"


@pytest.mark.parametrize("is_admitted", [False, True])
def test_a_call_that_fails_on_its_way_fails_the_span_it_is_at_without_the_errors_words(is_admitted, traced):
    traces, call = CallTraces(traced.tracer, share=1.0), call_of()
    traces.began(call, [])

    def fail() -> None:
        with passage(call.trace, "m@1") as through:
            if is_admitted:
                through.on_admitted()
            raise ValueError("quoted text")

    with pytest.raises(ValueError, match="quoted text"):
        fail()
    failed = traced.spans["receive m@1" if is_admitted else "send m@1"]
    assert failed.attributes["error.type"] == "ValueError"
    assert not failed.status.is_unset
    assert not any("quoted text" in span.to_json() for span in traced.spans.values())


def test_the_chunks_of_a_stream_are_below_its_span(traced):
    traces, stream = CallTraces(traced.tracer, share=1.0), call_of("/qwen3.inference.v1.EmbeddingService/EmbedStream")
    traces.began(stream, [])
    chunk = replace(stream, chunk_id=3)
    traces.began(chunk, ())
    with step(chunk.trace, "tokenize"):
        pass
    traces.ended(chunk, "OK", None)
    traces.ended(stream, "OK", None)
    tokenizing, below, above = traced.spans.values()
    assert below.parent.span_id == above.context.span_id
    assert tokenizing.parent.span_id == below.context.span_id
    assert below.attributes["qwen3.chunk_id"] == 3


def test_the_chunks_of_an_untraced_stream_are_not_traced_either(traced):
    traces, chunk = CallTraces(traced.tracer, share=1.0), call_of(chunk_id=3)
    traces.began(chunk, ())
    traces.ended(chunk, "OK", None)
    assert not traced.spans


def test_an_untraced_call_takes_nothing_through_the_queue():
    with step(None, "tokenize"), passage(None, "m@1") as through:
        through.on_admitted()
    assert through.trace == ""
