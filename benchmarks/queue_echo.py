"""The worker's end of `benchmarks.queue`: the service's own loop around a model that answers at once, as a process."""

import argparse
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from jobqueue.connection import connect
from jobqueue.consumer import Consumer
from jobqueue.messages import Answer, Failure, Job, Result
from runtime.logs import configure_logging
from runtime.ready import say_ready
from worker.loop import WorkerLoop
from worker.metrics import WorkerMetrics

ROW = bytes(4096)  # a vector of 1,024 float32 values
BUDGET = 32_768
LEASE_MS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs that have run already."""

    jobs: Sequence[Job]
    began_at: float
    compute_us: int = 0


class EchoEngine:
    """Answers a row of zeros per sequence; what is measured is everything around it."""

    def check(self, job: Job) -> Failure | None:
        return None

    def prefix_cost(self, job: Job) -> int:
        return len(job.prefix)

    def start(self, jobs: Sequence[Job]) -> Batch:
        return Batch(jobs=jobs, began_at=time.monotonic())

    def wait(self, started: Batch) -> Batch:
        return started

    def answers(self, computed: Batch, queue_us: Sequence[int]) -> list[Answer]:
        return [
            Result(rows=ROW * len(job.tails), num_rows=len(job.tails), computed_tokens=1, queue_us=us, compute_us=0)
            for job, us in zip(computed.jobs, queue_us, strict=True)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("redis")
    parser.add_argument("queue")
    arguments = parser.parse_args()
    configure_logging("warning", process="echo")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    consumer = Consumer(connect(arguments.redis), arguments.queue, "echo", lease_ms=LEASE_MS, max_jobs=1000)
    consumer.join()
    metrics = WorkerMetrics(CollectorRegistry(), arguments.queue)
    loop = WorkerLoop(consumer, EchoEngine(), metrics, budget=BUDGET, stopping=stopping)
    say_ready(arguments.queue)
    loop.run()


if __name__ == "__main__":
    main()
