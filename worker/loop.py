"""The worker's step, in three stages that overlap: take, compute, answer.

1. The taker waits until the worker holds less than two batches, takes jobs up to the budget and decodes them.
2. The computing stage asks which of them are still wanted, and runs the model over those.
3. The answering stage encodes the results, sends them and ends the jobs in one transaction.

So the next batch is taken while the present one computes and the last one is sent. A stage that dies ends the worker:
its jobs then go to another one, deliveries counted. Stopping in order finishes the batch that runs and gives back
the rest uncounted.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

import structlog

from jobqueue.consumer import Consumer, TakenJob
from jobqueue.errors import QueueAwayError
from jobqueue.messages import Answer, DecodeError, Failure, FailureReason, Job, decode_job
from worker.batching import plan_batches
from worker.engine import Computed, Engine

MAX_HELD_BATCHES = 2  # the one that runs and the next
RETRY_S = 0.5

log = structlog.get_logger()

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A job that is ready to run. `taken_at` is in seconds of time.monotonic()."""

    taken: TakenJob
    job: Job
    taken_at: float

    def queue_us(self, started_at: float) -> int:
        """Microseconds from its admission to the start of its batch."""
        return self.taken.waited_us + int((started_at - self.taken_at) * 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A batch that has run."""

    batch: Sequence[Work]
    computed: Computed
    started_at: float


class Held:
    """How many batches the worker holds, for others to wait on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.count = 0

    def add(self, num: int) -> None:
        with self._changed:
            self.count += num
            self._changed.notify_all()

    def wait_below(self, num: int, stopping: threading.Event) -> None:
        """Wait until less than `num` batches are held, or the worker stops."""
        with self._changed:
            while self.count >= num and not stopping.is_set():
                self._changed.wait(timeout=0.5)


class WorkerLoop:
    """Runs until `stopping` is set."""

    def __init__(self, consumer: Consumer, engine: Engine, *, budget: int, stopping: threading.Event) -> None:
        self._consumer = consumer
        self._engine = engine
        self._budget = budget
        self._stopping = stopping
        self._held = Held()
        self._ready: SimpleQueue[Sequence[Work] | None] = SimpleQueue()
        self._finished: SimpleQueue[Finished | None] = SimpleQueue()
        self._error: Exception | None = None
        self._batch_started_at: float | None = None

    def run(self) -> None:
        """Work until told to stop; then give back what has not run. Raises what ended a stage."""
        stages = [self._start(self._take_all), self._start(self._answer_all)]
        self._compute_all()
        self._finished.put(None)
        for stage in stages:
            stage.join()
        if self._error is not None:
            raise self._error
        log.info("drained", num_jobs_returned=self._consumer.leave())

    def batch_age_s(self) -> float:
        """For how long the present batch has been running."""
        started_at = self._batch_started_at
        return 0.0 if started_at is None else time.monotonic() - started_at

    def _start(self, stage: Callable[[], None]) -> threading.Thread:
        """Run a stage in a thread; if it fails, the others are stopped."""

        def run() -> None:
            try:
                stage()
            except Exception as error:  # noqa: BLE001 - whatever it is, `run` raises it
                self._error = error
                self._stopping.set()

        thread = threading.Thread(target=run, name=stage.__name__, daemon=True)
        thread.start()
        return thread

    def _take_all(self) -> None:
        try:
            while not self._stopping.is_set():
                self._held.wait_below(MAX_HELD_BATCHES, self._stopping)
                self._take()
        finally:
            self._ready.put(None)

    def _take(self) -> None:
        num_held = self._held.count
        take = self._patiently(lambda: self._consumer.take(budget=self._budget, num_held=num_held))
        for batch in plan_batches(take.jobs, budget=self._budget):
            work = self._decode(batch)
            self._held.add(1)
            self._ready.put(work)
        if take.suspects_wait or any(job.is_suspect for job in take.jobs):
            self._held.wait_below(1, self._stopping)  # a suspect runs while nothing else is held

    def _decode(self, batch: Sequence[TakenJob]) -> list[Work]:
        """The jobs that this model can run; the others are answered here."""
        work: list[Work] = []
        refused: list[tuple[TakenJob, Answer]] = []
        for taken in batch:
            outcome = _decode_or_explain(taken, self._engine)
            if isinstance(outcome, Failure):
                log.error("invalid job", request_id=taken.request_id, error=outcome.message)
                refused.append((taken, outcome))
            else:
                work.append(Work(taken=taken, job=outcome, taken_at=time.monotonic()))
        if refused:
            self._patiently(lambda: self._consumer.finish(refused))
        return work

    def _compute_all(self) -> None:
        while (batch := self._ready.get()) is not None:
            if self._stopping.is_set():
                continue  # it goes back with the consumer's leave
            wanted = self._confirm(batch)
            if wanted:
                self._finished.put(self._compute(wanted))
            else:
                self._held.add(-1)

    def _confirm(self, batch: Sequence[Work]) -> Sequence[Work]:
        """Nothing is computed for a caller who has gone or whose deadline has passed."""
        if not batch:
            return batch
        confirmed = self._patiently(lambda: self._consumer.confirm([work.taken for work in batch]))
        still_wanted = {taken.job_id for taken in confirmed}
        return [work for work in batch if work.taken.job_id in still_wanted]

    def _compute(self, batch: Sequence[Work]) -> Finished:
        self._batch_started_at = started_at = time.monotonic()
        try:
            computed = self._engine.compute([work.job for work in batch])
            return Finished(batch=batch, computed=computed, started_at=started_at)
        finally:
            self._batch_started_at = None

    def _answer_all(self) -> None:
        while (finished := self._finished.get()) is not None:
            self._answer(finished)
            self._held.add(-1)

    def _answer(self, finished: Finished) -> None:
        queue_us = [work.queue_us(finished.started_at) for work in finished.batch]
        answers = self._engine.answers(finished.computed, queue_us)
        pairs = [(work.taken, answer) for work, answer in zip(finished.batch, answers, strict=True)]
        num_ended = self._patiently(lambda: self._consumer.finish(pairs))
        log.debug(
            "batch",
            num_jobs=len(pairs),
            num_ended=num_ended,
            tokens=sum(work.taken.tokens for work in finished.batch),
            compute_us=finished.computed.compute_us,
        )

    def _patiently(self, call: Callable[[], T]) -> T:
        """Repeat while Redis is away; what is held stays held. Raises QueueAwayError if the worker is to stop."""
        while True:
            try:
                return call()
            except QueueAwayError as error:
                log.warning("redis away", error=str(error))
                if self._stopping.wait(RETRY_S):
                    raise


def _decode_or_explain(taken: TakenJob, engine: Engine) -> Job | Failure:
    try:
        job = decode_job(taken.payload)
    except DecodeError as error:
        return Failure(reason=FailureReason.INVALID_JOB, message=str(error))
    return engine.check(job) or job
