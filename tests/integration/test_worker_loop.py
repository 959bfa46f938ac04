"""The worker's loop over a real queue; the engine only notes what it is given."""

import asyncio
import threading
import time
from array import array
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry

from jobqueue.cost import sequence_cost
from jobqueue.messages import Job, Operation
from tests.support.queues import echo, own_queue, producer_at, submission, wait_for
from worker.engine import Computed, Started
from worker.loop import WorkerLoop
from worker.metrics import WorkerMetrics
from worker.splitting import Fitted

PREFIX = array("i", range(50))


@pytest.fixture
def queue(any_redis_url):
    with own_queue(any_redis_url) as found:
        yield found


class NotingEngine:
    def __init__(self) -> None:
        self.batches = []
        self.may_run = threading.Event()

    def check(self, job):
        return None

    def prefix_cost(self, job):
        return sequence_cost(len(job.prefix), 0.0)

    def start(self, jobs):
        self.may_run.wait(10)
        self.batches.append(len(jobs))
        return Started(jobs=jobs, wait=lambda: Fitted(rows=()), started_at=time.monotonic())

    def wait(self, started):
        return Computed(jobs=started.jobs, fitted=started.wait(), compute_us=1)

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
        yield registry
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
    with running(queue, engine, budget=260) as registry:
        await submit_all(any_redis_url, queue, [query(number) for number in range(3)], engine)
    model, num_batches = {"model": "m"}, len(engine.batches)
    assert registry.get_sample_value("qwen3_jobs_total", model) == 3
    assert registry.get_sample_value("qwen3_batch_seconds_count", model) == num_batches
    # Sharing is counted: 50 + 3 * 2 tokens at most, of 260.
    assert registry.get_sample_value("qwen3_batch_fill_ratio_bucket", model | {"le": "0.25"}) == num_batches
