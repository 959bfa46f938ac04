import threading
import time

import pytest
import redis

from jobqueue.connection import connect
from jobqueue.consumer import Consumer
from jobqueue.errors import QueueAwayError
from jobqueue.lanes import Lane
from jobqueue.messages import decode_job
from tests.support.queues import SHORT_TTL_MS, Depth, finish_all, own_queue


@pytest.fixture
def queue(any_redis_url):
    with own_queue(any_redis_url) as queue:
        yield queue


def sizes(take):
    return [taken.tokens for taken in take.jobs]


def test_a_taken_job_is_what_was_admitted(queue):
    worker = queue.consumer("a")
    (entry_id,) = queue.admit(7, lane=Lane.BULK, ttl_ms=5000, gateway="gw-7", request_id="caller-7")
    ((taken,), suspects_wait) = (worker.take(budget=100, num_held=0).jobs, False)

    assert (taken.lane, taken.entry_id, taken.deliveries) == (Lane.BULK, entry_id, 1)
    assert (taken.tokens, taken.cost, taken.gateway, taken.request_id) == (7, 7, b"gw-7", "caller-7")
    assert decode_job(taken.payload).lengths == [7]
    assert 0 < taken.expires_at - time.monotonic() <= 5
    assert 0 <= taken.waited_us < 5_000_000
    assert not taken.is_suspect
    assert not suspects_wait
    assert queue.pending() == {(Lane.BULK, entry_id): ("a", 1)}


def test_jobs_come_first_in_first_out_up_to_the_budget(queue):
    worker = queue.consumer("a")
    queue.admit(40, 30, 20, 10)
    assert sizes(worker.take(budget=95, num_held=0)) == [40, 30, 20]
    assert sizes(worker.take(budget=95, num_held=1)) == [10]
    assert queue.check_depth() == Depth(tokens=100, jobs=4)


def test_a_job_that_does_not_fit_holds_its_lane_back(queue):
    worker = queue.consumer("a")
    queue.admit(50, 60, 1)
    assert sizes(worker.take(budget=100, num_held=0)) == [50]
    assert sizes(worker.take(budget=100, num_held=1)) == [60, 1]


def test_a_job_over_the_budget_is_taken_alone(queue):
    worker = queue.consumer("a")
    queue.admit(500, 1)
    assert sizes(worker.take(budget=100, num_held=0)) == [500]
    assert sizes(worker.take(budget=100, num_held=1)) == [1]


def test_no_more_than_max_jobs_are_taken(queue):
    worker = queue.consumer("a", max_jobs=20)
    queue.admit(*[1] * 50)
    assert [len(worker.take(budget=100, num_held=held).jobs) for held in range(3)] == [20, 20, 10]


def test_interactive_jobs_come_first_and_bulk_fills_the_rest(queue):
    worker = queue.consumer("a")
    queue.admit(30, 31, lane=Lane.BULK)
    queue.admit(20, 21, lane=Lane.INTERACTIVE)
    assert sizes(worker.take(budget=80, num_held=0)) == [20, 21, 30]


def test_every_fourth_take_begins_with_bulk(queue):
    worker = queue.consumer("a")
    queue.admit(*[1] * 8, lane=Lane.INTERACTIVE)
    queue.admit(*[2] * 8, lane=Lane.BULK)
    assert [sizes(worker.take(budget=1, num_held=held)) for held in range(8)] == [[1], [1], [1], [2]] * 2


def test_an_empty_queue_gives_an_empty_take(queue):
    take = queue.consumer("a").take(budget=1, num_held=0)
    assert take.jobs == ()
    assert not take.suspects_wait


@pytest.mark.parametrize("lane", Lane)
def test_a_waiting_take_wakes_when_jobs_arrive_and_keeps_to_its_budget(queue, any_redis_url, monkeypatch, lane):
    monkeypatch.setattr("jobqueue.consumer.BLOCK_MS", 60_000)
    takes = []
    with connect(any_redis_url) as client:
        worker = Consumer(client, queue.name, "a", lease_ms=60_000, max_jobs=10)
        worker.join()
        thread = threading.Thread(target=lambda: takes.append(worker.take(budget=100, num_held=0)))
        thread.start()
        while queue.client.info("clients")["blocked_clients"] == 0:
            time.sleep(0.001)
        queue.admit(60, 40, 40, lane=lane)
        thread.join(timeout=60)
    assert [sizes(take) for take in takes] == [[60, 40]]


def test_the_group_sees_jobs_that_were_admitted_before_the_first_worker(queue):
    queue.admit(5)
    assert sizes(queue.consumer("first").take(budget=100, num_held=0)) == [5]


def test_to_join_twice_loses_nothing(queue):
    worker = queue.consumer("a")
    queue.admit(5, 6)
    assert sizes(worker.take(budget=5, num_held=0)) == [5]
    assert sizes(queue.consumer("b").take(budget=10, num_held=0)) == [6]


def test_two_workers_never_take_the_same_job(queue):
    first, second = queue.consumer("a"), queue.consumer("b")
    queue.admit(*range(1, 41))
    takes = [worker.take(budget=1, num_held=held) for held in range(20) for worker in (first, second)]
    taken = [size for take in takes for size in sizes(take)]
    assert taken == list(range(1, 41))


def test_an_expired_job_is_dropped_and_its_depth_is_given_back(queue):
    worker = queue.consumer("a")
    queue.admit(10, ttl_ms=1)
    queue.admit(20)
    time.sleep(0.003)
    assert sizes(worker.take(budget=100, num_held=0)) == [20]
    assert queue.check_depth() == Depth(tokens=20, jobs=1)
    assert queue.answers() == []


def test_a_job_whose_gateway_is_gone_is_dropped_and_its_depth_is_given_back(queue):
    worker = queue.consumer("a")
    queue.admit(10, gateway="gone", lane=Lane.BULK)
    queue.admit(20, gateway="here", lane=Lane.BULK)
    queue.client.delete(queue.keys.replies("gone"))
    assert sizes(worker.take(budget=100, num_held=0)) == [20]
    assert queue.check_depth() == Depth(tokens=20, jobs=1)


def test_dropped_jobs_between_others_do_not_shift_what_is_delivered(queue):
    worker = queue.consumer("a")
    kept = []
    for size in range(1, 61):  # more than one look ahead
        gateway = "gone" if size % 3 == 0 else "here"
        (entry_id,) = queue.admit(size, gateway=gateway)
        kept += [entry_id] if gateway == "here" else []
    queue.client.delete(queue.keys.replies("gone"))
    taken = worker.take(budget=10**6, num_held=0).jobs
    assert [job.entry_id for job in taken] == kept
    assert set(queue.pending()) == {(Lane.INTERACTIVE, entry_id) for entry_id in kept}
    queue.check_depth()
    assert finish_all(worker, taken) == len(kept)
    queue.check_idle()


def test_confirm_drops_what_was_cancelled_expired_or_given_to_another(queue):
    worker = queue.dead_consumer("a")
    entry_ids = [*queue.admit(1, 2, 3), *queue.admit(4, ttl_ms=SHORT_TTL_MS)]
    taken = worker.take(budget=100, num_held=0).jobs
    assert [job.entry_id for job in taken] == entry_ids
    assert worker.confirm(taken) == list(taken)

    queue.cancel(entry_ids[1], 2)
    time.sleep(SHORT_TTL_MS / 1000)
    assert [job.tokens for job in worker.confirm(taken)] == [1, 3]
    assert queue.check_depth() == Depth(tokens=4, jobs=2)  # the expired one was ended too, in case its gateway is gone

    other = queue.consumer("b")
    other.reap()
    assert sizes(other.take(budget=1, num_held=0)) == [1]
    assert [job.tokens for job in worker.confirm(taken)] == []


def test_to_confirm_nothing_is_nothing(queue):
    assert queue.consumer("a").confirm([]) == []


def test_more_is_taken_for_a_batch_without_waiting_and_within_what_is_left(queue):
    worker = queue.consumer("w", max_jobs=4)
    queue.admit(10, 10, 10, 10, 10, 10)
    first = worker.take(budget=20, num_held=0)
    more = worker.take_more(budget=15, num_taken=len(first.jobs), num_held=0)
    assert (len(first.jobs), len(more.jobs)) == (2, 1)
    assert len(worker.take_more(budget=100, num_taken=3, num_held=0).jobs) == 1, "four jobs are the most"
    assert worker.take_more(budget=0, num_taken=1, num_held=0).jobs == ()


def test_bulk_gets_its_turn_although_more_is_taken_every_time(queue):
    """Interactive work never dries up here, and a bulk job fits a whole batch only."""
    worker = queue.consumer("w")
    queue.admit(100, 100, lane=Lane.BULK)
    ran = []
    for _ in range(12):
        queue.admit(*[10] * 12)
        taken = worker.take(budget=100, num_held=0).jobs
        taken += worker.take_more(budget=20, num_taken=len(taken), num_held=0).jobs
        finish_all(worker, taken)
        ran += [job.lane for job in taken]
    assert ran.count(Lane.BULK) == 2


def test_after_a_take_that_was_cut_off_nothing_more_is_taken_until_it_was_given_back(queue, monkeypatch):
    worker = queue.consumer("w")
    queue.admit(10, 10, 10)
    taken = worker.take(budget=10, num_held=0).jobs
    evaluate = worker._redis.evalsha

    def lose_the_reply(*arguments):
        evaluate(*arguments)
        raise redis.ConnectionError("reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(worker._redis, "evalsha", lose_the_reply)
        with pytest.raises(QueueAwayError):
            worker.take_more(budget=10, num_taken=1, num_held=0)
    assert worker.take_more(budget=100, num_taken=1, num_held=0).jobs == ()
    finish_all(worker, taken)
    again = worker.take(budget=100, num_held=0).jobs
    assert len(again) == 2, "the one whose reply was lost is among them"
    finish_all(worker, again)
    queue.check_idle()


def test_what_an_idle_worker_is_said_to_hold_is_given_back_uncounted(queue):
    worker = queue.consumer("a")
    queue.admit(10, 20)
    lost = worker._take(budget=10, num_held=0)  # its reply never came, or what came of it was lost with a server
    assert sizes(lost) == [10]
    take = worker.take(budget=100, num_held=0)
    assert [(job.tokens, job.deliveries) for job in take.jobs] == [(10, 1), (20, 1)]
    assert finish_all(worker, take.jobs) == 2
    queue.check_idle()
