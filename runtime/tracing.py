"""Traces: spans that a thread of its own sends to an OTLP/HTTP collector, in batches.

A span holds names, ids and numbers; never a text, a token id, a vector or a secret. A collector that is away costs
nobody anything: what it does not take is dropped. Headers, certificates, timeouts and batches are set by the standard
OTEL_... variables, which OpenTelemetry's SDK reads. The SDK is loaded where there is a collector only.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from opentelemetry.trace import Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PATH = "/v1/traces"
FLUSH_S = 2.0  # for the last spans, when the process stops
REMIND_S = 600.0
# Who speaks of a collector that is away: the one who sends, and the one whose buffer is full.
_COMPLAINANTS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


@contextlib.contextmanager
def tracing(endpoint: str | None, *, service: str) -> Iterator[Tracer | None]:
    """A tracer that records every span it is asked for, or None without an endpoint.

    `endpoint` is the collector's URL without the path; `service` is the service's name, unless the operator names it.
    At the end the last spans are sent, for FLUSH_S at most.
    """
    if endpoint is None:
        yield None
        return
    provider = _provider(endpoint, service)
    _quieten()
    try:
        yield provider.get_tracer("qwen3-serve")
    finally:
        flushing = threading.Thread(target=provider.shutdown, name="flush-traces", daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)


def _provider(endpoint: str, service: str) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - see above
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    whose: dict[str, str | int] = {"service.name": service, "host.name": socket.gethostname()}
    resource = Resource.create(whose | {"process.pid": os.getpid()}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint.rstrip("/") + PATH)))
    return provider


def _quieten() -> None:
    """A collector that is away is worth a line, not one for each batch; what callers send as theirs is worth none."""
    for name in _COMPLAINANTS:
        logging.getLogger(name).addFilter(_Seldom())
    logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)  # it quotes malformed headers


class _Seldom(logging.Filter):
    """Lets one line through, and the next not before REMIND_S."""

    def __init__(self) -> None:
        super().__init__()
        self._next_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created < self._next_at:
            return False
        self._next_at = record.created + REMIND_S
        return True
