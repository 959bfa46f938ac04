import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from jobqueue.consumer import TakenJob
from jobqueue.lanes import Lane
from jobqueue.messages import Failure, FailureReason, Operation, Result
from tests.support.echo import announcement
from worker.loop import Ended
from worker.tracing import MAX_LINKS, batch_tracing

QUEUE = "m@r1"
RESULT = Result(rows=b"1234", num_rows=1, computed_tokens=5, queue_us=1, compute_us=2)


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def on_ended(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return batch_tracing(provider.get_tracer("test"), announcement("m", Operation.EMBED))


def job(number: int, *, is_traced: bool) -> TakenJob:
    return TakenJob(
        lane=Lane.INTERACTIVE,
        entry_id=f"{number}-0".encode(),
        deliveries=1,
        tokens=5,
        cost=5,
        job_id=bytes(16),
        gateway=b"gw",
        tenant="",
        request_id=f"req-{number}",
        payload=b"",
        must_run_alone=False,
        waited_us=0,
        expires_at=0.0,
        trace=f"00-{number + 1:032x}-{number + 1:016x}-01" if is_traced else "",
    )


def batch(*jobs: TakenJob, answer=RESULT) -> Ended:
    return Ended(
        answered=[(each, answer) for each in jobs],
        began_at=10.0,
        compute_us=500_000,
        sending_at=11.0,
        sent_at=11.5,
        fill=0.5,
    )


def test_a_batch_of_untraced_jobs_is_not_traced(on_ended, exporter):
    on_ended(batch(job(1, is_traced=False)))
    assert not exporter.get_finished_spans()


def test_without_a_tracer_nothing_is_traced():
    batch_tracing(None, announcement("m", Operation.EMBED))(batch(job(1, is_traced=True)))


def test_a_batch_is_a_trace_of_its_own_linked_to_who_sent_its_traced_jobs(on_ended, exporter):
    on_ended(batch(job(1, is_traced=True), job(2, is_traced=False), job(3, is_traced=True)))
    settling, processing = exporter.get_finished_spans()
    assert (processing.name, processing.kind, processing.parent) == (f"process {QUEUE}", SpanKind.CONSUMER, None)
    assert [(link.context.trace_id, link.context.span_id) for link in processing.links] == [(2, 2), (4, 4)]
    assert [link.attributes["qwen3.request_id"] for link in processing.links] == ["req-1", "req-3"]
    assert [link.attributes["messaging.message.id"] for link in processing.links] == ["1-0", "3-0"]
    assert (settling.name, settling.kind) == (f"settle {QUEUE}", SpanKind.CLIENT)
    assert settling.parent.span_id == processing.context.span_id


def test_a_batchs_spans_have_its_times(on_ended, exporter):
    on_ended(batch(job(1, is_traced=True)))
    settling, processing = exporter.get_finished_spans()
    assert round((processing.end_time - processing.start_time) / 1e9, 3) == 1.5
    assert round((settling.end_time - settling.start_time) / 1e9, 3) == 0.5
    assert settling.end_time == processing.end_time


def test_a_batch_says_what_it_held_and_cost(on_ended, exporter):
    on_ended(batch(job(1, is_traced=True), job(2, is_traced=False)))
    _, processing = exporter.get_finished_spans()
    assert dict(processing.attributes) == {
        "messaging.system": "redis",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": QUEUE,
        "messaging.consumer.group.name": "workers",
        "messaging.batch.message_count": 2,
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 10,
        "qwen3.batch.fill_ratio": 0.5,
        "qwen3.batch.compute_seconds": 0.5,
        "qwen3.batch.num_failed": 0,
    }
    assert processing.status.is_unset


def test_a_batch_with_a_job_that_failed_has_failed_without_its_words(on_ended, exporter):
    failure = Failure(reason=FailureReason.INVALID_JOB, message="quoted text")
    on_ended(batch(job(1, is_traced=True), answer=failure))
    _, processing = exporter.get_finished_spans()
    assert processing.attributes["qwen3.batch.num_failed"] == 1
    assert not processing.status.is_unset
    assert "quoted text" not in processing.to_json()


def test_no_span_has_more_links_than_it_may(on_ended, exporter):
    on_ended(batch(*(job(number, is_traced=True) for number in range(MAX_LINKS + 2))))
    _, processing = exporter.get_finished_spans()
    assert len(processing.links) == MAX_LINKS
    assert processing.dropped_links == 0
