"""The Prometheus metrics of the worker's loop, and where they are served."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, start_http_server

from jobqueue.messages import Answer, Failure

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


def serve_metrics(registry: CollectorRegistry, address: str) -> None:
    """Answer scrapes at HOST:PORT, in a thread of its own."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asked for
    host, _, port = address.rpartition(":")
    start_http_server(int(port), addr=host.strip("[]"), registry=registry)
