"""Admission goes by what the workers really end: nobody waits for longer than is promised, and tenants share."""

import asyncio
import threading

import pytest

from jobqueue.connection import connect
from jobqueue.consumer import Consumer
from jobqueue.errors import DrainingError, QueueFullError
from jobqueue.lanes import Lane
from tests.support.queues import (
    Depth,
    WorkerDouble,
    finish_all,
    job_of,
    own_queue,
    producer_at,
    submission,
    until,
    wait_for,
)

PACE = 100  # tokens a second, of which interactive work may wait for 10 s
MOST_RETRY_MS = 30_000
LEAST_RETRY_MS = 500
UNMEASURED_RETRY_MS = 1000


@pytest.fixture
def queue(any_redis_url):
    with own_queue(any_redis_url) as queue:
        yield queue


@pytest.fixture
def paced(queue):
    """A queue whose only worker is known to end 100 tokens a second."""
    queue.consumer("a").renew(loading=False, tokens_per_s=PACE)
    return queue


def admitted(queue, *sizes, **options):
    return queue.try_admit(*sizes, unmeasured_tokens=50, **options)[0] == 1


def retry_ms(queue, *sizes, **options):
    verdict, _, _, found = queue.try_admit(*sizes, unmeasured_tokens=50, **options)
    assert verdict == 0
    return found


def test_interactive_work_is_admitted_while_what_is_ahead_takes_no_longer_than_it_may_wait(paced):
    assert admitted(paced, 900)
    assert admitted(paced, 500)  # 9 s behind the first: the pace is an estimate
    assert not admitted(paced, 1)  # 14 s behind both


def test_while_bulk_work_waits_interactive_work_has_three_quarters_of_the_pace(paced):
    assert admitted(paced, 5000, lane=Lane.BULK)
    assert admitted(paced, 676)
    assert not admitted(paced, 1)


def test_a_call_into_an_empty_lane_is_admitted_whatever_the_pace(paced):
    assert admitted(paced, 50_000)


def test_before_a_pace_is_known_only_little_may_be_ahead(queue):
    queue.consumer("a").renew(loading=False)
    assert admitted(queue, 51)
    assert retry_ms(queue, 1) == UNMEASURED_RETRY_MS


def test_bulk_work_waits_for_long_but_not_past_its_deadline(paced):
    assert admitted(paced, 3000, lane=Lane.BULK)
    assert not admitted(paced, 10, lane=Lane.BULK, ttl_ms=29_000)
    assert admitted(paced, 10, lane=Lane.BULK, ttl_ms=34_000)


def test_beside_interactive_work_bulk_work_has_a_quarter_of_the_pace(paced):
    assert admitted(paced, 500, lane=Lane.BULK)
    assert admitted(paced, 10, lane=Lane.BULK, ttl_ms=6_000)
    assert admitted(paced, 1)
    assert not admitted(paced, 10, lane=Lane.BULK, ttl_ms=20_000)
    assert admitted(paced, 10, lane=Lane.BULK, ttl_ms=23_000)


def test_interactive_work_that_would_expire_before_its_turn_is_refused(paced):
    assert admitted(paced, 300)
    assert not admitted(paced, 10, ttl_ms=2_900)
    assert admitted(paced, 10, ttl_ms=3_400)


def test_the_pace_is_that_of_all_live_workers(paced):
    assert admitted(paced, 1500)
    assert not admitted(paced, 1)
    paced.consumer("b").renew(loading=False, tokens_per_s=PACE)
    assert admitted(paced, 1, is_retry=True)
    paced.consumer("b").leave()
    assert not admitted(paced, 1, is_retry=True)


def test_a_dead_worker_adds_nothing_to_the_pace(paced):
    paced.dead_consumer("dead").renew(loading=False, tokens_per_s=10 * PACE)
    assert admitted(paced, 1500)
    paced.consumer("a").reap()
    assert not admitted(paced, 1)
    assert paced.client.hkeys(paced.keys.rates) == [b"a"]


def test_a_refusal_says_when_there_will_be_room(paced):
    assert admitted(paced, 1200)
    assert retry_ms(paced, 10) == pytest.approx(3000, abs=100)


def test_those_refused_are_sent_away_for_different_times_at_the_pace_of_the_queue(paced):
    assert admitted(paced, 1200)
    times_ms = [retry_ms(paced, 200) for _ in range(4)]
    assert times_ms == pytest.approx([3000, 5000, 7000, 9000], abs=100)


def test_refused_bulk_work_does_not_hold_up_interactive_work(paced):
    assert admitted(paced, 5000, lane=Lane.BULK)
    for _ in range(5):
        retry_ms(paced, 1000, lane=Lane.BULK, ttl_ms=1000)
    assert admitted(paced, 900)
    assert retry_ms(paced, 10) == pytest.approx(3000, abs=100)  # 225 too many, at three quarters of the pace


def test_nobody_is_sent_away_for_longer_than_half_a_minute_or_shorter_than_half_a_second(paced):
    assert admitted(paced, 901)
    assert retry_ms(paced, 1) == LEAST_RETRY_MS
    for _ in range(30):
        retry_ms(paced, 500)
    assert retry_ms(paced, 1) == MOST_RETRY_MS


def test_room_is_kept_for_those_who_were_told_to_come_back(paced):
    assert admitted(paced, 901)
    retry_ms(paced, 500)
    worker = paced.consumer("a")
    finish_all(worker, worker.take(budget=1000, num_held=0).jobs)
    assert admitted(paced, 721)  # of 720 that newcomers may have ahead of them
    assert not admitted(paced, 1)
    assert admitted(paced, 180, is_retry=True)
    assert not admitted(paced, 1, is_retry=True)  # 901 of 900


def test_a_full_queue_says_when_its_jobs_will_have_ended(paced):
    assert admitted(paced, 100, 100, 100, max_jobs=3, max_tokens=1000)
    assert retry_ms(paced, 1, 1, max_jobs=3, max_tokens=1000) == pytest.approx(2000, abs=100)


def test_a_tenant_may_hold_as_much_of_a_lane_as_is_free_in_it(queue):
    def fits(size, tenant):
        return queue.try_admit(size, tenant=tenant, max_tokens=900, lane=Lane.BULK)[0] == 1

    assert fits(300, "flood")
    assert fits(150, "flood")
    assert not fits(1, "flood")  # it holds the half that it may have alone
    assert fits(200, "other")
    assert not fits(51, "other")  # 250 are free
    assert fits(20, "third")
    assert fits(200, "")  # who has no name shares nothing


def test_a_tenants_first_call_is_refused_for_want_of_room_only(queue):
    queue.admit(800, tenant="flood", max_tokens=900)
    assert queue.try_admit(90, tenant="new", max_tokens=900)[0] == 1
    assert queue.try_admit(20, tenant="other", max_tokens=900)[0] == 0


def test_what_ends_is_given_back_to_its_tenant(queue):
    worker = queue.consumer("a")
    queue.admit(10, 20, tenant="x")
    (entry_id,) = queue.admit(5, tenant="y")
    assert queue.client.hgetall(queue.keys.tenants) == {b"hi:x": b"30", b"hi:y": b"5"}
    assert queue.cancel(entry_id, 5, tenant="y") == 1
    assert finish_all(worker, worker.take(budget=10, num_held=0).jobs) == 1
    assert queue.client.hgetall(queue.keys.tenants) == {b"hi:x": b"20"}
    queue.admit(7, tenant="z", ttl_ms=0)
    assert finish_all(worker, worker.take(budget=100, num_held=0).jobs) == 1
    assert queue.client.hgetall(queue.keys.tenants) == {}
    queue.check_idle()


def test_a_paused_queue_gives_nothing_and_admits(queue):
    worker = queue.consumer("a")
    queue.admit(10)
    queue.client.hset(queue.keys.control, "paused", 1)
    take = worker.take(budget=100, num_held=0)
    assert (take.jobs, take.is_paused) == ((), True)
    queue.admit(20)
    queue.client.hdel(queue.keys.control, "paused")
    assert len(worker.take(budget=100, num_held=0).jobs) == 2


async def test_a_draining_queue_admits_nothing_new_and_ends_what_it_has(queue, any_redis_url, monkeypatch):
    monkeypatch.setattr("jobqueue.channel.RECONCILE_S", 0.05)
    deadline = asyncio.get_running_loop().time() + 30
    async with producer_at(any_redis_url) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(5), deadline=deadline)))
        await until(lambda: queue.check_depth() == Depth(tokens=5, jobs=1))
        queue.client.hset(queue.keys.control, "draining", 1)
        with pytest.raises(DrainingError, match=f"{queue.name} is being drained"):
            await producer.submit(submission(queue.name, job_of(5), deadline=deadline))
        with WorkerDouble(any_redis_url, queue.name):
            assert (await waiting).num_rows == 1
    queue.check_idle()


async def test_a_refused_call_carries_the_time_to_retry(paced, any_redis_url, monkeypatch):
    monkeypatch.setattr("jobqueue.channel.UNMEASURED_TOKENS_PER_S", 5)
    deadline = asyncio.get_running_loop().time() + 30
    paced.admit(1100)
    async with producer_at(any_redis_url) as producer:
        with pytest.raises(QueueFullError) as caught:
            await producer.submit(submission(paced.name, job_of(5), deadline=deadline))
    assert caught.value.retry_s == pytest.approx(2, abs=0.1)


def admit_alone(queue, size):
    """A job that must run alone, as a replayed dead letter."""
    fields = fields_alone(queue, size)
    queue.client.hincrby(queue.keys.depth, "hi_tokens", size)
    queue.client.hincrby(queue.keys.depth, "hi_jobs", 1)
    queue.client.xadd(queue.lanes[Lane.INTERACTIVE], fields)


def fields_alone(queue, size):
    """The fields of such a job, which is not in the queue."""
    (entry_id,) = queue.admit(size)
    ((_, fields),) = queue.client.xrange(queue.lanes[Lane.INTERACTIVE], entry_id, entry_id)
    assert queue.cancel(entry_id, size) == 1
    return fields | {b"alone": b"1"}


def tokens_of(take):
    return [job.tokens for job in take.jobs]


def test_a_job_that_must_run_alone_is_given_to_an_idle_worker_and_closes_the_batch(queue):
    worker = queue.consumer("a")
    queue.admit(1)
    admit_alone(queue, 2)
    queue.admit(3)
    first = worker.take(budget=100, num_held=0)
    assert tokens_of(first) == [1]
    busy = worker.take(budget=100, num_held=1)
    assert (busy.jobs, busy.suspects_wait) == ((), True)
    assert finish_all(worker, first.jobs) == 1
    alone = worker.take(budget=100, num_held=0)
    assert tokens_of(alone) == [2]
    assert alone.jobs[0].is_suspect
    assert tokens_of(worker.take(budget=100, num_held=1)) == [3]


def test_a_job_that_must_run_alone_and_reaches_a_busy_worker_waits_for_an_idle_one(queue, any_redis_url, monkeypatch):
    monkeypatch.setattr("jobqueue.consumer.BLOCK_MS", 60_000)
    fields, takes = fields_alone(queue, 2), []
    with connect(any_redis_url) as client:
        busy = Consumer(client, queue.name, "busy", lease_ms=60_000, max_jobs=10)
        busy.join()
        thread = threading.Thread(target=lambda: takes.append(busy.take(budget=100, num_held=1)))
        thread.start()
        wait_for(lambda: queue.client.info("clients")["blocked_clients"])
        queue.client.xadd(queue.lanes[Lane.INTERACTIVE], fields)
        thread.join(timeout=10)
    assert [(take.jobs, take.suspects_wait) for take in takes] == [((), True)]
    worker = queue.consumer("idle")
    assert [(job.tokens, job.deliveries) for job in worker.take(budget=100, num_held=0).jobs] == [(2, 1)]
    assert queue.dead_letters() == []


def test_a_job_that_must_run_alone_still_does_so_after_it_was_given_back(queue):
    leaver, worker = queue.consumer("leaver"), queue.consumer("a")
    admit_alone(queue, 2)
    assert tokens_of(leaver.take(budget=100, num_held=0)) == [2]
    leaver.leave()
    queue.admit(3)
    busy = worker.take(budget=100, num_held=1)
    assert (busy.jobs, busy.suspects_wait) == ((), True)
    assert tokens_of(worker.take(budget=100, num_held=0)) == [2]


def test_a_job_that_was_to_run_alone_kills_one_worker_only(queue):
    admit_alone(queue, 2)
    assert tokens_of(queue.dead_consumer("dead").take(budget=100, num_held=0)) == [2]
    worker = queue.consumer("a")
    worker.reap()
    assert worker.take(budget=100, num_held=0).jobs == ()
    assert len(queue.dead_letters()) == 1
    queue.check_idle()


def test_dead_letters_hold_no_token_ids_where_only_metadata_is_kept(queue, any_redis_url):
    queue.admit(10)
    for number in range(3):
        assert queue.dead_consumer(f"dead-{number}").take(budget=100, num_held=0).jobs
        queue.consumer("reaper").reap()
    last = Consumer(queue.client, queue.name, "last", lease_ms=60_000, max_jobs=10, keep_payloads=False)
    assert last.take(budget=100, num_held=0).jobs == ()
    (letter,) = queue.dead_letters()
    assert b"payload" not in letter
    assert letter[b"tokens"] == b"10"
