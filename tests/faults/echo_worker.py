"""`python -m tests.faults.echo_worker`: the project's loop, heartbeat and consumer around an engine without a model.

SIGTERM drains it, SIGUSR1 hangs its engine.
"""

import argparse
import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from jobqueue.announcements import Announcement, tokenizer_digest
from jobqueue.connection import SyncRedis, connect
from jobqueue.errors import QueueError
from jobqueue.messages import Operation
from runtime.logs import configure_logging
from runtime.ready import say_ready
from runtime.stopping import stop_on_signals
from tests.faults.answers import DIMENSIONS
from tests.faults.echo_engine import EchoEngine
from tests.faults.kill_points import KillPoint, Ledger, MortalConsumer
from worker.heartbeat import Heartbeat
from worker.loop import WorkerLoop
from worker.metrics import WorkerMetrics

MODELS = {Operation.EMBED: "echo-embedding", Operation.RERANK: "echo-reranker"}
REVISION = "r1"
INSTRUCTION = "Find what answers the query"
MAX_INPUT_TOKENS = 8192
BEATS_PER_LEASE = 3


def main() -> None:
    options = _options()
    _shift_clocks(options.clock_offset_s)
    configure_logging("info", process="echo")
    stopping = threading.Event()
    stop_on_signals(stopping.set)
    try:
        _work(options, stopping)
    except QueueError as error:
        structlog.get_logger().error("cannot serve", error=str(error))
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("operation", type=lambda name: Operation[name])
    parser.add_argument("--redis", required=True)
    parser.add_argument("--tokenizer", required=True, type=Path)
    parser.add_argument("--ledger", required=True, type=Path)
    parser.add_argument("--tokens-per-s", type=float, default=150_000.0)
    parser.add_argument("--max-batch-tokens", type=int, default=2048)
    parser.add_argument("--lease-s", type=float, default=1.5)
    parser.add_argument("--max-batch-s", type=float, default=60.0)
    parser.add_argument("--clock-offset-s", type=float, default=0.0)
    return parser.parse_args()


def _shift_clocks(offset_s: float) -> None:
    """Both clocks that Python code can ask are off; the kernel's timeouts count seconds, which no offset changes."""
    wall, monotonic = time.time, time.monotonic
    time.time = lambda: wall() + offset_s
    time.monotonic = lambda: monotonic() + offset_s


def _work(options: argparse.Namespace, stopping: threading.Event) -> None:
    redis, tokenizer_json = connect(options.redis), options.tokenizer.read_bytes()
    announcement = _announcement(options.operation, tokenizer_json)
    kill_point = KillPoint.from_environment()
    consumer = _consumer(redis, announcement.queue, options, kill_point)
    consumer.join()
    engine = EchoEngine(tokenizer_json, tokens_per_s=options.tokens_per_s, kill_point=kill_point)
    signal.signal(signal.SIGUSR1, lambda *_: engine.hang())
    metrics = WorkerMetrics(CollectorRegistry(), announcement.model_id)
    loop = WorkerLoop(consumer, engine, metrics, budget=options.max_batch_tokens, stopping=stopping)
    interval_s = options.lease_s / BEATS_PER_LEASE
    with Heartbeat(redis, consumer, announcement, tokenizer_json, interval_s=interval_s) as heartbeat:
        heartbeat.loaded(is_hung=lambda: loop.batch_age_s() > options.max_batch_s, tokens_per_s=loop.tokens_per_s)
        say_ready(announcement.queue)
        loop.run()


def _consumer(redis: SyncRedis, queue: str, options: argparse.Namespace, kill_point: KillPoint) -> MortalConsumer:
    return MortalConsumer(
        redis,
        queue,
        f"echo-{os.getpid()}-{secrets.token_hex(4)}",
        lease_ms=int(options.lease_s * 1000),
        max_jobs=200,
        kill_point=kill_point,
        ledger=Ledger(options.ledger),
    )


def _announcement(operation: Operation, tokenizer_json: bytes) -> Announcement:
    return Announcement(
        model_id=MODELS[operation],
        revision=REVISION,
        operation=operation,
        native_dimensions=DIMENSIONS if operation is Operation.EMBED else 0,
        max_input_tokens=MAX_INPUT_TOKENS,
        default_instruction=INSTRUCTION,
        tokenizer_digest=tokenizer_digest(tokenizer_json),
        attention_cost=0.0,
        wakeable=False,
        dtype="float32",
        engine="echo",
    )


if __name__ == "__main__":
    main()
