"""What an operator sees of a queue and does to it, on a real Redis with real consumers."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobqueue import replay as replay_module
from jobqueue.dead_letters import purge, read_letter, read_letters
from jobqueue.errors import QueueAwayError, UnsuitableServerError
from jobqueue.keys import MODELS
from jobqueue.lanes import Lane
from jobqueue.messages import Failure, FailureReason, Result
from jobqueue.operator import OperatorError, operating
from jobqueue.replay import replay
from tests.support.queues import Depth, WorkerDouble, finish_all, own_queue, wait_for
from tests.support.redis_servers import binaries, redis_server

PASSWORD = "s3cret-pass"


@pytest.fixture
def queue(any_redis_url):
    """A queue of its own, announced."""
    with own_queue(any_redis_url) as queue, announced(queue, queue.name):
        yield queue


@pytest.fixture
def operator(any_redis_url):
    with operating(any_redis_url) as operator:
        yield operator


@contextlib.contextmanager
def announced(queue, *names):
    queue.client.hset(MODELS, mapping=dict.fromkeys(names, "{}"))
    try:
        yield
    finally:
        queue.client.hdel(MODELS, *names)


def bury(queue, *sizes, request_id="req", **options):
    """Jobs that fail three workers each, one after the other; the letters' ids."""
    reaper = queue.consumer("reaper")
    for size in sizes:
        queue.admit(size, request_id=request_id, **options)
        for number in range(3):
            fail_a_worker(queue, reaper, f"dead-{number}")
        assert not reaper.take(budget=10**6, num_held=0).jobs
    reaper.leave()
    return [letter_id.decode() for letter_id, _ in queue.client.xrange(queue.keys.dead)]


def fail_a_worker(queue, reaper, name):
    consumer = queue.dead_consumer(name)
    wait_for(lambda: consumer.take(budget=10**6, num_held=0).jobs)
    reaper.reap()


def without_payload(queue, letter_id):
    """The letter again as a worker started with --dead-letters metadata writes it; the new one's id."""
    ((_, fields),) = queue.client.xrange(queue.keys.dead, letter_id, letter_id)
    queue.client.xdel(queue.keys.dead, letter_id)
    del fields[b"payload"]
    return queue.client.xadd(queue.keys.dead, fields).decode()


# Names


def test_a_queue_is_found_by_its_full_name_and_by_its_model(queue, operator):
    assert queue.name in operator.queues()
    assert operator.resolve(queue.name) == queue.name
    assert operator.resolve(queue.name.removesuffix("@1")) == queue.name


def test_a_model_of_two_revisions_must_be_named_with_one(queue, operator):
    model, other = queue.name.removesuffix("@1"), queue.name.removesuffix("1") + "2"
    with announced(queue, other):
        assert operator.resolve(other) == other
        with pytest.raises(OperatorError, match=f"several revisions.*{queue.name}, {other}"):
            operator.resolve(model)


def test_an_unknown_queue_is_refused_with_the_names_of_those_there_are(queue, operator):
    for name in ("nobody", "nobody@1"):
        with pytest.raises(OperatorError, match=f"no queue '{name}'; there are: .*{queue.name}"):
            operator.resolve(name)
    with pytest.raises(OperatorError, match="MODEL@REVISION in letters"):
        operator.resolve("{}@1")


def test_a_queue_that_is_not_announced_any_more_is_found_while_something_of_it_is_left(queue, operator):
    queue.client.hdel(MODELS, queue.name)
    with pytest.raises(OperatorError, match="no queue"):
        operator.resolve(queue.name)
    queue.admit(10)
    assert operator.resolve(queue.name) == queue.name


# Status


def test_a_queue_that_nobody_used_yet_is_empty(queue, operator):
    status = operator.status(queue.name)
    assert (status.jobs, status.tokens, status.workers, status.dead_letters) == (0, 0, (), 0)
    assert (status.paused, status.draining, status.tokens_per_s) == (False, False, None)
    assert status.interactive.oldest_ms is None
    assert status.interactive_wait_s == 0


def test_status_counts_what_waits_and_what_runs_in_each_lane(queue, operator):
    queue.admit(10, 20)
    time.sleep(0.02)
    queue.admit(5, lane=Lane.BULK)
    worker = queue.consumer("w")
    assert len(worker.take(budget=10, num_held=0).jobs) == 1

    status = operator.status(queue.name)
    assert (status.interactive.tokens, status.interactive.jobs, status.interactive.in_flight) == (30, 2, 1)
    assert (status.bulk.tokens, status.bulk.jobs, status.bulk.in_flight) == (5, 1, 0)
    assert 20 <= status.interactive.oldest_ms < 10_000
    assert status.bulk.oldest_ms < status.interactive.oldest_ms
    (shown,) = status.workers
    assert (shown.name, shown.loading, shown.in_flight, shown.takes_jobs) == ("w", False, 1, True)
    assert 50_000 < shown.lease_ms <= 60_000
    assert status.num_live == 1


def test_what_a_worker_gave_back_is_an_orphan_and_not_in_flight(queue, operator):
    queue.admit(10)
    worker = queue.consumer("w")
    assert worker.take(budget=10, num_held=0).jobs
    worker.leave()
    lane = operator.status(queue.name).interactive
    assert (lane.jobs, lane.in_flight, lane.orphans) == (1, 0, 1)


def test_the_wait_of_new_interactive_work_follows_the_pace_of_live_workers(queue, operator):
    queue.admit(100, 200)
    assert operator.status(queue.name).interactive_wait_s is None
    for name, rate in (("a", 1000), ("b", 500)):
        queue.consumer(name).renew(loading=False, tokens_per_s=rate)
    queue.dead_consumer("dead").renew(loading=False, tokens_per_s=10_000)
    status = operator.status(queue.name)
    assert (status.tokens_per_s, status.interactive_wait_s) == (1500, pytest.approx(0.2))

    queue.admit(10**5, lane=Lane.BULK)  # every fourth take begins with it
    assert operator.status(queue.name).interactive_wait_s == pytest.approx(0.2 / 0.75)


def test_a_worker_that_loads_is_shown_and_takes_no_jobs(queue, operator):
    queue.consumer("w").renew(loading=True)
    status = operator.status(queue.name)
    (shown,) = status.workers
    assert (shown.loading, shown.is_alive, shown.takes_jobs) == (True, True, False)
    assert status.num_live == 0


def test_a_worker_whose_lease_is_over_is_shown_as_dead_until_it_is_reaped(queue, operator):
    queue.dead_consumer("dead").renew(loading=False)
    (shown,) = operator.status(queue.name).workers
    assert not shown.is_alive
    queue.consumer("reaper").reap()
    assert operator.status(queue.name).workers == ()


# Pause, drain, resume


def test_a_paused_queue_gives_workers_nothing_until_it_is_resumed(queue, operator):
    worker = queue.consumer("w")
    operator.pause(queue.name)
    queue.admit(10)
    assert operator.status(queue.name).paused
    assert not worker.take(budget=10, num_held=0).jobs
    assert operator.resume(queue.name)
    assert not operator.status(queue.name).paused
    assert worker.take(budget=10, num_held=0).jobs


def test_a_draining_queue_admits_nothing_and_ends_empty(queue, operator):
    queue.admit(10, 20)
    operator.drain(queue.name)
    assert operator.status(queue.name).draining
    assert queue.try_admit(10)[0] != 1

    left = operator.until_empty(queue.name)
    first = next(left)
    assert (first.jobs, first.tokens) == (2, 30)
    worker = queue.consumer("w")
    assert finish_all(worker, worker.take(budget=100, num_held=0).jobs) == 2
    assert list(left) == []

    assert operator.resume(queue.name)
    queue.admit(10)


def test_resuming_what_was_not_stopped_says_so(queue, operator):
    assert not operator.resume(queue.name)


@pytest.mark.parametrize("binary", binaries(), ids=["embedded", "own"][: len(binaries())])
def test_a_full_server_can_be_paused_and_drained(binary):
    with redis_server(binary, "--maxmemory", "3mb") as url, own_queue(url) as queue, operating(url) as operator:
        queue.admit(10)
        queue.client.config_set("maxmemory", "1")
        operator.pause(queue.name)
        operator.drain(queue.name)
        assert operator.status(queue.name).paused
        assert operator.status(queue.name).draining


# Forget


def test_forgetting_removes_the_announcement_and_every_key(queue, operator):
    bury(queue, 10)
    operator.pause(queue.name)
    operator.forget(queue.name, force=False)
    assert queue.name not in operator.queues()
    left = [key.decode() for key in queue.client.scan_iter(match=f"{{q:{queue.name}}}:*")]
    assert all(":r:" in key and queue.client.ttl(key) > 0 for key in left)  # replies expire


@pytest.mark.parametrize("loading", [False, True])
def test_a_queue_with_workers_is_not_forgotten_whatever_is_forced(queue, operator, loading):
    worker = queue.consumer("w")
    worker.renew(loading=loading)
    for force in (False, True):
        with pytest.raises(OperatorError, match=r"workers \(.*which would announce it again"):
            operator.forget(queue.name, force=force)
    assert queue.name in operator.queues()


def test_a_queue_with_jobs_is_forgotten_only_by_force(queue, operator):
    queue.admit(10, lane=Lane.BULK)
    with pytest.raises(OperatorError, match=r"holds jobs \(1\)"):
        operator.forget(queue.name, force=False)
    assert operator.status(queue.name).jobs == 1
    operator.forget(queue.name, force=True)
    assert operator.status(queue.name).jobs == 0


# Dead letters


def test_letters_are_read_oldest_first_in_any_number(queue, operator):
    bury(queue, 1)
    (letter,) = queue.dead_letters()
    for size in range(2, 131):
        queue.client.xadd(queue.keys.dead, letter | {b"tokens": size})
    assert [letter.tokens for letter in read_letters(operator, queue.name)] == list(range(1, 131))


def test_a_letter_says_what_is_known_of_the_job(queue, operator):
    (letter_id,) = bury(queue, 10, request_id="who-asked", lane=Lane.BULK, tenant="acme")
    letter = read_letter(operator, queue.name, letter_id)
    assert (letter.lane, letter.tokens, letter.deliveries) == (Lane.BULK, 10, 3)
    assert (letter.request_id, letter.tenant) == ("who-asked", "acme")
    assert "failed its worker" in letter.reason
    assert letter.job().lengths == [10]
    assert abs(letter.died_ms / 1000 - time.time()) < 60


def test_a_letter_that_is_not_there_is_refused(queue, operator):
    with pytest.raises(OperatorError, match=f"{queue.name} has no dead letter 1-1"):
        read_letter(operator, queue.name, "1-1")
    with pytest.raises(OperatorError, match="'all' is no dead letter's id"):
        read_letter(operator, queue.name, "all")
    with pytest.raises(OperatorError, match="has no dead letter 1-1"):
        replay(operator, queue.name, "1-1", timeout_s=1)


def test_a_letter_that_this_version_cannot_read_is_refused(queue, operator):
    bury(queue, 10)
    ((_, fields),) = queue.client.xrange(queue.keys.dead)
    newer = queue.client.xadd(queue.keys.dead, fields | {b"payload": b"\xffnewer"}).decode()
    with pytest.raises(OperatorError, match=f"{newer} cannot be read: message version 255"):
        read_letter(operator, queue.name, newer).job()


def test_named_letters_or_all_are_purged(queue, operator):
    first, second, third = bury(queue, 1, 2, 3)
    assert purge(operator, queue.name, [second, "1-1"]) == 1
    assert [letter.letter_id for letter in read_letters(operator, queue.name)] == [first, third]
    assert purge(operator, queue.name, []) == 2
    assert purge(operator, queue.name, []) == 0


# Replay


def test_a_replayed_job_is_answered_alone_and_its_letter_removed(queue, operator, any_redis_url):
    letter_id, other = bury(queue, 10, 20, request_id="who-asked", tenant="acme")
    with WorkerDouble(any_redis_url, queue.name) as worker:
        answer = replay(operator, queue.name, letter_id, timeout_s=10)
    assert isinstance(answer, Result)
    assert answer.num_rows == 1
    (ran,) = worker.ran
    assert (ran.must_run_alone, ran.tokens, ran.request_id, ran.tenant) == (True, 10, "who-asked", "")
    assert [letter.letter_id for letter in read_letters(operator, queue.name)] == [other]
    assert not list(queue.client.scan_iter(match=f"{{q:{queue.name}}}:r:operator-*"))
    queue.check_idle()


def test_a_job_that_a_worker_answers_with_a_failure_keeps_its_letter(queue, operator, any_redis_url):
    (letter_id,) = bury(queue, 10)
    failure = Failure(reason=FailureReason.OUT_OF_MEMORY, message="too much")
    with WorkerDouble(any_redis_url, queue.name, answer=lambda _: failure):
        assert replay(operator, queue.name, letter_id, timeout_s=10) == failure
    assert [letter.letter_id for letter in read_letters(operator, queue.name)] == [letter_id]
    queue.check_idle()


def test_a_job_that_kills_its_workers_again_keeps_the_one_letter_it_had(queue, operator):
    (letter_id,) = bury(queue, 10)
    with ThreadPoolExecutor(1) as pool:
        replaying = pool.submit(replay, operator, queue.name, letter_id, timeout_s=10)
        reaper = queue.consumer("reaper")
        while not replaying.done():
            queue.dead_consumer("dead").take(budget=10**6, num_held=0)
            reaper.reap()
    answer = replaying.result()
    assert isinstance(answer, Failure)
    assert answer.reason is FailureReason.POISON_INPUT
    assert [letter.letter_id for letter in read_letters(operator, queue.name)] == [letter_id]
    queue.check_idle()


def test_a_job_that_nobody_answers_in_time_leaves_the_queue(queue, operator):
    (letter_id,) = bury(queue, 10)
    with pytest.raises(OperatorError, match=r"no answer in 0\.2 s.*left the queue.*live workers: 0"):
        replay(operator, queue.name, letter_id, timeout_s=0.2)
    assert queue.check_depth() == Depth(tokens=0, jobs=0)
    assert len(queue.dead_letters()) == 1


def test_the_reply_stream_is_kept_alive_while_somebody_waits(queue, operator, any_redis_url, monkeypatch):
    monkeypatch.setattr(replay_module, "REPLIES_TTL_S", 1)
    monkeypatch.setattr(replay_module, "BLOCK_MS", 100)
    (letter_id,) = bury(queue, 10)

    def slowly(_):
        time.sleep(1.5)
        return Failure(reason=FailureReason.OUT_OF_MEMORY, message="late")

    with WorkerDouble(any_redis_url, queue.name, answer=slowly):
        assert replay(operator, queue.name, letter_id, timeout_s=20).message == "late"


def test_a_server_that_loses_its_data_meanwhile_is_told(queue, operator, monkeypatch):
    monkeypatch.setattr(replay_module, "BLOCK_MS", 50)
    (letter_id,) = bury(queue, 10)
    with ThreadPoolExecutor(1) as pool:
        replaying = pool.submit(replay, operator, queue.name, letter_id, timeout_s=10)
        wait_for(lambda: queue.client.xlen(queue.lanes[Lane.INTERACTIVE]))
        queue.client.delete(*queue.client.keys(f"{{q:{queue.name}}}:*"))
        with pytest.raises(OperatorError, match="lost the job"):
            replaying.result()


def test_a_letter_without_its_payload_cannot_be_replayed(queue, operator):
    letter_id = without_payload(queue, *bury(queue, 10))
    assert read_letter(operator, queue.name, letter_id).job() is None
    with pytest.raises(OperatorError, match="metadata"):
        replay(operator, queue.name, letter_id, timeout_s=1)
    queue.check_idle()


def test_nothing_is_replayed_into_a_paused_queue(queue, operator):
    (letter_id,) = bury(queue, 10)
    operator.pause(queue.name)
    with pytest.raises(OperatorError, match="paused"):
        replay(operator, queue.name, letter_id, timeout_s=1)
    queue.check_idle()


def test_a_letter_is_replayed_into_a_draining_queue(queue, operator, any_redis_url):
    (letter_id,) = bury(queue, 10, lane=Lane.BULK)
    operator.drain(queue.name)
    with WorkerDouble(any_redis_url, queue.name):
        assert replay(operator, queue.name, letter_id, timeout_s=10).num_rows == 1
    assert queue.dead_letters() == []


# Servers


def test_a_server_that_is_away_or_unfit_is_refused():
    with pytest.raises(QueueAwayError), operating("unix:///nowhere.sock"):
        pass
    with pytest.raises(UnsuitableServerError, match="not a URL"), operating(f"http://:{PASSWORD}@h"):
        pass
    with (
        redis_server(binaries()[0], "--maxmemory-policy", "allkeys-lru") as url,
        pytest.raises(UnsuitableServerError, match="noeviction"),
        operating(url),
    ):
        pass


def test_what_the_server_forbids_a_user_is_refused_in_words(any_redis_url):
    with own_queue(any_redis_url) as queue:
        user = {"enabled": True, "passwords": f"+{PASSWORD}", "commands": ["+info", "-eval"], "keys": ["*"]}
        queue.client.acl_setuser("watcher", **user)
        path = any_redis_url.removeprefix("unix://")
        try:
            with (
                pytest.raises(OperatorError, match=r"refuses: .*permission") as refusal,
                operating(f"unix://watcher:{PASSWORD}@{path}") as operator,
            ):
                operator.status(queue.name)
        finally:
            queue.client.acl_deluser("watcher")
        assert PASSWORD not in str(refusal.value)
