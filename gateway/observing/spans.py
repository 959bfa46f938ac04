"""The spans of one traced call, named as OpenTelemetry's conventions for RPC and messaging have it.

    SERVER      package.Service/Method
      INTERNAL  tokenize
      PRODUCER  send QUEUE       until the queue has all its jobs; they carry the context of this span to the worker
      CLIENT    receive QUEUE    until the answer is there

A chunk of a stream is an INTERNAL span below the stream's, with the same spans below it. Messages of exceptions may
quote what the caller sent, so spans have their types only.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

Attributes = Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """What a call takes along through a queue: its traceparent, and whom to tell that the queue has it."""

    trace: str = ""
    on_admitted: Callable[[], None] = lambda: None


_UNTRACED = Passage()


class CallTrace:
    """A call's span, from its making until `end`, and the spans of its steps."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, Context())

    @property
    def trace_id(self) -> str:
        return format_trace_id(self._span.get_span_context().trace_id)

    def branch(self, name: str, attributes: Attributes) -> "CallTrace":
        """A part of the call that has steps of its own."""
        return CallTrace(self._tracer, self._tracer.start_span(name, self._context, attributes=attributes))

    def end(self, attributes: Attributes, *, is_failure: bool) -> None:
        self._span.set_attributes(attributes)
        if is_failure:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()

    @contextmanager
    def step(
        self, name: str, kind: SpanKind = SpanKind.INTERNAL, attributes: Attributes | None = None
    ) -> Iterator[Span]:
        span = self._tracer.start_span(name, self._context, kind, attributes)
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()

    @contextmanager
    def passage(self, queue: str) -> Iterator[Passage]:
        with ExitStack() as present:
            sending = present.enter_context(self._at_queue("send", SpanKind.PRODUCER, queue))

            def receive() -> None:
                present.close()
                present.enter_context(self._at_queue("receive", SpanKind.CLIENT, queue))

            yield Passage(trace=_traceparent(sending), on_admitted=receive)

    def _at_queue(self, operation: str, kind: SpanKind, queue: str) -> AbstractContextManager[Span]:
        attributes = {
            "messaging.system": "redis",
            "messaging.operation.type": operation,
            "messaging.operation.name": operation,
            "messaging.destination.name": queue,
        }
        return self.step(f"{operation} {queue}", kind, attributes)


def step(trace: CallTrace | None, name: str) -> AbstractContextManager[object]:
    """Inside, the call is at this step."""
    return nullcontext() if trace is None else trace.step(name)


def passage(trace: CallTrace | None, queue: str) -> AbstractContextManager[Passage]:
    """Inside, the call is on its way through a queue."""
    return nullcontext(_UNTRACED) if trace is None else trace.passage(queue)


def _traceparent(span: Span) -> str:
    """The header of https://www.w3.org/TR/trace-context/, version 00."""
    context = span.get_span_context()
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"
