"""The caller's trace goes on in the server, where the caller uses OpenTelemetry."""

try:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # then there is no span that could be active
    _propagator = None
else:
    _propagator = TraceContextTextMapPropagator()


def trace_headers() -> list[tuple[str, str]]:
    """W3C traceparent and tracestate of the active span; nothing without one."""
    headers: dict[str, str] = {}
    if _propagator is not None:
        _propagator.inject(headers)
    return list(headers.items())
