"""What Redis loses is admitted again by the gateways whose calls wait for it."""

import asyncio
import contextlib

import pytest
import redis

from jobqueue.channel import Channel
from jobqueue.errors import QueueAwayError
from jobqueue.lanes import Lane
from jobqueue.pipeline import Pipeline
from jobqueue.replies import ReplyReader
from tests.support.queues import (
    Depth,
    WorkerDouble,
    echo,
    finish_all,
    job_of,
    own_queue,
    producer_at,
    submission,
    until,
)
from tests.support.redis_servers import binaries, redis_server, silent


@pytest.fixture(params=binaries(), ids=["embedded", "own"][: len(binaries())])
def url(request):
    with redis_server(request.param) as url:
        yield url


@pytest.fixture
def queue(url, monkeypatch):
    monkeypatch.setattr("jobqueue.channel.RECONCILE_S", 0.05)
    monkeypatch.setattr("jobqueue.channel.ADMIT_AGAIN_S", 0.05)
    monkeypatch.setattr("jobqueue.withdrawals.AGAIN_S", 0.05)
    with own_queue(url) as queue:
        yield queue


def in_s(seconds):
    return asyncio.get_running_loop().time() + seconds


async def test_calls_that_wait_when_the_server_loses_everything_are_answered(queue, url):
    calls = [job_of(5, 5, 5), job_of(7), job_of(2, 9)]
    async with producer_at(url, max_job_tokens=10) as producer:
        waiting = [
            asyncio.create_task(producer.submit(submission(queue.name, call, deadline=in_s(30), lane=lane)))
            for call, lane in zip(calls, (Lane.INTERACTIVE, Lane.BULK, Lane.BULK), strict=True)
        ]
        await until(lambda: queue.check_depth() == Depth(tokens=33, jobs=5))
        queue.client.flushall()
        await until(lambda: queue.check_depth() == Depth(tokens=33, jobs=5))
        with WorkerDouble(url, queue.name):
            results = await asyncio.gather(*waiting)
    assert [result.rows for result in results] == [echo(call).rows for call in calls]
    queue.check_idle()


async def test_a_job_that_runs_when_the_server_loses_everything_is_answered_once(queue, url):
    call = job_of(5)
    async with producer_at(url) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, call, deadline=in_s(30))))
        first, second = queue.consumer("first"), queue.consumer("second")
        await until(lambda: queue.check_depth().jobs == 1)
        lost = first.take(budget=10, num_held=0).jobs
        queue.client.flushall()
        await until(lambda: queue.check_depth().jobs == 1)
        again = second.take(budget=10, num_held=0).jobs
        assert finish_all(first, lost) == 0
        assert finish_all(second, again) == 1
        assert await waiting == echo(call)
    queue.check_idle()


async def test_a_job_of_which_another_was_answered_is_all_that_is_admitted_again(queue, url):
    worker = queue.consumer("a")
    async with producer_at(url, max_job_tokens=10) as producer:
        call = job_of(10, 10)
        waiting = asyncio.create_task(producer.submit(submission(queue.name, call, deadline=in_s(30))))
        await until(lambda: queue.check_depth().jobs == 2)
        stream = producer._channel(queue.name)._reader._stream
        assert finish_all(worker, worker.take(budget=10, num_held=0).jobs) == 1
        await until(lambda: queue.client.xlen(stream) == 0)
        queue.client.flushall()
        await until(lambda: queue.check_depth().jobs > 0)
        assert queue.check_depth() == Depth(tokens=10, jobs=1)
        assert finish_all(worker, worker.take(budget=10, num_held=0).jobs) == 1
        assert (await waiting).rows == echo(call).rows
    queue.check_idle()


async def test_what_is_admitted_again_has_the_time_that_is_left(queue, url):
    async with producer_at(url) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(5), deadline=in_s(30))))
        await until(lambda: queue.check_depth().jobs == 1)
        await asyncio.sleep(0.5)
        queue.client.flushall()
        await until(lambda: queue.check_depth().jobs == 1)
        ((_, fields),) = queue.client.xrange(queue.lanes[Lane.INTERACTIVE])
        assert 0 < int(fields[b"ttl_ms"]) <= 29_500
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    queue.check_idle()


async def test_limits_do_not_hold_for_what_was_admitted_before(queue, url):
    async with producer_at(url, max_tokens=10) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(8), deadline=in_s(30))))
        await until(lambda: queue.check_depth().jobs == 1)
        await asyncio.sleep(0.005)  # in the same millisecond the next job would have the lost one's entry id
        queue.client.flushall()
        queue.admit(10)
        await until(lambda: queue.check_depth() == Depth(tokens=18, jobs=2))
        with WorkerDouble(url, queue.name):
            assert (await waiting).num_rows == 1


async def test_a_call_that_is_given_up_while_it_is_lost_leaves_nothing(queue, url):
    async with producer_at(url) as producer:
        withdrawals = producer._channel(queue.name)._withdrawals
        for delay_s in (0, 0.05, 0.1, 0.12, 0.15):
            waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(5), deadline=in_s(30))))
            await until(lambda: queue.check_depth().jobs == 1)
            queue.client.flushall()
            await asyncio.sleep(delay_s)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await until(lambda: withdrawals.are_done)
            queue.check_idle()


def lose_replies(monkeypatch, num):
    """The next `num` pipelines are carried out, and their replies lost."""
    real, left = Pipeline._round_trip, [num]

    async def round_trip(self, groups):
        found = await real(self, groups)
        if left[0]:
            left[0] -= 1
            raise redis.ConnectionError("the reply was lost")
        return found

    monkeypatch.setattr(Pipeline, "_round_trip", round_trip)


async def test_a_call_whose_admission_nobody_knows_of_is_admitted_again_and_answered_once(queue, url, monkeypatch):
    lose_replies(monkeypatch, 1)
    call = job_of(5)
    async with producer_at(url) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, call, deadline=in_s(30))))
        await until(lambda: queue.check_depth().jobs == 2)
        with WorkerDouble(url, queue.name) as worker:
            assert await waiting == echo(call)
            await until(lambda: queue.check_depth().jobs == 0)
        assert len({taken.job_id for taken in worker.ran}) == 1
    queue.check_idle()


async def test_a_call_that_cannot_be_admitted_for_long_is_refused(queue, url, monkeypatch):
    monkeypatch.setattr("jobqueue.channel.ADMIT_PATIENCE_S", 0.2)
    lose_replies(monkeypatch, 1000)
    async with producer_at(url) as producer:
        with pytest.raises(QueueAwayError, match="the reply was lost"):
            await producer.submit(submission(queue.name, job_of(5), deadline=in_s(30)))


async def test_while_the_server_is_known_to_be_away_calls_are_refused_at_once_and_served_again_after(
    queue, url, monkeypatch
):
    call = job_of(5)
    async with producer_at(url) as producer:
        with WorkerDouble(url, queue.name):
            await producer.submit(submission(queue.name, call, deadline=in_s(30)))
            lose_replies(monkeypatch, 20)
            channel = producer._channel(queue.name)
            lost = asyncio.create_task(producer.submit(submission(queue.name, call, deadline=in_s(30))))
            await until(lambda: channel._pipeline.is_away)
            with pytest.raises(QueueAwayError, match="Redis does not answer"):
                await producer.submit(submission(queue.name, call, deadline=in_s(30)))
            await until(lambda: not channel._pipeline.is_away)
            assert (await lost).rows == echo(call).rows
            assert (await producer.submit(submission(queue.name, call, deadline=in_s(30)))).rows == echo(call).rows


async def test_a_gateway_that_waits_for_nothing_asks_for_nothing(queue, url, monkeypatch):
    asked = []
    real = Channel._ask

    async def ask(self, jobs):
        asked.append(len(jobs))
        await real(self, jobs)

    monkeypatch.setattr(Channel, "_ask", ask)
    async with producer_at(url) as producer:
        with WorkerDouble(url, queue.name):
            await producer.submit(submission(queue.name, job_of(5), deadline=in_s(30)))
        asked.clear()
        await asyncio.sleep(0.3)
    assert asked == []


async def test_what_may_have_been_answered_unread_is_not_admitted_again(queue, url, monkeypatch):
    """While its reader is cut off, a gateway does not know what the reply stream holds."""
    is_cut_off = asyncio.Event()
    real = ReplyReader._delete_and_read

    async def read(self, consumed):
        if is_cut_off.is_set():
            await asyncio.sleep(1)
            raise redis.ConnectionError("cut off")
        return await real(self, consumed)

    monkeypatch.setattr(ReplyReader, "_delete_and_read", read)
    monkeypatch.setattr("jobqueue.replies.BLOCK_MS", 10)
    call, worker = job_of(5), queue.consumer("a")
    async with producer_at(url) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, call, deadline=in_s(30))))
        await until(lambda: queue.check_depth().jobs == 1)
        is_cut_off.set()
        await asyncio.sleep(0.05)
        assert finish_all(worker, worker.take(budget=10, num_held=0).jobs) == 1
        await asyncio.sleep(0.5)
        queue.check_idle()
        is_cut_off.clear()
        assert await waiting == echo(call)


@contextlib.contextmanager
def refusing(queue):
    """A server that keeps what it has, and takes no writes: a replica of nobody."""
    queue.client.replicaof("127.0.0.1", 1)
    yield
    queue.client.replicaof("NO", "ONE")


async def give_up(*calls):
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_server_that_becomes_a_replica_and_a_master_again_loses_no_call(queue, url, monkeypatch):
    monkeypatch.setattr("jobqueue.replies.BLOCK_MS", 60_000)
    call = job_of(5)
    async with producer_at(url) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, call, deadline=in_s(30))))
        await until(lambda: queue.check_depth().jobs == 1)
        await until(lambda: any(client["cmd"] == "xread" for client in queue.client.client_list()))
        with refusing(queue):
            await asyncio.sleep(0.3)
        with WorkerDouble(url, queue.name):
            assert await waiting == echo(call)


async def test_what_is_given_up_while_the_server_refuses_leaves_the_queue_when_it_does_not(queue, url):
    async with producer_at(url, max_job_tokens=10) as producer:
        calls = [
            asyncio.create_task(producer.submit(submission(queue.name, job_of(5, 10), deadline=in_s(300), lane=lane)))
            for lane in Lane
            for _ in range(20)
        ]
        await until(lambda: queue.check_depth().jobs == 80)
        with refusing(queue):
            await give_up(*calls)
            await asyncio.sleep(0.3)
            assert queue.check_depth().jobs == 80
        await until(lambda: queue.check_depth().jobs == 0)
    queue.check_idle()


async def test_what_is_given_up_while_the_server_is_silent_leaves_the_queue_when_it_is_back(queue, url, monkeypatch):
    async with producer_at(url) as producer:
        calls = [
            asyncio.create_task(producer.submit(submission(queue.name, job_of(5), deadline=in_s(300))))
            for _ in range(500)
        ]
        await until(lambda: queue.check_depth().jobs == 500)
        monkeypatch.setattr("jobqueue.pipeline.REPLY_TIMEOUT_S", 0.1)
        with silent(queue.client):
            await give_up(*calls)
            await asyncio.sleep(0.3)
        monkeypatch.setattr("jobqueue.pipeline.REPLY_TIMEOUT_S", 5.0)
        await until(lambda: queue.check_depth().jobs == 0)
    queue.check_idle()


async def test_what_is_admitted_after_nobody_heard_of_it_leaves_the_queue(queue, url, monkeypatch):
    monkeypatch.setattr("jobqueue.channel.ADMIT_PATIENCE_S", 0.0)
    async with producer_at(url) as producer:
        kept = asyncio.create_task(producer.submit(submission(queue.name, job_of(5), deadline=in_s(300))))
        await until(lambda: queue.check_depth().jobs == 1)
        monkeypatch.setattr("jobqueue.pipeline.REPLY_TIMEOUT_S", 0.1)
        with silent(queue.client):
            calls = [producer.submit(submission(queue.name, job_of(7), deadline=in_s(300))) for _ in range(50)]
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(outcome, QueueAwayError)
        monkeypatch.setattr("jobqueue.pipeline.REPLY_TIMEOUT_S", 5.0)
        channel = producer._channel(queue.name)
        await until(lambda: not channel._pipeline.is_away)
        await until(lambda: queue.check_depth() == Depth(tokens=5, jobs=1))
        with WorkerDouble(url, queue.name) as worker:
            await kept
        assert len(worker.ran) == 1
    queue.check_idle()


async def test_what_nobody_knows_of_is_found_among_others_who_keep_theirs(queue, url, monkeypatch):
    monkeypatch.setattr("jobqueue.channel.ADMIT_AGAIN_S", 60.0)
    queue.admit(*[1] * 230, lane=Lane.BULK)
    async with producer_at(url, max_job_tokens=10) as producer:
        lose_replies(monkeypatch, 1)
        call = submission(queue.name, job_of(10, 10, 10), deadline=in_s(300), lane=Lane.BULK, tenant="acme")
        waiting = asyncio.create_task(producer.submit(call))
        await until(lambda: queue.check_depth().jobs == 233)
        queue.admit(*[1] * 30, lane=Lane.BULK)
        await give_up(waiting)
        await until(lambda: queue.check_depth().jobs < 263)
        await until(lambda: queue.check_depth() == Depth(tokens=260, jobs=260))


async def test_a_gateway_that_stops_does_not_wait_for_a_silent_server(queue, url, monkeypatch):
    monkeypatch.setattr("jobqueue.withdrawals.SETTLE_S", 0.05)
    monkeypatch.setattr("jobqueue.pipeline.REPLY_TIMEOUT_S", 3600.0)
    with contextlib.ExitStack() as stack:
        async with producer_at(url) as producer:
            waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(5), deadline=in_s(300))))
            await until(lambda: queue.check_depth().jobs == 1)
            stack.enter_context(silent(queue.client))
            await give_up(waiting)


async def test_what_cannot_be_withdrawn_is_forgotten_when_its_time_is_over(queue, url, monkeypatch):
    monkeypatch.setattr("jobqueue.withdrawals.REPLY_TIMEOUT_S", 0.0)
    async with producer_at(url) as producer:
        withdrawals = producer._channel(queue.name)._withdrawals
        waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(5), deadline=in_s(1.5))))
        await until(lambda: queue.check_depth().jobs == 1)
        with refusing(queue):
            await give_up(waiting)
            assert not withdrawals.are_done
            await until(lambda: withdrawals.are_done)
