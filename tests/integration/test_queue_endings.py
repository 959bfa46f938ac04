"""Whoever deletes the entry ends the job, once."""

import threading

import pytest

from jobqueue.connection import connect
from jobqueue.consumer import Consumer
from jobqueue.lanes import Lane
from jobqueue.messages import Failure, FailureReason, decode_job
from tests.support.queues import Depth, echo, finish_all, own_queue
from worker.config import WorkerSettings


@pytest.fixture
def queue(any_redis_url):
    with own_queue(any_redis_url) as queue:
        yield queue


def test_finish_answers_and_ends_the_job(queue):
    worker = queue.consumer("a")
    queue.admit(10, lane=Lane.BULK)
    (taken,) = worker.take(budget=100, num_held=0).jobs
    assert worker.finish([(taken, echo(decode_job(taken.payload)))]) == 1
    assert queue.answers() == [(taken.job_id, echo(decode_job(taken.payload)))]
    queue.check_idle()


def test_a_failure_is_an_answer_too(queue):
    worker = queue.consumer("a")
    queue.admit(10)
    (taken,) = worker.take(budget=100, num_held=0).jobs
    failure = Failure(reason=FailureReason.NON_FINITE_RESULT, message="not a number", sequence=0)
    assert worker.finish([(taken, failure)]) == 1
    assert queue.answers() == [(taken.job_id, failure)]
    queue.check_idle()


def test_a_second_finish_changes_nothing(queue):
    worker = queue.consumer("a")
    queue.admit(10, 20)
    taken = worker.take(budget=100, num_held=0).jobs
    assert finish_all(worker, taken[:1]) == 1
    assert finish_all(worker, taken[:1]) == 0
    assert len(queue.answers()) == 1
    assert queue.check_depth() == Depth(tokens=20, jobs=1)


def test_answers_of_one_batch_reach_each_gateway_in_one_message(queue):
    worker = queue.consumer("a")
    for gateway in ("x", "y", "x"):
        queue.admit(5, gateway=gateway)
    taken = worker.take(budget=100, num_held=0).jobs
    assert finish_all(worker, taken) == 3
    assert [queue.client.xlen(queue.keys.replies(gateway)) for gateway in "xy"] == [1, 1]
    assert [job_id for job_id, _ in queue.answers("x")] == [taken[0].job_id, taken[2].job_id]
    assert [job_id for job_id, _ in queue.answers("y")] == [taken[1].job_id]
    queue.check_idle()


def test_a_job_that_two_workers_finish_at_once_is_answered_once(queue, any_redis_url):
    dead = queue.dead_consumer("dead")
    queue.admit(*[3] * 30)
    zombies = dead.take(budget=1000, num_held=0).jobs
    heir = queue.consumer("heir")
    heir.reap()
    barrier, ended = threading.Barrier(2), []

    def finish(jobs):
        with connect(any_redis_url) as client:
            consumer = Consumer(client, queue.name, "any", lease_ms=60_000, max_jobs=1)
            barrier.wait()
            ended.extend(finish_all(consumer, [job]) for job in jobs)

    threads = [threading.Thread(target=finish, args=(jobs,)) for jobs in (zombies, zombies[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(ended) == len(zombies)
    assert sorted(job_id for job_id, _ in queue.answers()) == sorted(job.job_id for job in zombies)
    queue.check_idle()


def test_no_answer_is_left_for_a_gateway_that_is_gone(queue):
    worker = queue.consumer("a")
    queue.admit(10)
    taken = worker.take(budget=100, num_held=0).jobs
    queue.client.delete(queue.keys.replies("gw"))
    assert finish_all(worker, taken) == 1
    assert not queue.client.exists(queue.keys.replies("gw"))
    queue.check_idle()


def test_a_cancelled_job_is_never_taken(queue):
    worker = queue.consumer("a")
    first, second = queue.admit(10, 20)
    assert queue.cancel(first, 10) == 1
    assert queue.check_depth() == Depth(tokens=20, jobs=1)
    assert [job.entry_id for job in worker.take(budget=100, num_held=0).jobs] == [second]


def test_the_finish_of_a_job_that_was_cancelled_meanwhile_changes_nothing(queue):
    worker = queue.consumer("a")
    (entry_id,) = queue.admit(10)
    taken = worker.take(budget=100, num_held=0).jobs
    assert queue.cancel(entry_id, 10) == 1
    queue.check_idle()
    assert finish_all(worker, taken) == 0
    assert queue.answers() == []
    queue.check_idle()


def test_to_cancel_a_finished_job_changes_nothing(queue):
    worker = queue.consumer("a")
    (entry_id,) = queue.admit(10)
    finish_all(worker, worker.take(budget=100, num_held=0).jobs)
    assert queue.cancel(entry_id, 10) == 0
    queue.check_idle()


def test_to_finish_nothing_is_nothing(queue):
    assert queue.consumer("a").finish([]) == 0


def test_the_largest_batch_that_a_worker_may_be_set_to_is_taken_and_answered(queue):
    """Lua passes only some thousands of values to one call; the setting stays below that."""
    (most,) = (limit.le for limit in WorkerSettings.model_fields["max_batch_jobs"].metadata if hasattr(limit, "le"))
    queue.admit(*[1] * most)
    worker = queue.consumer("a", max_jobs=most)
    jobs = worker.take(budget=10 * most, num_held=0).jobs
    assert len(jobs) == most
    assert finish_all(worker, jobs) == most
    assert len(queue.answers()) == most
    queue.check_idle()
