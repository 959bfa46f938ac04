"""A span for each batch with a traced call's job in it, linked to the spans that sent those jobs.

    CONSUMER  process QUEUE    from the model's start to the end of the jobs
      CLIENT  settle QUEUE     the answers are sent and the jobs ended, in one step

A batch belongs to many calls, so it is below none of them: it is a trace of its own, and the links lead to the calls.
"""

import time
from collections.abc import Callable, Sequence
from itertools import islice

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from jobqueue.announcements import Announcement
from jobqueue.consumer import TakenJob
from jobqueue.keys import GROUP
from jobqueue.messages import Failure
from worker.loop import Ended

MAX_LINKS = 128  # of one span, as the SDK has it

_propagator = TraceContextTextMapPropagator()


def batch_tracing(tracer: Tracer | None, announcement: Announcement) -> Callable[[Ended], None]:
    """What the loop tells its batches to."""
    return (lambda _: None) if tracer is None else BatchTraces(tracer, announcement).ended


class BatchTraces:
    """The spans of one queue's batches."""

    def __init__(self, tracer: Tracer, announcement: Announcement) -> None:
        self._tracer = tracer
        self._queue = announcement.queue
        self._model = announcement.model_id

    def ended(self, batch: Ended) -> None:
        """Spans with the times that the batch had; none where nobody traces any of its jobs."""
        links = _links([job for job, _ in batch.answered])
        if not links:
            return
        epoch_s = time.time() - time.monotonic()
        began_ns, sending_ns, sent_ns = (
            int((at + epoch_s) * 1e9) for at in (batch.began_at, batch.sending_at, batch.sent_at)
        )
        span = self._tracer.start_span(
            f"process {self._queue}", Context(), SpanKind.CONSUMER, self._attributes(batch), links, began_ns
        )
        settling = self._tracer.start_span(
            f"settle {self._queue}",
            set_span_in_context(span, Context()),
            SpanKind.CLIENT,
            self._messaging("settle", len(batch.answered)),
            start_time=sending_ns,
        )
        settling.end(sent_ns)
        if any(isinstance(answer, Failure) for _, answer in batch.answered):
            span.set_status(StatusCode.ERROR)
        span.end(sent_ns)

    def _attributes(self, batch: Ended) -> dict[str, str | int | float]:
        return self._messaging("process", len(batch.answered)) | {
            "gen_ai.request.model": self._model,
            "gen_ai.usage.input_tokens": sum(job.tokens for job, _ in batch.answered),
            "qwen3.batch.fill_ratio": batch.fill,
            "qwen3.batch.compute_seconds": batch.compute_us / 1e6,
            "qwen3.batch.num_failed": sum(isinstance(answer, Failure) for _, answer in batch.answered),
        }

    def _messaging(self, operation: str, num_jobs: int) -> dict[str, str | int | float]:
        return {
            "messaging.system": "redis",
            "messaging.operation.type": operation,
            "messaging.operation.name": operation,
            "messaging.destination.name": self._queue,
            "messaging.consumer.group.name": GROUP,
            "messaging.batch.message_count": num_jobs,
        }


def _links(jobs: Sequence[TakenJob]) -> list[Link]:
    return [_link(job) for job in islice((job for job in jobs if job.trace), MAX_LINKS)]


def _link(job: TakenJob) -> Link:
    """To the span that sent the job."""
    sender = get_current_span(_propagator.extract({"traceparent": job.trace}, Context())).get_span_context()
    return Link(sender, {"messaging.message.id": job.entry_id.decode(), "qwen3.request_id": job.request_id})
