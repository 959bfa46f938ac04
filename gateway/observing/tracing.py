"""Which calls are traced, and what their spans say of them.

A call goes on with its caller's trace where that is sampled, and is not traced where it is not. Among the calls whose
callers have no trace, a share is traced. An untraced call costs the look for a header and a random number.
"""

import re
from random import random
from typing import cast

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.calls import Call, Metadata, Work
from gateway.identity.access import OURS
from gateway.observing.spans import Attributes, CallTrace

_OPERATIONS = {"Embed": "embeddings", "EmbedStream": "embeddings", "Rerank": "rerank"}
# Codes that say something of the server; the others are the client's doing (conventions for gRPC).
_FAILURES = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
_HEADERS = ("traceparent", "tracestate")
_UNSAMPLED = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][02468ace]")
_propagator = TraceContextTextMapPropagator()


class CallTraces:
    """A CallObserver that begins and ends the spans of calls and of the chunks of streams."""

    def __init__(self, tracer: Tracer, *, share: float) -> None:
        """`share` of the calls that come without a trace are traced, 0 to 1."""
        self._tracer = tracer
        self._share = share

    def began(self, call: Call, metadata: Metadata) -> None:
        if call.chunk_id is not None:
            if call.trace is not None:  # the stream's
                call.trace = call.trace.branch(f"{_rpc(call)} chunk", {"qwen3.chunk_id": call.chunk_id})
        elif call.method.startswith(OURS):
            call.trace = self._begin(call, metadata)

    def ended(self, call: Call, code: str, reason: str | None) -> None:
        if call.trace is not None:
            call.trace.end(_attributes(call, code, reason), is_failure=code in _FAILURES)

    def _begin(self, call: Call, metadata: Metadata) -> CallTrace | None:
        context = Context()
        if headers := {name: value for name, value in metadata if name in _HEADERS}:
            if _UNSAMPLED.fullmatch(str(headers.get("traceparent"))):  # reading all of it costs ten times as much
                return None
            context = _propagator.extract(cast("dict[str, str]", headers), context)
        caller = get_current_span(context).get_span_context()
        is_wanted = caller.trace_flags.sampled if caller.is_valid else random() < self._share  # noqa: S311 - no secret
        if not is_wanted:
            return None
        span = self._tracer.start_span(
            _rpc(call), context, SpanKind.SERVER, {"rpc.system.name": "grpc", "rpc.method": _rpc(call)}
        )
        return CallTrace(self._tracer, span)


def _rpc(call: Call) -> str:
    return call.method.removeprefix("/")


def _attributes(call: Call, code: str, reason: str | None) -> Attributes:
    attributes: dict[str, str | int] = {"rpc.response.status_code": code, "qwen3.request_id": call.request_id}
    if call.caller.tenant:
        attributes["qwen3.tenant"] = call.caller.tenant
    if code != "OK":
        attributes["error.type"] = code
    if reason is not None:
        attributes["qwen3.error_reason"] = reason
    if call.work is not None:
        attributes.update(_model_attributes(call, call.work))
    return attributes


def _model_attributes(call: Call, work: Work) -> Attributes:
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": _OPERATIONS[call.method.rpartition("/")[2]],
        "gen_ai.request.model": work.model,
        "gen_ai.usage.input_tokens": work.input_tokens,
        "qwen3.num_inputs": work.num_inputs,
        "qwen3.lane": work.lane.name.lower(),
    }
    if work.dimensions:
        attributes["gen_ai.embeddings.dimension.count"] = work.dimensions
    return attributes
