"""The worker's step, in three stages that overlap: take, compute, answer.

1. The taker waits until the worker holds less than two batches, takes jobs up to the budget and decodes them. What they
   share leaves room in the batch, for which it takes more.
2. The computing stage asks which of them are still wanted, and starts the model on those. On CUDA it does not wait for
   the end, so that the next batch is laid out and enqueued meanwhile.
3. The answering stage waits for the results, encodes and sends them and ends the jobs in one transaction.

So the next batch is taken while the present one computes and the last one is sent. A stage that dies ends the worker:
its jobs then go to another one, deliveries counted. Stopping in order finishes the batch that runs and gives back
the rest uncounted.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

import structlog

from jobqueue.consumer import Consumer, TakenJob
from jobqueue.errors import QueueAwayError
from jobqueue.messages import Answer, DecodeError, Failure, FailureReason, Job, decode_job
from worker.batching import Work, cost_saved, plan_batches
from worker.metrics import WorkerMetrics
from worker.pace import Pace

MAX_HELD_BATCHES = 2  # the one that runs and the next
RETRY_S = 0.5
LEAST_ROOM_SHARE = 8  # an eighth of a batch is worth another round trip to Redis
MAX_REFILLS = 8
LAST_WORDS_S = 5.0  # for answers that are computed, and for giving back the rest
CONFIRM_AFTER_S = 0.02  # a batch that begins as soon as it was taken need not ask again

log = structlog.get_logger()

T = TypeVar("T")


class Computed(Protocol):
    """A batch that has run: from `began_at`, in seconds of time.monotonic(), for `compute_us`."""

    @property
    def began_at(self) -> float: ...

    @property
    def compute_us(self) -> int: ...


StartedT = TypeVar("StartedT")
ComputedT = TypeVar("ComputedT", bound=Computed)


class Engine(Protocol[StartedT, ComputedT]):
    """What runs batches. `start` is called in one thread, `wait` and `answers` in another, in the order of starts."""

    def check(self, job: Job) -> Failure | None:
        """Why the job cannot be run here; None where it can."""
        ...

    def prefix_cost(self, job: Job) -> int:
        """What the job's prefix costs, and another job with the same one saves beside it."""
        ...

    def start(self, jobs: Sequence[Job]) -> StartedT:
        """Begin a batch; it may still run when this comes back."""
        ...

    def wait(self, started: StartedT) -> ComputedT:
        """Wait for its end."""
        ...

    def answers(self, computed: ComputedT, queue_us: Sequence[int]) -> list[Answer]:
        """One answer per job, in order; the jobs waited for `queue_us`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Running(Generic[StartedT]):
    """A batch that has been started."""

    batch: Sequence[Work]
    started: StartedT


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A batch whose jobs were answered; `fill` is its cost over the budget.

    The model began with it at `began_at`, the answers were sent from `sending_at` to `sent_at`: seconds of
    time.monotonic().
    """

    answered: Sequence[tuple[TakenJob, Answer]]
    began_at: float
    compute_us: int
    sending_at: float
    sent_at: float
    fill: float


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


class Since:
    """For how long one thread has been at something that may hang."""

    def __init__(self) -> None:
        self._began_at: float | None = None

    def __enter__(self) -> None:
        self._began_at = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._began_at = None

    def age_s(self) -> float:
        began_at = self._began_at
        return 0.0 if began_at is None else time.monotonic() - began_at


class WorkerLoop(Generic[StartedT, ComputedT]):
    """Runs until `stopping` is set."""

    def __init__(
        self,
        consumer: Consumer,
        engine: Engine[StartedT, ComputedT],
        metrics: WorkerMetrics,
        *,
        budget: int,
        stopping: threading.Event,
        on_ended: Callable[[Ended], None] = lambda _: None,
    ) -> None:
        """`on_ended` is called after each batch, in the answering stage."""
        self._consumer = consumer
        self._metrics = metrics
        self._engine = engine
        self._budget = budget
        self._least_room = max(budget // LEAST_ROOM_SHARE, 1)
        self._stopping = stopping
        self._on_ended = on_ended
        self._held = Held()
        self._ready: SimpleQueue[Sequence[Work] | None] = SimpleQueue()
        self._running: SimpleQueue[Running[StartedT] | None] = SimpleQueue()
        self._error: Exception | None = None
        self._starting, self._waiting = Since(), Since()
        self._pace = Pace()
        metrics.watch(self)

    def run(self) -> None:
        """Work until told to stop; then give back what has not run. Raises what ended a stage."""
        stages = [self._start(self._take_all), self._start(self._answer_all)]
        self._run_stage(self._compute_all)
        self._running.put(None)
        for stage in stages:
            stage.join()
        if self._error is not None:
            raise self._error
        num_returned = self._patiently(self._consumer.leave, last_words_s=LAST_WORDS_S)
        log.info("drained", num_jobs_returned=num_returned)

    def batch_age_s(self) -> float:
        """For how long the model has been at one batch."""
        return max(self._starting.age_s(), self._waiting.age_s())

    def tokens_per_s(self) -> int:
        """How many it ends when it has enough to do; 0 before the first full batch."""
        return self._pace.tokens_per_s

    def num_held(self) -> int:
        """Batches that have been taken and not answered."""
        return self._held.count

    def _start(self, stage: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._run_stage, args=(stage,), name=stage.__name__, daemon=True)
        thread.start()
        return thread

    def _run_stage(self, stage: Callable[[], None]) -> None:
        """Run a stage to its end; if it fails, the others stop in order, and what was computed is still sent."""
        try:
            stage()
        except Exception as error:  # noqa: BLE001 - whatever it is, `run` raises it
            self._error = self._error or error
            self._stopping.set()

    def _take_all(self) -> None:
        try:
            while not self._stopping.is_set():
                self._held.wait_below(MAX_HELD_BATCHES, self._stopping)
                if not self._stopping.is_set():
                    self._take()
        finally:
            self._ready.put(None)

    def _take(self) -> None:
        num_held = self._held.count
        take = self._patiently(lambda: self._consumer.take(budget=self._budget, num_held=num_held))
        has_suspect = any(job.is_suspect for job in take.jobs)
        self._metrics.taken(take.jobs)
        work = self._decode(take.jobs)
        if not has_suspect:
            work = self._fill_up(work, num_held)
        for batch in plan_batches(work, budget=self._budget):
            self._held.add(1)
            self._ready.put(batch)
        if take.suspects_wait or has_suspect:
            self._held.wait_below(1, self._stopping)  # a suspect runs while nothing else is held

    def _fill_up(self, work: list[Work], num_held: int) -> list[Work]:
        """Take more where sharing has left room, as long as that makes more room."""
        saved = 0
        for _ in range(MAX_REFILLS):
            before, saved = saved, cost_saved(work)
            if saved - before < self._least_room or len(work) >= self._consumer.max_jobs:
                break
            room = self._budget - sum(item.taken.cost for item in work) + saved
            more = self._patiently(
                partial(self._consumer.take_more, budget=room, num_taken=len(work), num_held=num_held)
            )
            self._metrics.taken(more.jobs)
            work = [*work, *self._decode(more.jobs)]
        return work

    def _decode(self, jobs: Sequence[TakenJob]) -> list[Work]:
        """The jobs that this model can run; the others are answered here."""
        work: list[Work] = []
        refused: list[tuple[TakenJob, Answer]] = []
        for taken in jobs:
            outcome = _decode_or_explain(taken, self._engine)
            if isinstance(outcome, Failure):
                log.error("invalid job", request_id=taken.request_id, error=outcome.message)
                refused.append((taken, outcome))
            else:
                cost = self._engine.prefix_cost(outcome)
                work.append(Work(taken=taken, job=outcome, prefix_cost=cost, taken_at=time.monotonic()))
        if refused:
            self._patiently(lambda: self._consumer.finish(refused))
            self._metrics.answered([answer for _, answer in refused])
        return work

    def _compute_all(self) -> None:
        while (batch := self._ready.get()) is not None:
            if self._stopping.is_set():
                continue  # it goes back with the consumer's leave
            wanted = self._confirm(batch)
            if wanted:
                self._running.put(self._start_batch(wanted))
            else:
                self._held.add(-1)

    def _confirm(self, batch: Sequence[Work]) -> Sequence[Work]:
        """Nothing is computed for a caller who has gone, or whose deadline has passed, since the batch was taken."""
        if time.monotonic() - min(work.taken_at for work in batch) < CONFIRM_AFTER_S:
            return batch
        confirmed = self._patiently(lambda: self._consumer.confirm([work.taken for work in batch]))
        self._metrics.dropped(len(batch) - len(confirmed))
        still_wanted = {taken.job_id for taken in confirmed}
        return [work for work in batch if work.taken.job_id in still_wanted]

    def _start_batch(self, batch: Sequence[Work]) -> Running[StartedT]:
        with self._starting:
            return Running(batch=batch, started=self._engine.start([work.job for work in batch]))

    def _answer_all(self) -> None:
        while (running := self._running.get()) is not None:
            with self._waiting:
                computed = self._engine.wait(running.started)
            self._answer(running, computed)
            self._held.add(-1)

    def _answer(self, running: Running[StartedT], computed: ComputedT) -> None:
        queue_us = [work.queue_us(computed.began_at) for work in running.batch]
        answers = self._engine.answers(computed, queue_us)
        pairs = [(work.taken, answer) for work, answer in zip(running.batch, answers, strict=True)]
        sending_at = time.monotonic()
        num_ended = self._patiently(lambda: self._consumer.finish(pairs), last_words_s=LAST_WORDS_S)
        sent_at = time.monotonic()
        cost = sum(work.taken.cost for work in running.batch) - cost_saved(running.batch)
        fill = cost / self._budget
        self._pace.ended(
            sum(work.taken.tokens for work in running.batch),
            fill=fill,
            taken_at=min(work.taken_at for work in running.batch),
            now=sent_at,
        )
        self._on_ended(
            Ended(
                answered=pairs,
                began_at=computed.began_at,
                compute_us=computed.compute_us,
                sending_at=sending_at,
                sent_at=sent_at,
                fill=fill,
            )
        )
        self._metrics.ran(seconds=computed.compute_us / 1e6, fill=fill, queue_us=queue_us)
        self._metrics.answered(answers)
        self._metrics.unwanted(len(pairs) - num_ended)
        log.debug("batch", num_jobs=len(pairs), num_ended=num_ended, cost=cost, compute_us=computed.compute_us)

    def _patiently(self, call: Callable[[], T], *, last_words_s: float = 0.0) -> T:
        """Repeat while Redis is away; what is held stays held.

        Raises QueueAwayError if the worker is to stop, after `last_words_s` seconds of further tries.
        """
        gives_up_at: float | None = None
        while True:
            try:
                return call()
            except QueueAwayError as error:
                log.warning("redis away", error=str(error))
                if self._stopping.wait(RETRY_S):
                    gives_up_at = gives_up_at or time.monotonic() + last_words_s
                    if time.monotonic() >= gives_up_at:
                        raise
                    time.sleep(RETRY_S)


def _decode_or_explain(taken: TakenJob, engine: Engine[StartedT, ComputedT]) -> Job | Failure:
    try:
        job = decode_job(taken.payload)
    except DecodeError as error:
        return Failure(reason=FailureReason.INVALID_JOB, message=str(error))
    return engine.check(job) or job
