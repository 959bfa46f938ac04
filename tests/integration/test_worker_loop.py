"""The worker's loop over a real queue; the engine only notes what it is given."""

import asyncio
import threading
import time
from array import array
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from jobqueue.cost import sequence_cost
from jobqueue.messages import Failure, FailureReason, Job, Operation
from tests.support.queues import echo, own_queue, producer_at, submission, wait_for
from worker.engine import Computed, Started
from worker.loop import CONFIRM_AFTER_S, WorkerLoop
from worker.metrics import WorkerMetrics

PREFIX = array("i", range(50))


@pytest.fixture
def queue(any_redis_url):
    with own_queue(any_redis_url) as found:
        yield found


class NotingEngine:
    def __init__(self) -> None:
        self.batches = []
        self.may_run, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()

    def result(self):
        assert self.may_end.wait(10)
        return ()

    def check(self, job):
        return None

    def prefix_cost(self, job):
        return sequence_cost(len(job.prefix), 0.0)

    def start(self, jobs):
        self.may_run.wait(10)
        self.batches.append(len(jobs))
        return Started(jobs=jobs, wait=self.result, started_at=time.monotonic())

    def wait(self, started):
        return Computed(jobs=started.jobs, rows=started.wait(), began_at=started.started_at, compute_us=1)

    def answers(self, computed, queue_us):
        return [echo(job) for job in computed.jobs]


@contextmanager
def running(queue, engine, *, budget, max_jobs=100):
    stopping, registry = threading.Event(), CollectorRegistry()
    consumer = queue.consumer("loop", max_jobs=max_jobs)
    loop = WorkerLoop(consumer, engine, WorkerMetrics(registry, "m"), budget=budget, stopping=stopping)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield SimpleNamespace(metrics=registry, loop=loop, stopping=stopping, thread=thread)
    finally:
        stopping.set()
        thread.join(10)
        assert not thread.is_alive()


def query(number: int, prefix=PREFIX) -> Job:
    return Job(operation=Operation.EMBED, prefix=prefix, tails=(array("i", [1000 + number, 7]),))


async def submit_all(url, queue, calls, engine):
    """Queue all the calls before the first batch runs, and wait for their answers."""
    async with producer_at(url) as producer, asyncio.TaskGroup() as group:
        deadline = asyncio.get_running_loop().time() + 30
        for call in calls:
            group.create_task(producer.submit(submission(queue.name, call, deadline=deadline)))
        await asyncio.to_thread(wait_for, lambda: queue.check_depth().jobs == len(calls))
        engine.may_run.set()


@pytest.mark.parametrize("with_prefix", [True, False])
async def test_what_jobs_share_makes_room_for_more_of_them(with_prefix, queue, any_redis_url):
    """52 tokens each, of which 50 are the same: five fill a batch of 260 apart, and all of them fit in it together."""
    engine = NotingEngine()
    calls = [
        query(number, PREFIX if with_prefix else array("i", range(number * 50, number * 50 + 50)))
        for number in range(20)
    ]
    with running(queue, engine, budget=260):
        await submit_all(any_redis_url, queue, calls, engine)
    queue.check_idle()
    assert sum(engine.batches) == 20
    assert (max(engine.batches) > 10) == with_prefix
    assert with_prefix or max(engine.batches) == 5


async def test_no_batch_has_more_jobs_than_the_setting(queue, any_redis_url):
    engine = NotingEngine()
    with running(queue, engine, budget=260, max_jobs=7):
        await submit_all(any_redis_url, queue, [query(number) for number in range(20)], engine)
    assert sum(engine.batches) == 20
    assert max(engine.batches) == 7


async def test_batches_and_answers_are_counted(queue, any_redis_url):
    engine = NotingEngine()
    with running(queue, engine, budget=260) as worker:
        await submit_all(any_redis_url, queue, [query(number) for number in range(3)], engine)
    model, num_batches = {"model": "m"}, len(engine.batches)
    assert worker.metrics.get_sample_value("qwen3_jobs_total", model) == 3
    assert worker.metrics.get_sample_value("qwen3_batch_seconds_count", model) == num_batches
    # Sharing is counted: 50 + 3 * 2 tokens at most, of 260.
    assert worker.metrics.get_sample_value("qwen3_batch_fill_ratio_bucket", model | {"le": "0.25"}) == num_batches


async def test_jobs_that_fail_are_counted_by_reason_whether_they_ran_or_not(queue, any_redis_url):
    engine = NotingEngine()
    engine.may_run.set()
    failures = [
        Failure(reason=FailureReason.INVALID_JOB, message="no"),
        Failure(reason=FailureReason.OUT_OF_MEMORY, message="no", sequence=0),
    ]
    engine.check = lambda job: failures[0] if len(job.tails[0]) == 5 else None
    engine.answers = lambda computed, _queue_us: [failures[1] for _ in computed.jobs]
    queue.admit(5, 6)
    with running(queue, engine, budget=60) as worker:
        await asyncio.to_thread(wait_for, lambda: len(queue.answers()) == 2)
    for reason in ("INVALID_JOB", "OUT_OF_MEMORY"):
        labels = {"model": "m", "reason": reason}
        assert worker.metrics.get_sample_value("qwen3_job_failures_total", labels) == 1


def value(worker, name: str) -> float:
    return worker.metrics.get_sample_value(name, {"model": "m"})


def test_what_is_held_and_for_how_long_is_shown_as_it_is(queue):
    engine = NotingEngine()
    with running(queue, engine, budget=5) as worker:
        assert value(worker, "qwen3_batches_held") == value(worker, "qwen3_batch_age_seconds") == 0
        queue.admit(5, 5, 5)
        wait_for(lambda: value(worker, "qwen3_batches_held") == 2)
        wait_for(lambda: value(worker, "qwen3_batch_age_seconds") > 0)
        engine.may_run.set()
        wait_for(lambda: len(queue.answers()) == 3)
        wait_for(lambda: value(worker, "qwen3_batches_held") == 0)
        assert value(worker, "qwen3_worker_tokens_per_second") > 0
        assert value(worker, "qwen3_job_queue_seconds_count") == 3
        assert value(worker, "qwen3_job_queue_seconds_sum") > 0


def test_jobs_that_are_given_up_count_as_dropped_before_they_run_and_as_unwanted_after(queue):
    engine = NotingEngine()
    with running(queue, engine, budget=5) as worker:
        running_id, waiting_id = queue.admit(5, 5)
        wait_for(lambda: value(worker, "qwen3_batches_held") == 2)
        queue.cancel(running_id, 5)
        queue.cancel(waiting_id, 5)
        time.sleep(2 * CONFIRM_AFTER_S)  # a batch that was taken this moment is not asked about
        engine.may_run.set()
        wait_for(lambda: value(worker, "qwen3_batches_held") == 0)
        assert value(worker, "qwen3_answers_unwanted_total") == value(worker, "qwen3_jobs_dropped_total") == 1
    assert engine.batches == [1]


def test_jobs_of_a_dead_worker_count_as_redelivered(queue):
    dead = queue.dead_consumer("dead")
    queue.admit(5)
    dead.take(budget=5, num_held=0)
    queue.admit(6)
    queue.consumer("living").reap()
    engine = NotingEngine()
    engine.may_run.set()
    with running(queue, engine, budget=60) as worker:
        wait_for(lambda: len(queue.answers()) == 2)
        assert value(worker, "qwen3_jobs_redelivered_total") == 1


async def test_a_batch_in_flight_is_answered_by_a_worker_that_is_told_to_stop(queue, any_redis_url):
    """It was started and not waited for, as on an accelerator; what was only taken goes back uncounted."""
    engine = NotingEngine()
    engine.may_end.clear()
    calls = [query(number) for number in range(3)]
    with running(queue, engine, budget=60) as worker:
        async with producer_at(any_redis_url) as producer:
            deadline = asyncio.get_running_loop().time() + 30
            first = asyncio.create_task(producer.submit(submission(queue.name, calls[0], deadline=deadline)))
            engine.may_run.set()
            await asyncio.to_thread(wait_for, lambda: engine.batches)
            worker.stopping.set()
            later = [submission(queue.name, call, deadline=deadline) for call in calls[1:]]
            others = [asyncio.create_task(producer.submit(call)) for call in later]
            await asyncio.to_thread(wait_for, lambda: queue.check_depth().jobs == 3)
            engine.may_end.set()
            assert (await first).num_rows == 1
            await asyncio.to_thread(worker.thread.join, 10)
            assert queue.check_depth().jobs == 2
            assert set(queue.pending().values()) <= {("orphans", 0)}
            for task in others:
                task.cancel()


@pytest.mark.parametrize("hanging", ["may_run", "may_end"])
async def test_a_batch_that_hangs_grows_old_whether_it_hangs_in_its_start_or_in_its_end(hanging, queue, any_redis_url):
    engine = NotingEngine()
    engine.may_run.set()
    getattr(engine, hanging).clear()
    with running(queue, engine, budget=60) as worker:
        assert worker.loop.batch_age_s() == 0
        queue.admit(5)
        await asyncio.to_thread(wait_for, lambda: worker.loop.batch_age_s() > 0.2)
        getattr(engine, hanging).set()
        await asyncio.to_thread(wait_for, lambda: worker.loop.batch_age_s() == 0)


@pytest.mark.parametrize("stage", ["start", "wait", "answers"])
def test_a_stage_that_fails_ends_the_worker_with_its_error(stage, queue):
    engine = NotingEngine()
    engine.may_run.set()

    def fail(*_):
        raise ValueError(stage)

    setattr(engine, stage, fail)
    queue.admit(5)
    consumer = queue.consumer("loop")
    loop = WorkerLoop(consumer, engine, WorkerMetrics(CollectorRegistry(), "m"), budget=60, stopping=threading.Event())
    with pytest.raises(ValueError, match=stage):
        loop.run()
    assert len(queue.pending()) == 1, "it is left to the reaper, its delivery counted"


async def test_what_was_computed_is_still_sent_when_the_next_start_fails(queue, any_redis_url):
    engine = NotingEngine()
    engine.may_run.set()
    engine.may_end.clear()
    start = engine.start

    def fail_second(jobs):
        if engine.batches:
            engine.may_end.set()
            raise ValueError("second")
        return start(jobs)

    engine.start = fail_second
    consumer = queue.consumer("loop")
    loop = WorkerLoop(consumer, engine, WorkerMetrics(CollectorRegistry(), "m"), budget=10, stopping=threading.Event())
    queue.admit(9, 9)
    with pytest.raises(ValueError, match="second"):
        await asyncio.to_thread(loop.run)
    assert len(queue.answers()) == 1
