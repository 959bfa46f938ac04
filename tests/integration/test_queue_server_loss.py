"""What the server forgets, refuses or loses must not stop a worker. Each test has a server of its own."""

import threading
import time

import pytest

from jobqueue.connection import connect
from jobqueue.consumer import Consumer
from jobqueue.errors import QueueAwayError
from jobqueue.keys import GROUP
from jobqueue.lanes import Lane
from tests.support.queues import SHORT_TTL_MS, Depth, finish_all, job_of, own_queue, producer_at, submission, wait_for
from tests.support.redis_servers import binaries, redis_server


@pytest.fixture(params=binaries(), ids=["embedded", "own"][: len(binaries())])
def url(request):
    with redis_server(request.param) as url:
        yield url


@pytest.fixture
def queue(url):
    with own_queue(url) as queue:
        yield queue


def sizes(take):
    return [taken.tokens for taken in take.jobs]


def fill_memory(queue):
    """From now on the server has no memory for anything new."""
    queue.client.config_set("maxmemory", queue.client.info("memory")["used_memory"] - 1)


def give_memory_back(queue):
    queue.client.config_set("maxmemory", 0)


def test_a_worker_goes_on_after_the_server_forgot_its_scripts(queue):
    worker = queue.consumer("a")
    queue.admit(10, 20)
    queue.client.script_flush()
    taken = worker.take(budget=10, num_held=0).jobs
    queue.client.script_flush()
    assert worker.confirm(taken) == list(taken)
    queue.client.script_flush()
    assert finish_all(worker, taken) == 1
    queue.client.script_flush()
    worker.renew(loading=False)
    queue.client.script_flush()
    assert worker.reap() == 0
    queue.client.script_flush()
    assert worker.leave() == 0
    assert queue.check_depth() == Depth(tokens=20, jobs=1)


def test_a_worker_goes_on_after_the_server_lost_everything(queue):
    worker = queue.consumer("a")
    queue.admit(10)
    lost = worker.take(budget=10, num_held=0).jobs
    queue.client.flushall()
    assert worker.confirm(lost) == []
    queue.client.flushall()
    assert finish_all(worker, lost) == 0
    assert queue.answers() == []

    queue.client.flushall()
    assert worker.take(budget=10, num_held=0).jobs == ()
    queue.client.flushall()
    queue.admit(20)
    take = worker.take(budget=100, num_held=0)
    assert sizes(take) == [20]
    assert finish_all(worker, take.jobs) == 1
    queue.check_idle()


@pytest.mark.parametrize("step", ["renew", "reap", "leave"])
def test_a_heartbeat_goes_on_after_the_server_lost_everything(queue, step):
    worker = queue.consumer("a")
    worker.renew(loading=False)
    queue.client.flushall()
    worker.renew(loading=False) if step == "renew" else getattr(worker, step)()
    assert worker.reap() == 0


def test_a_take_that_was_waiting_goes_on_after_the_server_lost_everything(queue, url, monkeypatch):
    monkeypatch.setattr("jobqueue.consumer.BLOCK_MS", 200)
    takes, stopping = [], threading.Event()

    def work():
        with connect(url) as client:
            worker = Consumer(client, queue.name, "a", lease_ms=60_000, max_jobs=10)
            worker.join()
            while not stopping.is_set():
                takes.append(worker.take(budget=100, num_held=sum(len(take.jobs) for take in takes)))

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: queue.client.info("clients")["blocked_clients"])
    queue.client.flushall()
    queue.admit(20)
    try:
        wait_for(lambda: any(take.jobs for take in takes))
    finally:
        stopping.set()
        thread.join()
    assert [size for take in takes for size in sizes(take)] == [20]


def test_a_read_after_a_loss_creates_the_group_again(queue):
    worker = queue.consumer("a")
    queue.client.flushall()
    assert worker._wait() == []
    assert worker.take(budget=100, num_held=0).jobs == ()


def cut_off_while_waiting(queue, url, worker, *, num_held=0):
    """The worker's connection breaks while it waits for a job."""
    with connect(url) as killer:

        def cut():
            wait_for(lambda: killer.info("clients")["blocked_clients"])
            killer.client_kill_filter(_type="normal", skipme=True)

        thread = threading.Thread(target=cut)
        thread.start()
        with pytest.raises(QueueAwayError):
            worker.take(budget=100, num_held=num_held)
        thread.join()


def test_a_server_that_is_away_is_said_so_and_the_call_may_be_repeated(url, queue, monkeypatch):
    monkeypatch.setattr("jobqueue.consumer.BLOCK_MS", 10_000)
    worker = queue.consumer("a")
    cut_off_while_waiting(queue, url, worker)
    queue.admit(10)
    assert sizes(worker.take(budget=100, num_held=0)) == [10]


def test_jobs_whose_take_was_cut_off_are_run_once_the_worker_is_idle(url, queue, monkeypatch):
    worker = queue.consumer("a")
    queue.admit(1)
    held = worker.take(budget=100, num_held=0).jobs
    monkeypatch.setattr("jobqueue.consumer.BLOCK_MS", 10_000)
    cut_off_while_waiting(queue, url, worker, num_held=1)
    queue.admit(10, 20)
    lost = queue.consumer("a")._take(budget=100, num_held=1, before=())  # as if its reply had been cut off
    assert sizes(lost) == [10, 20]

    busy = worker.take(budget=100, num_held=1)
    assert (busy.jobs, busy.suspects_wait) == ((), True)
    assert worker.confirm(held) == list(held)
    assert finish_all(worker, held) == 1
    idle = worker.take(budget=100, num_held=0)
    assert [(job.tokens, job.deliveries) for job in idle.jobs] == [(10, 1), (20, 1)]
    assert finish_all(worker, idle.jobs) == 2
    queue.check_idle()


def test_a_full_server_still_drains(queue):
    worker = queue.consumer("a")
    queue.admit(10, 20)
    fill_memory(queue)
    worker.renew(loading=False)
    for size in (10, 20):
        take = worker.take(budget=1, num_held=0)
        assert sizes(take) == [size]
        assert worker.confirm(take.jobs) == list(take.jobs)
        assert finish_all(worker, take.jobs) == 1
    assert len(queue.answers()) == 2
    assert worker.reap() == 0
    assert worker.leave() == 0
    give_memory_back(queue)
    queue.check_idle()


async def test_a_full_server_admits_nothing_and_says_that_it_is_away(queue, url):
    queue.admit(10)
    async with producer_at(url) as producer:
        reader = producer._channel(queue.name)._reader
        queue.client.xadd(reader._stream, {b"an earlier": b"answer"})
        fill_memory(queue)
        with pytest.raises(QueueAwayError):
            await producer.submit(submission(queue.name, job_of(5), deadline=time.monotonic() + 5))
    give_memory_back(queue)
    assert queue.check_depth() == Depth(tokens=10, jobs=1)


def test_a_worker_that_comes_to_a_full_server_drains_it(queue):
    """The queue was filled while no worker was there; what a worker needs there was made at admission."""
    queue.client.delete(*queue.lanes.values())
    queue.admit(10, 20)
    fill_memory(queue)
    try:
        worker = queue.consumer("new")
        worker.join()
        worker.renew(loading=False)
        assert finish_all(worker, worker.take(budget=100, num_held=0).jobs) == 2
    finally:
        give_memory_back(queue)
    queue.check_idle()


def test_an_entry_that_nobody_holds_any_more_ends_with_its_time(queue):
    """As a server leaves it that lost the last of its writes: acknowledged, and not deleted."""
    (entry_id,) = queue.admit(10, ttl_ms=SHORT_TTL_MS, tenant="x")
    worker = queue.consumer("a")
    assert sizes(worker.take(budget=100, num_held=0)) == [10]
    queue.client.xack(queue.lanes[Lane.INTERACTIVE], GROUP, entry_id)
    worker.renew(loading=False)
    worker.reap()
    assert queue.check_depth() == Depth(tokens=10, jobs=1)
    time.sleep(SHORT_TTL_MS / 1000)
    worker.reap()
    queue.check_idle()


@pytest.mark.parametrize("lease_ms", [0, 2 * SHORT_TTL_MS])
def test_a_job_that_expires_with_a_dead_worker_is_left_to_the_next_take_to_bury(queue, lease_ms):
    queue.admit(10, ttl_ms=SHORT_TTL_MS)
    assert queue.consumer("dead", lease_ms=lease_ms).take(budget=100, num_held=0).jobs
    worker = queue.consumer("a")
    time.sleep(SHORT_TTL_MS / 1000)
    worker.reap()
    time.sleep(lease_ms / 1000)
    worker.reap()
    assert worker.take(budget=100, num_held=0).jobs == ()
    assert len(queue.dead_letters()) == 1
    queue.check_idle()


def test_the_depth_of_an_empty_lane_is_mended(queue):
    queue.admit(5, lane=Lane.BULK, tenant="x")
    queue.client.hset(queue.keys.depth, mapping={"hi_tokens": -7, "hi_jobs": 3})
    queue.client.hset(queue.keys.tenants, "hi:gone", 12)
    queue.consumer("a").reap()
    assert queue.check_depth() == Depth(tokens=5, jobs=1)
