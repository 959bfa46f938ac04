"""The Prometheus metrics of the worker's loop."""

from collections.abc import Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from jobqueue.consumer import TakenJob
from jobqueue.messages import Answer, Failure, FailureReason

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1, 2)


class Loop(Protocol):
    """What is looked at when a scrape comes, in its thread."""

    def num_held(self) -> int: ...

    def batch_age_s(self) -> float: ...

    def tokens_per_s(self) -> int: ...


class WorkerMetrics:
    """What the loop counts. Every metric has the label `model`."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        def counter(name: str, description: str) -> Counter:
            return Counter(name, description, ["model"], registry=registry).labels(model)

        def gauge(name: str, description: str) -> Gauge:
            return Gauge(name, description, ["model"], registry=registry).labels(model)

        def histogram(name: str, description: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, description, ["model"], buckets=buckets, registry=registry).labels(model)

        self._batch_s = histogram("qwen3_batch_seconds", "From the start of a batch to its end", _SECONDS)
        self._batch_fill = histogram(
            "qwen3_batch_fill_ratio", "Cost of a batch over the budget, above 1 for a text over it", _SHARES
        )
        self._queue_s = histogram("qwen3_job_queue_seconds", "From a job's admission to its batch's start", _SECONDS)
        self._jobs = counter("qwen3_jobs", "Jobs answered with a result")
        failures = Counter("qwen3_job_failures", "Jobs answered with a failure", ["model", "reason"], registry=registry)
        # Made here, since a first failure that comes with its series is no increase to Prometheus.
        self._failures = {reason: failures.labels(model, reason.name) for reason in FailureReason}
        self._redelivered = counter("qwen3_jobs_redelivered", "Jobs taken that a worker held when it died")
        self._dropped = counter(
            "qwen3_jobs_dropped", "Jobs taken and not run, since their caller had gone or their deadline had passed"
        )
        self._unwanted = counter("qwen3_answers_unwanted", "Jobs computed whose answer nobody waited for any more")
        self._held = gauge("qwen3_batches_held", "Batches taken and not answered, at most two")
        self._batch_age_s = gauge("qwen3_batch_age_seconds", "For how long the model has been at its present batch")
        self._tokens_per_s = gauge(
            "qwen3_worker_tokens_per_second", "Tokens ended per second when busy; 0 before the first full batch"
        )

    def watch(self, loop: Loop) -> None:
        """Show how the loop is at each scrape."""
        self._held.set_function(loop.num_held)
        self._batch_age_s.set_function(loop.batch_age_s)
        self._tokens_per_s.set_function(loop.tokens_per_s)

    def taken(self, jobs: Sequence[TakenJob]) -> None:
        self._redelivered.inc(sum(job.deliveries > 1 for job in jobs))

    def dropped(self, num_jobs: int) -> None:
        """Jobs were left out of their batch."""
        self._dropped.inc(num_jobs)

    def ran(self, *, seconds: float, fill: float, queue_us: Sequence[int]) -> None:
        """A batch has run, whose cost after sharing was `fill` times the budget; its jobs had waited for `queue_us`."""
        self._batch_s.observe(seconds)
        self._batch_fill.observe(fill)
        for waited_us in queue_us:
            self._queue_s.observe(waited_us / 1e6)

    def answered(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, Failure):
                self._failures[answer.reason].inc()
            else:
                self._jobs.inc()

    def unwanted(self, num_jobs: int) -> None:
        """Their answers ended no job."""
        self._unwanted.inc(num_jobs)
