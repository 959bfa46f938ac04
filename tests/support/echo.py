"""A worker without a model: the real queue, and as answers a function of the token ids that tests know too."""

import contextlib
import math
import tempfile
import threading
import time
import zlib
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
import redis

from jobqueue.announcements import Announcement, announce, tokenizer_digest
from jobqueue.connection import connect
from jobqueue.consumer import Consumer, TakenJob
from jobqueue.errors import QueueAwayError
from jobqueue.keys import QueueKeys
from jobqueue.lanes import Lane
from jobqueue.messages import Answer, Job, Operation, Result, VectorEncoding, decode_job

NATIVE_DIMENSIONS = 64
MAX_INPUT_TOKENS = 512
COMPUTE_US = 1234  # which it does spend on what it takes together
DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
LEASE_MS = 15_000  # a busy machine holds up a beat for seconds
BEAT_S = 0.3
RETRY_S = 0.1
EVENTUALLY_S = 60.0  # a busy machine needs 20 s to import torch


@cache
def tokenizer_json(operation: Operation) -> bytes:
    """The published tokenizer, in the form of the model that does `operation`."""
    with tempfile.TemporaryDirectory(prefix="q3t") as folder:
        write_tokenizer(Path(folder), operation)
        return Path(folder, "tokenizer.json").read_bytes()


def write_tokenizer(folder: Path, operation: Operation) -> None:
    """The tokenizer's files as a checkpoint has them."""
    from worker.make_checkpoint import _write_tokenizer  # noqa: PLC0415 - torch is slow to import
    from worker.model.task import ModelTask  # noqa: PLC0415

    _write_tokenizer(folder, ModelTask.EMBED if operation is Operation.EMBED else ModelTask.RERANK)


@cache
def _published_digest(operation: Operation) -> str:
    return tokenizer_digest(tokenizer_json(operation))


def announcement(model_id: str, operation: Operation = Operation.EMBED, **fields) -> Announcement:
    """What an echo worker announces, unless told otherwise."""
    defaults = {
        "revision": "r1",
        "native_dimensions": NATIVE_DIMENSIONS if operation is Operation.EMBED else 0,
        "max_input_tokens": MAX_INPUT_TOKENS,
        "default_instruction": DEFAULT_INSTRUCTION,
        "tokenizer_digest": _published_digest(operation),
        "attention_cost": 0.0,
        "wakeable": False,
        "dtype": "float32",
        "engine": "echo",
    }
    return Announcement(model_id=model_id, operation=operation, **(defaults | fields))


def vector(ids: Sequence[int], dimensions: int = NATIVE_DIMENSIONS, *, normalize: bool = True) -> np.ndarray:
    """The float32 vector that stands for a sequence of token ids."""
    full = np.random.default_rng(zlib.crc32(array("i", ids).tobytes())).standard_normal(NATIVE_DIMENSIONS)
    cut = full[:dimensions].astype("<f4")
    return cut / np.linalg.norm(cut) if normalize else cut


def encoded(values: np.ndarray, encoding: VectorEncoding) -> tuple[bytes, bytes]:
    """The bytes of one vector, and those of its scale where it has one."""
    if encoding is VectorEncoding.INT8:
        scale = np.abs(values).max() / 127
        return np.round(values / scale).astype("i1").tobytes(), np.array([scale], "<f4").tobytes()
    if encoding is VectorEncoding.BINARY:
        return np.packbits(values > 0).tobytes(), b""
    return values.astype("<f2" if encoding is VectorEncoding.FLOAT16 else "<f4").tobytes(), b""


def logit(ids: Sequence[int]) -> float:
    """The logit, -8 to 8 in steps of 1/64 (exact in float32), that stands for a sequence of token ids."""
    return zlib.crc32(array("i", ids).tobytes()) % 1025 / 64 - 8


def probability(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    give_up = time.monotonic() + EVENTUALLY_S
    while not condition():
        assert time.monotonic() < give_up, "it never came to that"
        time.sleep(0.02)


class EchoWorker:
    """A context manager: announced and taking jobs inside, gone in order after it.

    `jobs` are those it has taken, oldest first. Between `hold` and `release` it answers none. `answer`, where set,
    is what every job gets.
    """

    def __init__(self, redis_url: str, model_id: str, operation: Operation = Operation.EMBED, **fields) -> None:
        self.announcement = announcement(model_id, operation, **fields)
        self.jobs: list[tuple[TakenJob, Job]] = []
        self.answer: Answer | None = None
        self.keys = QueueKeys(self.announcement.queue)
        self._redis = connect(redis_url)
        self._consumer = Consumer(self._redis, self.announcement.queue, "echo", lease_ms=LEASE_MS, max_jobs=64)
        self._loading = False
        self._stopping = threading.Event()
        self._answering = threading.Event()
        self._answering.set()
        self._threads = [threading.Thread(target=self._beat_all), threading.Thread(target=self._work_all)]

    def load(self) -> Self:
        """Announced and loading, but taking no jobs, until `start`."""
        self._loading = True
        self._consumer.join()
        self._beat()
        self._threads[0].start()
        return self

    def start(self) -> Self:
        self._loading = False
        self._consumer.join()
        self._beat()
        for thread in self._threads:
            if thread.ident is None:
                thread.start()
        return self

    def stop(self) -> None:
        """Leave in order; a second time does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._answering.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        with contextlib.suppress(QueueAwayError):
            self._consumer.leave()
        self._redis.close()

    def hold(self) -> None:
        self._answering.clear()

    def release(self) -> None:
        self._answering.set()

    def num_queued(self) -> int:
        """Jobs that wait or run, in both lanes."""
        return sum(self._redis.xlen(self.keys.lane(lane.key)) for lane in Lane)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _beat_all(self) -> None:
        while not self._stopping.wait(BEAT_S):
            try:
                self._beat()
            except (QueueAwayError, redis.RedisError):
                continue

    def _beat(self) -> None:
        self._consumer.renew(loading=self._loading)
        announce(self._redis, self.announcement, tokenizer_json(self.announcement.operation))

    def _work_all(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except QueueAwayError:
                self._stopping.wait(RETRY_S)

    def _step(self) -> None:
        taken = [(job, decode_job(job.payload)) for job in self._consumer.take(budget=100_000, num_held=0).jobs]
        self.jobs += taken
        self._answering.wait()
        time.sleep(COMPUTE_US / 1e6)
        if not self._stopping.is_set():
            self._consumer.finish([(job, self._answer(job, content)) for job, content in taken])

    def _answer(self, taken: TakenJob, job: Job) -> Answer:
        if self.answer is not None:
            return self.answer
        rows = [self._row(job, [*job.prefix, *tail]) for tail in job.tails]
        return Result(
            rows=b"".join(row for row, _ in rows),
            num_rows=len(rows),
            scales=b"".join(scale for _, scale in rows),
            computed_tokens=len(job.prefix) + sum(map(len, job.tails)),
            queue_us=taken.waited_us,
            compute_us=COMPUTE_US,
        )

    def _row(self, job: Job, ids: Sequence[int]) -> tuple[bytes, bytes]:
        if job.operation is Operation.RERANK:
            return np.array([logit(ids)], "<f4").tobytes(), b""
        return encoded(vector(ids, job.dimensions, normalize=job.normalize), job.encoding)
