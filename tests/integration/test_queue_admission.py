import pytest

from jobqueue.lanes import Lane
from jobqueue.limits import QueueLimits
from tests.support.queues import Depth, own_queue

UNMEASURED_RETRY_MS = 1000


@pytest.fixture
def queue(any_redis_url):
    with own_queue(any_redis_url) as queue:
        yield queue


def test_a_call_is_admitted_up_to_the_last_token(queue):
    assert len(queue.admit(40, 60, max_tokens=100)) == 2
    assert queue.check_depth() == Depth(tokens=100, jobs=2)


def test_a_call_that_passes_the_token_limit_is_refused_with_what_the_queue_holds(queue):
    queue.admit(40, 30, max_tokens=100)
    assert queue.try_admit(31, max_tokens=100) == [0, 70, 2, UNMEASURED_RETRY_MS]
    assert queue.check_depth() == Depth(tokens=70, jobs=2)


def test_a_call_that_passes_the_job_limit_is_refused_with_what_the_queue_holds(queue):
    queue.admit(1, 1, max_jobs=3)
    assert queue.try_admit(1, 1, max_jobs=3) == [0, 2, 2, UNMEASURED_RETRY_MS]
    assert len(queue.admit(1, max_jobs=3)) == 1


def test_a_call_is_admitted_as_a_whole_or_not_at_all(queue):
    assert queue.try_admit(10, 10, 81, max_tokens=100) == [0, 0, 0, UNMEASURED_RETRY_MS]
    assert queue.check_depth() == Depth(tokens=0, jobs=0)
    assert queue.client.exists(*queue.lanes.values(), queue.keys.replies("gw")) == 0


def test_bulk_work_stops_at_its_share_where_interactive_work_still_fits(queue):
    limits = QueueLimits(max_tokens=100, max_jobs=10, bulk_share=0.5, max_job_tokens=100, max_wait_ms=1)
    bulk = dict(zip(("max_tokens", "max_jobs"), limits.of(Lane.BULK), strict=True))
    interactive = dict(zip(("max_tokens", "max_jobs"), limits.of(Lane.INTERACTIVE), strict=True))

    queue.admit(50, lane=Lane.BULK, **bulk)
    assert queue.try_admit(1, lane=Lane.BULK, **bulk) == [0, 50, 1, UNMEASURED_RETRY_MS]
    queue.admit(50, lane=Lane.INTERACTIVE, **interactive)
    assert queue.try_admit(1, lane=Lane.INTERACTIVE, **interactive) == [0, 100, 2, UNMEASURED_RETRY_MS]


def test_the_limits_count_both_lanes(queue):
    queue.admit(30, lane=Lane.INTERACTIVE)
    assert queue.try_admit(21, lane=Lane.BULK, max_tokens=50) == [0, 30, 1, UNMEASURED_RETRY_MS]


def test_an_ended_job_makes_room(queue):
    (entry_id,) = queue.admit(100, max_tokens=100)
    assert queue.cancel(entry_id, 100) == 1
    assert len(queue.admit(100, max_tokens=100)) == 1


def test_admission_makes_the_reply_stream_empty_and_mortal(queue):
    queue.admit(1)
    replies = queue.keys.replies("gw")
    assert queue.client.xlen(replies) == 0
    assert 0 < queue.client.ttl(replies) <= 15


def test_admission_refreshes_the_reply_stream_and_keeps_what_is_in_it(queue):
    queue.admit(1)
    replies = queue.keys.replies("gw")
    queue.client.xadd(replies, {b"job": b"answer"})
    queue.client.expire(replies, 1)
    queue.admit(1)
    assert queue.client.ttl(replies) > 1
    assert queue.client.xlen(replies) == 1


def test_without_a_worker_only_wakeable_work_is_admitted(queue):
    assert queue.try_admit(5, wakeable=False) == [-1]
    assert queue.try_admit(5, wakeable=True)[0] == 1
    queue.consumer("loads", lease_ms=60_000).renew(loading=True)
    assert queue.try_admit(5, wakeable=False)[0] == 1


def test_a_worker_whose_lease_is_over_is_no_worker(queue):
    queue.consumer("dead", lease_ms=0).renew(loading=False)
    assert queue.try_admit(5, wakeable=False) == [-1]
    queue.consumer("lives", lease_ms=60_000).renew(loading=False)
    assert queue.try_admit(5, wakeable=False)[0] == 1
