import subprocess
import sys

import pytest

from runtime.tracing import tracing
from tests.support.collector import collecting
from tests.support.echo import eventually


@pytest.fixture
def collector():
    with collecting() as found:
        yield found


def test_without_an_endpoint_there_is_no_tracer_and_what_makes_one_is_not_loaded():
    program = "import sys, gateway.__main__; from runtime.tracing import tracing\n"
    program += "with tracing(None, service='s') as tracer: assert tracer is None\n"
    program += "assert not {'opentelemetry.sdk.trace', 'opentelemetry.exporter'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_last_spans_are_sent_at_the_end(collector):
    with tracing(f"{collector.url}/", service="some-service") as tracer:
        tracer.start_span("one").end()
    assert collector.paths == {"/v1/traces"}
    assert collector.named("one").resource["service.name"] == "some-service"


def test_the_operator_may_name_the_service(collector, monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=theirs,zone=a")
    with tracing(collector.url, service="ours") as tracer:
        tracer.start_span("one").end()
    resource = collector.named("one").resource
    assert (resource["service.name"], resource["zone"]) == ("theirs", "a")


def test_a_collector_that_does_not_answer_holds_up_nobody(collector):
    collector.hold()
    with tracing(collector.url, service="s") as tracer:
        tracer.start_span("one").end()
    assert collector.bodies  # it has them, and has not answered


def test_a_collector_that_refuses_is_logged_once_and_not_for_each_batch(collector, caplog, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "5")
    collector.status = 404

    def refuse_one_more() -> bool:
        tracer.start_span("one").end()
        return len(collector.bodies) > 3

    with tracing(collector.url, service="s") as tracer:
        eventually(refuse_one_more)
    assert [record.message for record in caplog.records] == [
        "Failed to export spans batch code: 404, reason: Not Found"
    ]
