"""The Prometheus metrics of calls. Every label has few values, and none that a caller could make up."""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.calls import Call, Metadata, Work
from gateway.sharing.questions import Sources
from jobqueue.messages import Result
from qwen3.inference.v1 import embedding_pb2, model_pb2, rerank_pb2, tokenizer_pb2

MOST_TENANTS = 200
OTHER_TENANTS = "other"
CHUNK = "EmbedStream.chunk"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FILES = (embedding_pb2, rerank_pb2, tokenizer_pb2, model_pb2)
_METHODS = {
    f"/{service.full_name}/{method.name}": method.name
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

ChildT = TypeVar("ChildT")


class CallMetrics:
    """Counts calls of our own services, not of health and reflection. A chunk of a stream counts like a call."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, description: str, *labels: str) -> Callable[..., Counter]:
            return _children(Counter(f"qwen3_{name}", description, labels, registry=registry).labels)

        self._in_flight = _children(_in_flight(registry).labels)
        self._call_s = _children(_call_seconds(registry).labels)
        self._calls = counter("calls", "Calls that have ended", "method", "model", "code", "reason")
        self._stage_s = counter("call_stage_seconds", "What the seconds of answered calls went to", "model", "stage")
        self._inputs = counter("call_inputs", "Texts and documents answered", "model")
        self._input_tokens = counter("call_input_tokens", "Tokens of what was answered", "model")
        self._computed_tokens = counter("call_computed_tokens", "Those that each call needed computed", "model")
        self._lookups = counter("cache_lookups", "Where answers that may be kept came from", "model", "outcome")
        self._tenant_calls = counter("tenant_calls", "Calls of each tenant", "tenant", "code")
        self._tenant_tokens = counter("tenant_tokens", "Tokens of what each tenant was answered", "tenant")
        self._tenants = _Tenants()

    def began(self, call: Call, metadata: Metadata) -> None:  # noqa: ARG002 - as CallObserver
        method = _method(call)
        if method is not None:
            self._in_flight(method).inc()

    def ended(self, call: Call, code: str, reason: str | None) -> None:
        method = _method(call)
        if method is None:
            return
        elapsed_us = call.elapsed_us
        model = call.work.model if call.work else ""
        self._in_flight(method).dec()
        self._calls(method, model, code, reason or "").inc()
        if code == "OK":
            self._call_s(method, model).observe(elapsed_us / 1e6)
        if call.caller.tenant:
            self._tenant_calls(self._tenants.label(call.caller.tenant), code).inc()
        if call.work is not None and call.result is not None and code == "OK":
            self._answered(call.caller.tenant, call.work, call.result, elapsed_us)
            self._looked_up(call.work.model, call.sources)

    def _answered(self, tenant: str, work: Work, result: Result, elapsed_us: int) -> None:
        model = work.model
        self._inputs(model).inc(work.num_inputs)
        self._input_tokens(model).inc(work.input_tokens)
        self._computed_tokens(model).inc(result.computed_tokens)
        if tenant:
            self._tenant_tokens(self._tenants.label(tenant)).inc(work.input_tokens)
        rest_us = elapsed_us - work.tokenize_us - result.queue_us - result.compute_us
        self._stage_s(model, "tokenize").inc(work.tokenize_us / 1e6)
        self._stage_s(model, "queue").inc(result.queue_us / 1e6)
        self._stage_s(model, "compute").inc(result.compute_us / 1e6)
        self._stage_s(model, "rest").inc(max(rest_us, 0) / 1e6)

    def _looked_up(self, model: str, sources: Sources | None) -> None:
        if sources is not None:
            self._lookups(model, "hit").inc(sources.hits)
            self._lookups(model, "shared").inc(sources.shared)
            self._lookups(model, "miss").inc(sources.misses)


class _Tenants:
    """Names tenants in a label: the first MOST_TENANTS that were seen, and the others together."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def label(self, tenant: str) -> str:
        if tenant not in self._named:
            if len(self._named) >= MOST_TENANTS:
                return OTHER_TENANTS
            self._named.add(tenant)
        return tenant


def _in_flight(registry: CollectorRegistry) -> Gauge:
    return Gauge(
        "qwen3_calls_in_flight",
        "Calls that have begun and not ended",
        ["method"],
        multiprocess_mode="livesum",  # of processes that share a port, those that live
        registry=registry,
    )


def _call_seconds(registry: CollectorRegistry) -> Histogram:
    description = "From the begin of a call to its success"
    return Histogram("qwen3_call_seconds", description, ["method", "model"], buckets=_SECONDS, registry=registry)


def _method(call: Call) -> str | None:
    """None for methods of others."""
    return _METHODS.get(call.method) if call.chunk_id is None else CHUNK


def _children(labels: Callable[..., ChildT]) -> Callable[..., ChildT]:
    """The library's `labels`, which takes longer to find a child than to count in it."""
    return cache(labels)
