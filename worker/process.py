"""The worker's life: resolve the checkpoint, announce it, load it, work until told to stop."""

import gc
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass

import structlog
import torch
from prometheus_client import CollectorRegistry

from jobqueue.announcements import Announcement, find_disagreement, tokenizer_digest
from jobqueue.connection import SyncRedis, connect, probe, redis_border
from jobqueue.consumer import Consumer
from jobqueue.errors import QueueAwayError
from jobqueue.keys import check_queue_name
from runtime.errors import SettingError
from runtime.http import Pulse, Watched, watching_port
from runtime.metrics import BuildInfo, new_registry
from runtime.ready import say_ready
from runtime.tracing import tracing
from worker.config import WorkerSettings
from worker.engine import OPERATIONS, Engine
from worker.heartbeat import Heartbeat
from worker.loop import WorkerLoop
from worker.metrics import WorkerMetrics
from worker.model.checkpoint import Checkpoint, ModelTask, resolve_checkpoint
from worker.placement import Placement
from worker.runner import ModelRunner
from worker.runner_metrics import RunnerCollector
from worker.runners import MIB, make_runner
from worker.tracing import batch_tracing
from worker.warmup import check_longest_input, find_budget, reserved, warm_up

BEATS_PER_LEASE = 3
RECONNECT_S = 1.0
HUNG_AFTER_S = 60.0  # of silence of the heartbeat, which waits for each of several servers that are away
CPU_BATCH_TOKENS = 4_096
CUDA_BATCH_TOKENS = 32_768
LEAST_CORES_TO_SPARE = 4

log = structlog.get_logger()


def work(settings: WorkerSettings, stopping: threading.Event, working: threading.Event) -> None:
    """Serve one model until `stopping` is set. Prints `ready MODEL TASK` once it takes jobs, and sets `working`.

    Raises CheckpointError, SettingError or UnsuitableServerError for what cannot be served or used.
    """
    registry, pulse = new_registry(), Pulse(limit_s=HUNG_AFTER_S + settings.lease_s)
    registry.register(BuildInfo())
    watched = Watched(metrics=registry, hung=pulse.problem, unready=lambda: _unready(stopping, working))
    with watching_port(settings.http_listen, watched):
        _work(settings, stopping, working, registry, pulse)


def _work(
    settings: WorkerSettings,
    stopping: threading.Event,
    working: threading.Event,
    registry: CollectorRegistry,
    pulse: Pulse,
) -> None:
    redis = connect(settings.redis)
    if not _await_redis(redis, stopping):
        return
    placement = Placement.choose(settings.device, settings.dtype)
    torch.set_num_threads(settings.threads or _default_threads(torch.get_num_threads()))
    checkpoint = _checkpoint(settings)
    announcement = _announcement(checkpoint, settings, placement)
    consumer = _join(redis, announcement, settings)
    interval_s = settings.lease_s / BEATS_PER_LEASE
    with (
        tracing(settings.otlp_endpoint, service="qwen3-worker") as tracer,
        Heartbeat(
            redis, consumer, announcement, checkpoint.tokenizer_json, interval_s=interval_s, beating=pulse.beat
        ) as heartbeat,
    ):
        _limit_device_memory(placement, settings.device_memory_share)
        loaded = _load(checkpoint, announcement, settings, placement, registry)
        loop = WorkerLoop(
            consumer,
            loaded.engine,
            loaded.metrics,
            budget=loaded.budget,
            stopping=stopping,
            on_ended=batch_tracing(tracer, announcement),
        )
        heartbeat.loaded(is_hung=lambda: loop.batch_age_s() > settings.max_batch_s, tokens_per_s=loop.tokens_per_s)
        working.set()
        say_ready(f"{checkpoint.model_id} {checkpoint.task}")
        loop.run()


def _unready(stopping: threading.Event, working: threading.Event) -> str | None:
    if stopping.is_set():
        return "stopping"
    return None if working.is_set() else "loading"


def _checkpoint(settings: WorkerSettings) -> Checkpoint:
    return resolve_checkpoint(
        settings.model,
        task=None if settings.task is None else ModelTask(settings.task),
        name=settings.name,
        revision=settings.revision,
        any_forward=settings.engine != "packed",
    )


def _join(redis: SyncRedis, announcement: Announcement, settings: WorkerSettings) -> Consumer:
    """A consumer of the model's queue, whose live workers serve the same."""
    consumer = Consumer(
        redis,
        announcement.queue,
        f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        lease_ms=int(settings.lease_s * 1000),
        max_jobs=settings.max_batch_jobs,
        keep_payloads=settings.dead_letters == "full",
    )
    _check_agreement(redis, announcement)
    consumer.join()
    return consumer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A model that is ready to run. `budget` is what a batch may cost."""

    engine: Engine
    metrics: WorkerMetrics
    budget: int


def _load(
    checkpoint: Checkpoint,
    announcement: Announcement,
    settings: WorkerSettings,
    placement: Placement,
    registry: CollectorRegistry,
) -> _Loaded:
    started_at = time.monotonic()
    runner = make_runner(checkpoint, placement, settings)
    engine = Engine(checkpoint, runner, max_input_tokens=announcement.max_input_tokens)
    loaded_at = time.monotonic()
    budget = _warm_up(runner, checkpoint, settings, placement, announcement.max_input_tokens)
    registry.register(RunnerCollector(runner, announcement, placement))
    metrics = WorkerMetrics(registry, announcement.model_id)
    # What is alive now lives as long as the process: no collection need look at it again.
    gc.collect()
    gc.freeze()
    log.info(
        "ready",
        queue=announcement.queue,
        engine=runner.engine,
        attention=runner.attention,
        kernels=runner.kernels,
        dtype=placement.dtype_name,
        max_batch_tokens=budget,
        load_s=round(loaded_at - started_at, 3),
        warm_up_s=round(time.monotonic() - loaded_at, 3),
    )
    return _Loaded(engine=engine, metrics=metrics, budget=budget)


def _await_redis(redis: SyncRedis, stopping: threading.Event) -> bool:
    """Wait for a server that answers; False if told to stop first. A worker may start before its Redis does."""
    while not stopping.is_set():
        try:
            server = probe(redis)
        except QueueAwayError as error:
            log.warning("waiting for redis", error=str(error))
            stopping.wait(RECONNECT_S)
        else:
            log.info("redis", **asdict(server))
            return True
    return False


def _announcement(checkpoint: Checkpoint, settings: WorkerSettings, placement: Placement) -> Announcement:
    if settings.max_input_tokens > checkpoint.max_input_tokens:
        raise SettingError(
            f"--max-input-tokens {settings.max_input_tokens}: the model takes {checkpoint.max_input_tokens}"
        )
    try:
        check_queue_name(f"{checkpoint.model_id}@{checkpoint.revision}")
    except ValueError as error:
        raise SettingError(f"{error}; set --name or --revision") from error
    return Announcement(
        model_id=checkpoint.model_id,
        revision=checkpoint.revision,
        operation=OPERATIONS[checkpoint.task],
        native_dimensions=checkpoint.config.hidden_size if checkpoint.task is ModelTask.EMBED else 0,
        max_input_tokens=settings.max_input_tokens or checkpoint.max_input_tokens,
        default_instruction=checkpoint.default_instruction,
        tokenizer_digest=tokenizer_digest(checkpoint.tokenizer_json),
        attention_cost=checkpoint.config.attention_cost,
        wakeable=settings.scale_to_zero,
        dtype=placement.dtype_name,
        engine=settings.engine,
    )


def _check_agreement(redis: SyncRedis, announcement: Announcement) -> None:
    with redis_border():
        disagreement = find_disagreement(redis, announcement)
    if disagreement is not None:
        raise SettingError(f"queue {announcement.queue} is served already: {disagreement}; set --name or --revision")


def _default_threads(num_cores: int) -> int:
    """One a core; from four on one less, for the threads that take jobs, answer them and keep the lease."""
    return num_cores - 1 if num_cores >= LEAST_CORES_TO_SPARE else num_cores


def _warm_up(
    runner: ModelRunner, checkpoint: Checkpoint, settings: WorkerSettings, placement: Placement, max_input_tokens: int
) -> int:
    """Ready the model, and say what a batch may cost. A CPU has memory to spare and no time for its longest input."""
    vocab_size = checkpoint.config.vocab_size
    warm_up(runner, vocab_size=vocab_size)
    if placement.device.type == "cpu":
        return settings.max_batch_tokens or CPU_BATCH_TOKENS
    with reserved(_cache_bytes(settings), placement.device):
        check_longest_input(runner, max_input_tokens=max_input_tokens, vocab_size=vocab_size)
        return settings.max_batch_tokens or find_budget(runner, largest=CUDA_BATCH_TOKENS, vocab_size=vocab_size)


def _cache_bytes(settings: WorkerSettings) -> int:
    """What the prefix cache takes at most: twice its size for a moment, while prefixes are added to a full one."""
    return 2 * settings.prefix_cache_mib * MIB if settings.engine == "packed" else 0


def _limit_device_memory(placement: Placement, share: float) -> None:
    if placement.device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, placement.device)
