"""The worker's end of `benchmarks.queue`: the service's own loop around a model that answers at once, as a process."""

import argparse
import math
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from jobqueue.announcements import Announcement, tokenizer_digest
from jobqueue.connection import connect
from jobqueue.consumer import Consumer
from jobqueue.messages import Answer, Failure, Job, Operation, Result
from runtime.logs import configure_logging
from runtime.ready import say_ready
from worker.heartbeat import Heartbeat
from worker.loop import WorkerLoop
from worker.metrics import WorkerMetrics

ROW = bytes(4096)  # a vector of 1,024 float32 values
BUDGET = 32_768
LEASE_MS = 5_000
BEAT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs that have run already."""

    jobs: Sequence[Job]
    began_at: float
    compute_us: int = 0


class EchoEngine:
    """Answers a row of zeros per sequence, at once or at a speed; what is measured is everything around it."""

    def __init__(self, *, tokens_per_s: float) -> None:
        self._tokens_per_s = tokens_per_s

    def check(self, _: Job) -> Failure | None:
        return None

    def prefix_cost(self, job: Job) -> int:
        return len(job.prefix)

    def start(self, jobs: Sequence[Job]) -> Batch:
        return Batch(jobs=jobs, began_at=time.monotonic())

    def wait(self, started: Batch) -> Batch:
        if math.isfinite(self._tokens_per_s):
            time.sleep(sum(sum(job.lengths) for job in started.jobs) / self._tokens_per_s)
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
    parser.add_argument("--tokens-per-s", type=float, default=math.inf)
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json to announce, where a gateway is to read it")
    arguments = parser.parse_args()
    configure_logging("warning", process="echo")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    redis = connect(arguments.redis)
    consumer = Consumer(redis, arguments.queue, "echo", lease_ms=LEASE_MS, max_jobs=1000)
    consumer.join()
    engine = EchoEngine(tokens_per_s=arguments.tokens_per_s)
    metrics = WorkerMetrics(CollectorRegistry(), arguments.queue)
    loop = WorkerLoop(consumer, engine, metrics, budget=arguments.budget, stopping=stopping)
    tokenizer = arguments.tokenizer.read_bytes() if arguments.tokenizer else b"{}"
    announcement = _announcement(arguments.queue, tokenizer)
    with Heartbeat(redis, consumer, announcement, tokenizer, interval_s=BEAT_S) as heartbeat:
        heartbeat.loaded(is_hung=lambda: False, tokens_per_s=loop.tokens_per_s)
        say_ready(arguments.queue)
        loop.run()


def _announcement(queue: str, tokenizer: bytes) -> Announcement:
    model_id, revision = queue.split("@")
    return Announcement(
        model_id=model_id,
        revision=revision,
        operation=Operation.EMBED,
        native_dimensions=1024,
        max_input_tokens=32_768,
        default_instruction="",
        tokenizer_digest=tokenizer_digest(tokenizer),
        attention_cost=0.0,
        wakeable=True,
        dtype="float32",
        engine="echo",
    )


if __name__ == "__main__":
    main()
