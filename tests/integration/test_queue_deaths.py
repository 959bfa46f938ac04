"""Workers that die, hang or leave: their jobs are run by others, and poison is set aside."""

import time

import pytest

from jobqueue.lanes import Lane
from jobqueue.messages import Failure, FailureReason
from tests.support.queues import SHORT_TTL_MS, Depth, finish_all, own_queue


@pytest.fixture
def queue(any_redis_url):
    with own_queue(any_redis_url) as queue:
        yield queue


def sizes(take):
    return [taken.tokens for taken in take.jobs]


def die_with(queue, budget=10**6, num_times=1):
    """Workers that take up to `budget` and die, one after the other, each reaped."""
    reaper = queue.consumer("reaper")
    for number in range(num_times):
        assert queue.dead_consumer(f"dead-{number}").take(budget=budget, num_held=0).jobs
        queue.check_depth()
        reaper.reap()
        queue.check_depth()


def test_a_dead_workers_jobs_are_run_by_another(queue):
    dead, heir = queue.consumer("dead"), queue.consumer("heir")
    queue.admit(10, 20, lane=Lane.INTERACTIVE)
    queue.admit(30, lane=Lane.BULK)
    assert sizes(dead.take(budget=100, num_held=0)) == [10, 20, 30]
    assert heir.reap() == 0

    queue.end_lease("dead")
    assert heir.reap() > 0
    assert {holder for holder, _ in queue.pending().values()} == {"orphans"}
    assert "dead" not in queue.group_consumers()
    assert queue.client.zscore(queue.keys.workers, "dead") is None

    for size in (10, 20, 30):  # suspects, each alone
        take = heir.take(budget=100, num_held=0)
        assert sizes(take) == [size]
        assert finish_all(heir, take.jobs) == 1
        queue.check_depth()
    assert len(queue.answers()) == 3
    queue.check_idle()


def test_a_worker_that_renews_its_lease_keeps_its_jobs(queue):
    worker, other = queue.consumer("a"), queue.consumer("b")
    queue.admit(10)
    taken = worker.take(budget=100, num_held=0).jobs
    queue.end_lease("a")
    worker.renew(loading=False)
    assert other.reap() == 0
    assert worker.confirm(taken) == list(taken)


def test_more_jobs_than_one_reap_moves_are_all_moved(queue):
    dead = queue.consumer("dead", lease_ms=0, max_jobs=2000)
    for _ in range(6):
        queue.admit(*[1] * 200)
    assert len(dead.take(budget=2000, num_held=0).jobs) == 1200
    reaper = queue.consumer("reaper")
    for _ in range(3):
        reaper.reap()
    assert {holder for holder, _ in queue.pending().values()} == {"orphans"}
    assert len(queue.pending()) == 1200
    assert "dead" not in queue.group_consumers()


def test_the_late_finish_of_a_zombie_changes_nothing(queue):
    zombie, heir = queue.dead_consumer("zombie"), queue.consumer("heir")
    queue.admit(10)
    late = zombie.take(budget=100, num_held=0).jobs
    heir.reap()
    assert zombie.confirm(late) == []
    assert finish_all(heir, heir.take(budget=100, num_held=0).jobs) == 1
    assert finish_all(zombie, late) == 0
    assert len(queue.answers()) == 1
    queue.check_idle()


def test_a_zombies_finish_wins_if_it_comes_first(queue):
    zombie, heir = queue.dead_consumer("zombie"), queue.consumer("heir")
    queue.admit(10)
    late = zombie.take(budget=100, num_held=0).jobs
    heir.reap()
    again = heir.take(budget=100, num_held=0).jobs
    assert finish_all(zombie, late) == 1
    assert heir.confirm(again) == []
    assert finish_all(heir, again) == 0
    assert len(queue.answers()) == 1
    queue.check_idle()


def test_an_orphan_that_a_zombie_finished_is_forgotten(queue):
    zombie, heir = queue.dead_consumer("zombie"), queue.consumer("heir")
    queue.admit(10)
    late = zombie.take(budget=100, num_held=0).jobs
    heir.reap()
    assert finish_all(zombie, late) == 1
    assert heir.take(budget=100, num_held=0).jobs == ()
    queue.check_idle()


def test_a_zombie_that_comes_back_takes_again(queue):
    zombie, heir = queue.dead_consumer("zombie"), queue.consumer("heir")
    queue.admit(10)
    zombie.take(budget=100, num_held=0)
    heir.reap()
    take = zombie.take(budget=100, num_held=0)
    assert [(job.tokens, job.deliveries) for job in take.jobs] == [(10, 2)]
    assert finish_all(zombie, take.jobs) == 1
    queue.check_idle()


def test_a_job_that_killed_three_workers_is_dead_lettered_and_its_caller_told(queue):
    (entry_id,) = queue.admit(10, lane=Lane.BULK, request_id="caller-1")
    for deliveries in (1, 2, 3):
        dead = queue.dead_consumer(f"dead-{deliveries}")
        (taken,) = dead.take(budget=100, num_held=0).jobs
        assert taken.deliveries == deliveries
        assert taken.is_suspect == (deliveries > 1)
        assert queue.pending() == {(Lane.BULK, entry_id): (f"dead-{deliveries}", deliveries)}
        queue.consumer("reaper").reap()

    assert queue.consumer("last").take(budget=100, num_held=0).jobs == ()
    ((job_id, answer),) = queue.answers()
    assert job_id == taken.job_id
    assert isinstance(answer, Failure)
    assert answer.reason is FailureReason.POISON_INPUT
    assert "set aside" in answer.message
    (letter,) = queue.dead_letters()
    assert letter == {
        b"reason": b"failed its worker, deliveries: 3",
        b"lane": b"lo",
        b"entry_id": entry_id,
        b"deliveries": b"3",
        b"request_id": b"caller-1",
        b"tenant": b"",
        b"tokens": b"10",
        b"cost": b"10",
        b"payload": taken.payload,
    }
    assert 0 < queue.client.ttl(queue.keys.dead) <= 7 * 24 * 3600
    queue.check_idle()


def test_a_suspect_goes_to_a_worker_that_holds_nothing_and_runs_alone(queue):
    queue.admit(10)
    die_with(queue)
    queue.admit(20)
    worker = queue.consumer("a")
    busy = worker.take(budget=100, num_held=1)
    assert busy.jobs == ()
    assert busy.suspects_wait
    idle = worker.take(budget=100, num_held=0)
    assert [(job.tokens, job.is_suspect) for job in idle.jobs] == [(10, True)]
    assert not idle.suspects_wait
    assert sizes(worker.take(budget=100, num_held=1)) == [20]


def test_a_suspect_is_not_starved_by_fresh_jobs(queue):
    queue.admit(10, lane=Lane.BULK)
    die_with(queue)
    queue.admit(*[1] * 50)
    worker = queue.consumer("a")
    assert worker.take(budget=10, num_held=2).suspects_wait
    assert worker.take(budget=10, num_held=1).suspects_wait
    assert sizes(worker.take(budget=10, num_held=0)) == [10]


def test_innocent_orphans_run_before_the_suspect_behind_them(queue):
    queue.admit(10)
    leaver = queue.consumer("leaver")
    assert sizes(leaver.take(budget=100, num_held=0)) == [10]
    queue.admit(20)
    die_with(queue)
    assert leaver.leave() == 1

    worker = queue.consumer("a")
    first = worker.take(budget=100, num_held=0)
    assert (sizes(first), first.suspects_wait) == ([10], True)
    assert finish_all(worker, first.jobs) == 1
    second = worker.take(budget=100, num_held=0)
    assert [(job.tokens, job.is_suspect) for job in second.jobs] == [(20, True)]


def test_no_suspect_joins_what_a_blocked_read_brought(queue):
    worker = queue.consumer("a")
    queue.admit(10)
    die_with(queue)
    queue.admit(20)
    take = worker._take(budget=100, num_held=0, before=worker._wait())
    assert (sizes(take), take.suspects_wait) == ([20], True)


def test_an_orphan_that_expired_after_a_crash_is_dead_lettered(queue):
    queue.admit(10, ttl_ms=SHORT_TTL_MS, request_id="caller-2")
    die_with(queue)
    time.sleep(SHORT_TTL_MS / 1000)
    assert queue.consumer("a").take(budget=100, num_held=0).jobs == ()
    (letter,) = queue.dead_letters()
    assert letter[b"reason"] == b"expired after it failed its worker"
    assert (letter[b"deliveries"], letter[b"request_id"]) == (b"1", b"caller-2")
    assert [answer.reason for _, answer in queue.answers()] == [FailureReason.POISON_INPUT]
    queue.check_idle()


def test_an_orphan_that_expired_after_its_worker_left_in_order_is_only_dropped(queue):
    leaver = queue.consumer("leaver")
    queue.admit(10, ttl_ms=SHORT_TTL_MS)
    leaver.take(budget=100, num_held=0)
    leaver.leave()
    time.sleep(SHORT_TTL_MS / 1000)
    assert queue.consumer("a").take(budget=100, num_held=0).jobs == ()
    assert queue.dead_letters() == []
    assert queue.answers() == []
    queue.check_idle()


def test_an_orphan_whose_gateway_is_gone_is_dropped(queue):
    queue.admit(10)
    die_with(queue)
    queue.client.delete(queue.keys.replies("gw"))
    assert queue.consumer("a").take(budget=100, num_held=0).jobs == ()
    assert queue.dead_letters() == []
    queue.check_idle()


def test_a_cancelled_orphan_is_forgotten(queue):
    (entry_id,) = queue.admit(10)
    die_with(queue)
    assert queue.cancel(entry_id, 10) == 1
    assert queue.consumer("a").take(budget=100, num_held=0).jobs == ()
    queue.check_idle()


def test_a_worker_that_leaves_gives_back_without_counting(queue):
    leaver, heir = queue.consumer("leaver"), queue.consumer("heir")
    queue.admit(10, 20, lane=Lane.INTERACTIVE)
    queue.admit(30, lane=Lane.BULK)
    taken = leaver.take(budget=100, num_held=0).jobs
    assert finish_all(leaver, taken[:1]) == 1
    assert leaver.leave() == 2
    assert queue.check_depth() == Depth(tokens=50, jobs=2)
    assert "leaver" not in queue.group_consumers()
    assert queue.client.zscore(queue.keys.workers, "leaver") is None

    again = heir.take(budget=100, num_held=1)
    assert [(job.tokens, job.deliveries, job.is_suspect) for job in again.jobs] == [(20, 1, False), (30, 1, False)]
    assert finish_all(heir, again.jobs) == 2
    queue.check_idle()


def test_a_suspect_that_was_given_back_is_still_one(queue):
    queue.admit(10)
    die_with(queue)
    leaver = queue.consumer("leaver")
    assert [job.deliveries for job in leaver.take(budget=100, num_held=0).jobs] == [2]
    assert leaver.leave() == 1
    assert [job.deliveries for job in queue.consumer("a").take(budget=100, num_held=0).jobs] == [2]


def test_orphans_come_before_fresh_jobs_and_keep_to_the_budget(queue):
    leaver = queue.consumer("leaver")
    queue.admit(40, 50)
    leaver.take(budget=100, num_held=0)
    leaver.leave()
    queue.admit(5, 6)
    worker = queue.consumer("a")
    assert sizes(worker.take(budget=45, num_held=0)) == [40]
    assert sizes(worker.take(budget=55, num_held=1)) == [50, 5]
    assert sizes(worker.take(budget=55, num_held=2)) == [6]


def test_a_worker_that_leaves_twice_or_never_took_gives_back_nothing(queue):
    worker = queue.consumer("a")
    assert worker.leave() == 0
    assert worker.leave() == 0


def test_more_jobs_than_one_step_of_leave_moves_all_go_back(queue):
    worker = queue.consumer("a", max_jobs=2000)
    for _ in range(6):
        queue.admit(*[1] * 200)
    assert len(worker.take(budget=2000, num_held=0).jobs) == 1200
    assert worker.leave() == 1200
    assert set(queue.pending().values()) == {("orphans", 0)}


def test_a_worker_that_loads_and_one_that_works_are_told_apart(queue):
    worker = queue.consumer("a")
    worker.renew(loading=True)
    assert queue.client.zscore(queue.keys.loading, "a") > 0
    assert queue.client.zscore(queue.keys.workers, "a") is None
    worker.renew(loading=False)
    assert queue.client.zscore(queue.keys.workers, "a") > 0


def test_reaping_forgets_expired_leases(queue):
    for name, lease_ms in (("dead", 0), ("alive", 60_000)):
        for loading in (False, True):
            queue.consumer(f"{name}-{loading}", lease_ms=lease_ms).renew(loading=loading)
    queue.consumer("reaper").reap()
    assert queue.client.zrange(queue.keys.workers, 0, -1) == [b"alive-False"]
    assert queue.client.zrange(queue.keys.loading, 0, -1) == [b"alive-True"]
