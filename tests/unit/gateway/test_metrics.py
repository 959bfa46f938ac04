"""What is counted of calls, and what is shown of queues."""

import pytest
from prometheus_client import CollectorRegistry

from gateway.calls import Call, Work
from gateway.identity.callers import Caller
from gateway.observing.metrics import MOST_TENANTS, CallMetrics
from gateway.observing.queue_metrics import QueueCollector
from gateway.sharing.questions import Sources
from jobqueue.lanes import Lane
from jobqueue.messages import Result
from jobqueue.status import LaneStatus, QueueStatus, WorkerStatus

EMBED = "/qwen3.inference.v1.EmbeddingService/Embed"
STREAM = "/qwen3.inference.v1.EmbeddingService/EmbedStream"
WORK = Work(model="m", lane=Lane.INTERACTIVE, num_inputs=2, input_tokens=30, tokenize_us=1_000)
RESULT = Result(rows=bytes(8), num_rows=2, computed_tokens=20, queue_us=2_000, compute_us=3_000)


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return CallMetrics(registry)


def call(method: str = EMBED, *, ago_s: float = 1.0, **fields) -> Call:
    begun = Call(method=method, request_id="r", started=0.0, deadline=0.0, **fields)
    begun.started = begun.elapsed_us / 1e6 - ago_s
    return begun


def finish(metrics: CallMetrics, ended: Call, code: str = "OK", reason: str | None = None) -> None:
    metrics.began(ended, ())
    metrics.ended(ended, code, reason)


def test_a_call_is_in_flight_until_it_ends(metrics, registry):
    first = call()
    metrics.began(first, ())
    metrics.began(call(), ())
    assert registry.get_sample_value("qwen3_calls_in_flight", {"method": "Embed"}) == 2
    metrics.ended(first, "CANCELLED", None)
    assert registry.get_sample_value("qwen3_calls_in_flight", {"method": "Embed"}) == 1


def test_an_answered_call_counts_with_its_work_and_its_seconds(metrics, registry):
    finish(metrics, call(work=WORK, result=RESULT, ago_s=2.0))
    model = {"model": "m"}
    labels = {"method": "Embed", "model": "m", "code": "OK", "reason": ""}
    assert registry.get_sample_value("qwen3_calls_total", labels) == 1
    assert registry.get_sample_value("qwen3_call_inputs_total", model) == 2
    assert registry.get_sample_value("qwen3_call_input_tokens_total", model) == 30
    assert registry.get_sample_value("qwen3_call_computed_tokens_total", model) == 20
    seconds = registry.get_sample_value("qwen3_call_seconds_sum", {"method": "Embed", "model": "m"})
    stages = {
        stage: registry.get_sample_value("qwen3_call_stage_seconds_total", model | {"stage": stage})
        for stage in ("tokenize", "queue", "compute", "rest")
    }
    assert (stages["tokenize"], stages["queue"], stages["compute"]) == (0.001, 0.002, 0.003)
    assert sum(stages.values()) == pytest.approx(seconds)
    assert seconds >= 2.0


def test_a_refusal_counts_with_its_reason_and_neither_with_seconds_nor_with_tokens(metrics, registry):
    finish(metrics, call(work=WORK), "UNAVAILABLE", "QUEUE_FULL")
    labels = {"method": "Embed", "model": "m", "code": "UNAVAILABLE", "reason": "QUEUE_FULL"}
    assert registry.get_sample_value("qwen3_calls_total", labels) == 1
    assert registry.get_sample_value("qwen3_call_seconds_count", {"method": "Embed", "model": "m"}) is None
    assert registry.get_sample_value("qwen3_call_input_tokens_total", {"model": "m"}) is None


def test_a_call_that_failed_before_its_model_was_known_has_none(metrics, registry):
    finish(metrics, call(), "INVALID_ARGUMENT", "INVALID_FIELD")
    labels = {"method": "Embed", "model": "", "code": "INVALID_ARGUMENT", "reason": "INVALID_FIELD"}
    assert registry.get_sample_value("qwen3_calls_total", labels) == 1


def test_a_chunk_counts_beside_its_stream(metrics, registry):
    stream = call(STREAM)
    metrics.began(stream, ())
    finish(metrics, call(STREAM, work=WORK, result=RESULT, chunk_id=7))
    chunk = {"method": "EmbedStream.chunk", "model": "m", "code": "OK", "reason": ""}
    assert registry.get_sample_value("qwen3_calls_total", chunk) == 1
    assert registry.get_sample_value("qwen3_calls_in_flight", {"method": "EmbedStream"}) == 1
    assert registry.get_sample_value("qwen3_calls_in_flight", {"method": "EmbedStream.chunk"}) == 0


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Watch", "/made.up/Method", "/x", ""])
def test_methods_of_others_leave_no_trace(method, metrics, registry):
    finish(metrics, call(method))
    assert not [sample for family in registry.collect() for sample in family.samples]


def test_lookups_count_by_where_the_answers_came_from(metrics, registry):
    finish(metrics, call(work=WORK, result=RESULT, sources=Sources(hits=1, misses=2, shared=3)))
    found = {
        outcome: registry.get_sample_value("qwen3_cache_lookups_total", {"model": "m", "outcome": outcome})
        for outcome in ("hit", "miss", "shared")
    }
    assert found == {"hit": 1, "miss": 2, "shared": 3}


def test_tenants_beyond_the_bound_are_counted_together(metrics, registry):
    for number in range(MOST_TENANTS + 10):
        finish(metrics, call(work=WORK, result=RESULT, caller=Caller(tenant=f"t{number}")))
    finish(metrics, call(caller=Caller(tenant="t0")))
    tenants = [
        sample.labels["tenant"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "qwen3_tenant_calls_total"
    ]
    assert len(tenants) == MOST_TENANTS + 1
    assert registry.get_sample_value("qwen3_tenant_calls_total", {"tenant": "t0", "code": "OK"}) == 2
    assert registry.get_sample_value("qwen3_tenant_calls_total", {"tenant": "other", "code": "OK"}) == 10
    assert registry.get_sample_value("qwen3_tenant_tokens_total", {"tenant": "other"}) == 300


def test_nobody_is_a_tenant_without_access_control(metrics, registry):
    finish(metrics, call(work=WORK, result=RESULT))
    assert not [sample for family in registry.collect() for sample in family.samples if "tenant" in sample.labels]


class Watch:
    """A QueueWatch that has looked."""

    def __init__(self, *statuses: QueueStatus) -> None:
        self.statuses = statuses


def lane(**fields) -> LaneStatus:
    return LaneStatus(**({"tokens": 0, "jobs": 0, "in_flight": 0, "orphans": 0, "oldest_ms": None} | fields))


def worker(name: str, **fields) -> WorkerStatus:
    defaults = {"loading": False, "lease_ms": 1000, "in_flight": 0, "tokens_per_s": None}
    return WorkerStatus(name=name, **(defaults | fields))


def status(**fields) -> QueueStatus:
    defaults = {
        "queue": "a/m@r1",
        "paused": False,
        "draining": False,
        "interactive": lane(),
        "bulk": lane(),
        "workers": (),
        "dead_letters": 0,
    }
    return QueueStatus(**(defaults | fields))


def shown(watch: Watch) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(QueueCollector(watch))
    return registry


def test_a_queue_is_shown_by_model_revision_and_lane():
    queue = status(
        interactive=lane(tokens=500, jobs=5, in_flight=2, orphans=1, oldest_ms=1500),
        workers=(
            worker("a", tokens_per_s=100.0),
            worker("b", loading=True),
            worker("c", lease_ms=-5, tokens_per_s=7.0),
            worker("d", loading=True, lease_ms=-5),
        ),
        paused=True,
        dead_letters=3,
    )
    registry = shown(Watch(queue))
    labels = {"model": "a/m", "revision": "r1"}
    of_lane = {
        name: registry.get_sample_value(f"qwen3_queue_{name}", labels | {"lane": "interactive"})
        for name in ("tokens", "jobs", "jobs_in_flight", "orphans", "oldest_seconds")
    }
    assert of_lane == {"tokens": 500, "jobs": 5, "jobs_in_flight": 2, "orphans": 1, "oldest_seconds": 1.5}
    assert registry.get_sample_value("qwen3_queue_jobs", labels | {"lane": "bulk"}) == 0
    of_queue = {
        name: registry.get_sample_value(f"qwen3_queue_{name}", labels)
        for name in ("wait_seconds", "tokens_per_second", "dead_letters", "paused", "draining")
    }
    assert of_queue == {
        "wait_seconds": 5,
        "tokens_per_second": 100,
        "dead_letters": 3,
        "paused": 1,
        "draining": 0,
    }
    states = {
        state: registry.get_sample_value("qwen3_queue_workers", labels | {"state": state})
        for state in ("live", "loading", "dead")
    }
    assert states == {"live": 1, "loading": 1, "dead": 2}
    assert registry.get_sample_value("qwen3_redis_up") == 1


def test_what_is_unknown_is_left_out():
    registry = shown(Watch(status(interactive=lane(tokens=5, jobs=1))))
    labels = {"model": "a/m", "revision": "r1"}
    assert registry.get_sample_value("qwen3_queue_tokens_per_second", labels) is None
    assert registry.get_sample_value("qwen3_queue_wait_seconds", labels) is None


def test_nothing_is_shown_of_queues_while_redis_is_away():
    watch = Watch()
    watch.statuses = None
    registry = shown(watch)
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert [(sample.name, sample.value) for sample in samples] == [("qwen3_redis_up", 0.0)]
