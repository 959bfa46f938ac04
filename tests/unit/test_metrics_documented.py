"""Every metric keeps Prometheus' rules for names, and docs/operations.md has each of them as it is, and no other."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from gateway.calls import Call, Work
from gateway.identity.callers import Caller
from gateway.observing.metrics import CallMetrics
from gateway.observing.queue_metrics import QueueCollector
from gateway.sharing.questions import Sources
from jobqueue.lanes import Lane
from jobqueue.messages import Failure, FailureReason, Operation, Result
from jobqueue.status import LaneStatus, QueueStatus, WorkerStatus
from runtime.metrics import BuildInfo
from tests.support.echo import announcement
from worker.metrics import WorkerMetrics
from worker.placement import Placement
from worker.runner import RunnerStats
from worker.runner_metrics import RunnerCollector

DOCUMENT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
UNITS = ("seconds", "bytes", "ratio")
OTHER_UNITS = ("ms", "us", "milliseconds", "minutes", "percent", "mib", "kib")


class Described:
    """A metric as a reader of the document sees it."""

    def __init__(self, family: Metric) -> None:
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        self.name = family.name + suffix
        self.type = "gauge" if family.type == "info" else family.type
        self.labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        self.help = family.documentation
        self.is_shown = bool(family.samples)


def gateway_registry() -> CollectorRegistry:
    """After one call that had everything."""
    registry = CollectorRegistry()
    call = Call(
        method="/qwen3.inference.v1.EmbeddingService/Embed",
        request_id="r",
        started=0.0,
        deadline=0.0,
        caller=Caller(tenant="t"),
        work=Work(model="m", lane=Lane.BULK, num_inputs=1, input_tokens=1, tokenize_us=1),
        result=Result(rows=bytes(4), num_rows=1, computed_tokens=1, queue_us=1, compute_us=1),
        sources=Sources(hits=1, misses=1, shared=1),
    )
    metrics = CallMetrics(registry)
    metrics.began(call, ())
    metrics.ended(call, "OK", None)
    registry.register(BuildInfo())
    registry.register(QueueCollector(SimpleNamespace(statuses=[queue_status()])))
    return registry


def queue_status() -> QueueStatus:
    lane = LaneStatus(tokens=1, jobs=1, in_flight=0, orphans=0, oldest_ms=1)
    worker = WorkerStatus(name="w", loading=False, lease_ms=1, in_flight=0, tokens_per_s=1.0)
    return QueueStatus(
        queue="m@r",
        paused=False,
        draining=False,
        interactive=lane,
        bulk=lane,
        workers=(worker,),
        dead_letters=0,
    )


def worker_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    runner = SimpleNamespace(
        engine="packed",
        attention="sdpa",
        kernels="torch",
        stats=lambda: RunnerStats(num_input_tokens=1, num_computed_tokens=1),
    )
    placement = Placement(device=torch.device("cpu"), dtype_name="float32")
    registry.register(RunnerCollector(runner, announcement("m", Operation.EMBED), placement))
    registry.register(BuildInfo())
    metrics = WorkerMetrics(registry, "m")
    metrics.answered([Failure(reason=FailureReason.POISON_INPUT, message="")])
    return registry


@pytest.fixture(scope="module")
def metrics() -> list[Described]:
    registries = (gateway_registry(), worker_registry())
    return [Described(family) for registry in registries for family in registry.collect()]


def documented() -> dict[str, tuple[str, set[str]]]:
    """Name -> type and labels, of the document's tables."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([\w, ]*)\| .+ \|$", DOCUMENT, re.MULTILINE)
    return {name: (type_, set(re.findall(r"\w+", labels))) for name, type_, labels in rows}


def test_the_document_has_every_metric_with_its_type_and_labels_and_no_other(metrics):
    assert all(metric.is_shown for metric in metrics)
    assert documented() == {metric.name: (metric.type, metric.labels) for metric in metrics}


def test_gateway_and_worker_have_no_metric_in_common_but_the_build():
    names = [{family.name for family in registry.collect()} for registry in (gateway_registry(), worker_registry())]
    assert names[0] & names[1] == {"qwen3_build"}


def test_names_have_the_prefix_base_units_and_the_type_they_say(metrics):
    for metric in metrics:
        assert re.fullmatch(r"qwen3(_[a-z0-9]+)+", metric.name)
        words = metric.name.removesuffix("_total").split("_")
        assert metric.name.endswith("_total") == (metric.type == "counter"), metric.name
        assert not set(OTHER_UNITS) & set(words), metric.name
        assert not set(UNITS) & set(words[:-1]), f"{metric.name}: the unit is the last word"
        assert metric.type not in words, metric.name
        assert metric.help.strip(), metric.name


def test_rules_ask_for_metrics_that_there_are_by_labels_that_they_have(metrics):
    [rules] = re.findall(r"```yaml\n(groups:.*?)```", DOCUMENT, re.DOTALL)
    labels = {}
    for metric in metrics:
        ends = ("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",)
        labels |= {metric.name + end: metric.labels for end in ends}
    asked = re.findall(r"\b(qwen3_\w+)(?:\{([^}]*)\})?", rules)
    assert len(asked) > 15
    for name, matchers in asked:
        assert name in labels
        assert set(re.findall(r"(\w+)=", matchers)) <= labels[name], name
