"""The worker's Prometheus metrics, read from its parts when they are scraped."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from jobqueue.announcements import Announcement
from jobqueue.messages import Answer, Failure
from worker.placement import Placement
from worker.runner import ModelRunner

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1, 2)


class WorkerMetrics:
    """What the loop counts. Every metric has the label `model`."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._batch_s = Histogram(
            "qwen3_batch_seconds",
            "From the start of a batch to its end",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        ).labels(model)
        self._batch_fill = Histogram(
            "qwen3_batch_fill_ratio",
            "Cost of a batch over the budget, above 1 for a text over it",
            ["model"],
            buckets=_SHARES,
            registry=registry,
        ).labels(model)
        self._jobs = Counter("qwen3_jobs", "Jobs answered with a result", ["model"], registry=registry).labels(model)
        self._failures = Counter(
            "qwen3_job_failures", "Jobs answered with a failure", ["model", "reason"], registry=registry
        )
        self._model = model

    def ran(self, *, seconds: float, fill: float) -> None:
        """A batch has run, whose cost after sharing was `fill` times the budget."""
        self._batch_s.observe(seconds)
        self._batch_fill.observe(fill)

    def answered(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, Failure):
                self._failures.labels(self._model, answer.reason.name).inc()
            else:
                self._jobs.inc()


class RunnerCollector(Collector):
    """What the engine has counted, and what it runs on."""

    def __init__(self, runner: ModelRunner, announcement: Announcement, placement: Placement) -> None:
        self._runner = runner
        self._model = announcement.model_id
        self._info = {
            "model": announcement.model_id,
            "revision": announcement.revision,
            "device": str(placement.device),
            "dtype": placement.dtype_name,
            "engine": runner.engine,
            "attention": runner.attention,
            "kernels": runner.kernels,
        }

    def collect(self) -> Iterator[Metric]:
        stats = self._runner.stats()
        cache = stats.prefix_cache
        yield InfoMetricFamily("qwen3_worker", "What this worker serves, and with what", value=self._info)
        yield self._counter("input_tokens", "Tokens of the sequences that ran", stats.num_input_tokens)
        yield self._counter("computed_tokens", "Those that were neither shared nor cached", stats.num_computed_tokens)
        yield self._counter("prefix_cache_hits", "Prefixes found in the cache", cache.num_hits)
        yield self._counter("prefix_cache_misses", "Prefixes not found in the cache", cache.num_misses)
        yield self._counter("prefix_cache_evictions", "Prefixes let go for others", cache.num_evicted)
        size = GaugeMetricFamily("qwen3_prefix_cache_bytes", "Keys and values kept", labels=["model"])
        size.add_metric([self._model], cache.num_bytes)
        yield size

    def _counter(self, name: str, description: str, value: int) -> CounterMetricFamily:
        family = CounterMetricFamily(f"qwen3_{name}", description, labels=["model"])
        family.add_metric([self._model], value)
        return family


def serve_metrics(registry: CollectorRegistry, address: str) -> None:
    """Answer scrapes at HOST:PORT, in a thread of its own."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asked for
    host, _, port = address.rpartition(":")
    start_http_server(int(port), addr=host.strip("[]"), registry=registry)
