"""The worker's life: resolve the checkpoint, announce it, load it, work until told to stop."""

import os
import secrets
import socket
import threading

import structlog
import torch

from jobqueue.announcements import Announcement, find_disagreement, tokenizer_digest
from jobqueue.connection import SyncRedis, connect, probe, redis_border
from jobqueue.consumer import Consumer
from jobqueue.errors import QueueAwayError
from jobqueue.keys import check_queue_name
from runtime.ready import say_ready
from runtime.settings import SettingError
from worker.config import WorkerSettings
from worker.engine import OPERATIONS, Engine, Placement
from worker.heartbeat import Heartbeat
from worker.loop import WorkerLoop
from worker.model.checkpoint import Checkpoint, ModelTask, resolve_checkpoint

BEATS_PER_LEASE = 3
RECONNECT_S = 1.0
DEFAULT_BATCH_TOKENS = {"cuda": 32_768, "cpu": 4_096}

log = structlog.get_logger()


def work(settings: WorkerSettings, stopping: threading.Event, working: threading.Event) -> None:
    """Serve one model until `stopping` is set. Prints `ready MODEL TASK` once it takes jobs, and sets `working`.

    Raises CheckpointError, SettingError or UnsuitableServerError for what cannot be served or used.
    """
    redis = connect(settings.redis)
    if not _await_redis(redis, stopping):
        return
    placement = Placement.choose(settings.device, settings.dtype)
    task = None if settings.task is None else ModelTask(settings.task)
    checkpoint = resolve_checkpoint(settings.model, task=task, name=settings.name, revision=settings.revision)
    announcement = _announcement(checkpoint, settings, placement)
    consumer = Consumer(
        redis,
        announcement.queue,
        f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        lease_ms=int(settings.lease_s * 1000),
        max_jobs=settings.max_batch_jobs,
    )
    _check_agreement(redis, announcement)
    consumer.join()
    interval_s = settings.lease_s / BEATS_PER_LEASE
    with Heartbeat(redis, consumer, announcement, checkpoint.tokenizer_json, interval_s=interval_s) as heartbeat:
        _limit_device_memory(placement, settings.device_memory_share)
        engine = Engine(checkpoint, placement, max_input_tokens=announcement.max_input_tokens)
        loop = WorkerLoop(consumer, engine, budget=_budget(settings, placement), stopping=stopping)
        heartbeat.loaded(is_hung=lambda: loop.batch_age_s() > settings.max_batch_s)
        working.set()
        log.info("ready", queue=announcement.queue, attention=engine.attention_name, dtype=placement.dtype)
        say_ready(f"{checkpoint.model_id} {checkpoint.task}")
        loop.run()


def _await_redis(redis: SyncRedis, stopping: threading.Event) -> bool:
    """Wait for a server that answers; False if told to stop first. A worker may start before its Redis does."""
    while not stopping.is_set():
        try:
            probe(redis)
        except QueueAwayError as error:
            log.warning("waiting for redis", error=str(error))
            stopping.wait(RECONNECT_S)
        else:
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
        dtype=placement.dtype,
        engine="packed",
    )


def _check_agreement(redis: SyncRedis, announcement: Announcement) -> None:
    with redis_border():
        disagreement = find_disagreement(redis, announcement)
    if disagreement is not None:
        raise SettingError(f"queue {announcement.queue} is served already: {disagreement}; set --name or --revision")


def _budget(settings: WorkerSettings, placement: Placement) -> int:
    return settings.max_batch_tokens or DEFAULT_BATCH_TOKENS[placement.device.type]


def _limit_device_memory(placement: Placement, share: float) -> None:
    if placement.device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, placement.device)
