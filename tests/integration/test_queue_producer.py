"""The gateway's end and the worker's end together, over a real server."""

import asyncio
import random
import time
import uuid
from array import array

import pytest

from jobqueue.errors import CallTooLargeError, JobFailedError, NoWorkerError, QueueFullError
from jobqueue.keys import QueueKeys
from jobqueue.lanes import Lane
from jobqueue.messages import DecodeError, Failure, FailureReason, Job, decode_job
from jobqueue.pipeline import Pipeline
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


@pytest.fixture
def queue(any_redis_url):
    with own_queue(any_redis_url) as queue:
        yield queue


def soon():
    return asyncio.get_running_loop().time() + 30


async def test_a_call_comes_back_with_its_result(queue, any_redis_url):
    call = job_of(3, 5, prefix=2)
    async with producer_at(any_redis_url) as producer:
        with WorkerDouble(any_redis_url, queue.name) as worker:
            result = await producer.submit(submission(queue.name, call, deadline=soon(), request_id="caller-3"))
    assert result == echo(call)
    (taken,) = worker.ran
    assert decode_job(taken.payload) == call
    assert (taken.tokens, taken.request_id) == (12, "caller-3")
    assert 29 < taken.expires_at - time.monotonic() <= 30
    queue.check_idle()


async def test_a_jobs_cost_grows_with_the_square_of_its_lengths(queue, any_redis_url):
    call = submission(queue.name, job_of(10, 20), deadline=soon(), request_id="req")
    costly = type(call)(**{name: getattr(call, name) for name in call.__slots__} | {"attention_cost": 0.1})
    async with producer_at(any_redis_url) as producer:
        with WorkerDouble(any_redis_url, queue.name) as worker:
            await producer.submit(costly)
    assert [(taken.tokens, taken.cost) for taken in worker.ran] == [(30, 10 + 10 + 20 + 40)]


async def test_a_call_waits_for_its_first_worker(queue, any_redis_url):
    call = job_of(4)
    async with producer_at(any_redis_url) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, call, deadline=soon())))
        await until(lambda: queue.check_depth() == Depth(tokens=4, jobs=1))
        with WorkerDouble(any_redis_url, queue.name):
            assert await waiting == echo(call)


async def test_a_call_of_many_jobs_is_split_over_two_workers_and_merged_in_order(queue, any_redis_url):
    call = job_of(*random.Random(0).choices(range(1, 30), k=200), prefix=1)
    async with producer_at(any_redis_url, max_job_tokens=31) as producer:
        first = WorkerDouble(any_redis_url, queue.name, max_jobs=1)
        second = WorkerDouble(any_redis_url, queue.name, max_jobs=1)
        with first, second:
            result = await producer.submit(submission(queue.name, call, deadline=soon()))
    assert result.rows == echo(call).rows
    assert result.num_rows == 200
    assert result.computed_tokens == sum(call.lengths)
    assert min(len(first.ran), len(second.ran)) > 1
    assert all(taken.tokens <= 31 for taken in first.ran + second.ran)
    assert all(decode_job(taken.payload).prefix == call.prefix for taken in first.ran + second.ran)
    queue.check_idle()


async def test_many_calls_at_once_each_get_their_own_answer(queue, any_redis_url):
    calls = [job_of(*[1 + number % 7] * (1 + number % 3), prefix=number % 2) for number in range(200)]
    async with producer_at(any_redis_url, max_job_tokens=8) as producer:
        with WorkerDouble(any_redis_url, queue.name, budget=50), WorkerDouble(any_redis_url, queue.name, budget=50):
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        producer.submit(submission(queue.name, call, deadline=soon(), lane=random.choice(list(Lane))))
                    )
                    for call in calls
                ]
    assert [task.result().rows for task in tasks] == [echo(call).rows for call in calls]
    queue.check_idle()


async def test_one_producer_serves_several_queues(queue, any_redis_url):
    with own_queue(any_redis_url) as other:
        calls = {queue.name: job_of(3), other.name: job_of(4)}
        async with producer_at(any_redis_url) as producer:
            with WorkerDouble(any_redis_url, queue.name), WorkerDouble(any_redis_url, other.name):
                results = await asyncio.gather(
                    *[producer.submit(submission(name, call, deadline=soon())) for name, call in calls.items()]
                )
    assert results == [echo(call) for call in calls.values()]


async def test_a_full_queue_refuses_the_call_with_numbers(queue, any_redis_url):
    queue.admit(10, 10)
    async with producer_at(any_redis_url, max_tokens=30, max_jobs=5) as producer:
        with pytest.raises(QueueFullError, match="the queue holds 20 tokens in 2 jobs"):
            await producer.submit(submission(queue.name, job_of(11), deadline=soon()))
        with pytest.raises(QueueFullError, match="the queue holds 20 tokens in 2 jobs"):
            await producer.submit(submission(queue.name, job_of(1), lane=Lane.BULK, deadline=soon()))
    assert queue.check_depth() == Depth(tokens=20, jobs=2)


async def test_a_call_that_nobody_would_run_is_refused_at_once(queue, any_redis_url):
    async with producer_at(any_redis_url) as producer:
        with pytest.raises(NoWorkerError, match=f"no worker serves {queue.name}"):
            await producer.submit(submission(queue.name, job_of(3), deadline=soon(), wakeable=False))
    queue.check_idle()


async def test_a_call_that_no_queue_can_hold_must_be_split(queue, any_redis_url):
    async with producer_at(any_redis_url, max_tokens=30) as producer:
        with pytest.raises(CallTooLargeError, match="31 tokens in one call, the queue holds 30"):
            await producer.submit(submission(queue.name, job_of(31), deadline=soon()))
        with pytest.raises(CallTooLargeError, match="16 tokens in one call, the queue holds 15"):
            await producer.submit(submission(queue.name, job_of(16), lane=Lane.BULK, deadline=soon()))
    async with producer_at(any_redis_url, max_jobs=2, max_job_tokens=5) as producer:
        with pytest.raises(CallTooLargeError, match="makes 3 jobs, the queue holds 2"):
            await producer.submit(submission(queue.name, job_of(5, 5, 5), deadline=soon()))


async def test_a_cancelled_call_leaves_nothing_in_the_queue(queue, any_redis_url):
    worker = queue.consumer("a")
    async with producer_at(any_redis_url, max_job_tokens=10) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(10, 10, 10), deadline=soon())))
        await until(lambda: queue.check_depth().jobs == 3)
        taken = worker.take(budget=10, num_held=0).jobs
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    queue.check_idle()
    assert worker.confirm(taken) == []
    assert finish_all(worker, taken) == 0


async def test_a_call_that_is_cancelled_while_it_is_admitted_leaves_nothing_in_the_queue(queue, any_redis_url):
    async with producer_at(any_redis_url) as producer:
        for num_ticks in range(6):
            waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(10), deadline=soon())))
            for _ in range(num_ticks):
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    queue.check_idle()


async def test_a_call_past_its_deadline_leaves_nothing_in_the_queue(queue, any_redis_url):
    async with producer_at(any_redis_url) as producer:
        deadline = asyncio.get_running_loop().time() + 0.03
        with pytest.raises(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await producer.submit(submission(queue.name, job_of(10), deadline=deadline))
    queue.check_idle()


async def test_what_was_answered_before_the_cancel_stays_ended(queue, any_redis_url):
    worker = queue.consumer("a")
    async with producer_at(any_redis_url, max_job_tokens=10) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(10, 10), deadline=soon())))
        await until(lambda: queue.check_depth().jobs == 2)
        assert finish_all(worker, worker.take(budget=10, num_held=0).jobs) == 1
        await until(lambda: queue.client.xlen(producer._channel(queue.name)._reader._stream) == 0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    queue.check_idle()


async def test_one_failed_job_fails_the_call_by_its_own_sequence_number_and_withdraws_the_rest(queue, any_redis_url):
    call = job_of(5, 5, 6, 5, 5, 7, 4)  # jobs of sequences 0, 1 | 2 | 3, 4 | 5 | 6
    worker = queue.consumer("a")
    async with producer_at(any_redis_url, max_job_tokens=10) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, call, deadline=soon())))
        await until(lambda: queue.check_depth().jobs == 5)
        taken = worker.take(budget=26, num_held=0).jobs
        failure = Failure(reason=FailureReason.NON_FINITE_RESULT, message="no number", sequence=1)
        assert finish_all(worker, taken[:2]) == 2
        assert worker.finish([(taken[2], failure)]) == 1
        with pytest.raises(JobFailedError, match="no number") as caught:
            await waiting
    assert caught.value.failure == Failure(reason=FailureReason.NON_FINITE_RESULT, message="no number", sequence=4)
    queue.check_idle()


async def test_a_failure_of_a_whole_job_names_no_sequence(queue, any_redis_url):
    def fail(_: Job) -> Failure:
        return Failure(reason=FailureReason.INVALID_JOB, message="no")

    async with producer_at(any_redis_url, max_job_tokens=3) as producer:
        with WorkerDouble(any_redis_url, queue.name, answer=fail), pytest.raises(JobFailedError) as caught:
            await producer.submit(submission(queue.name, job_of(2, 2), deadline=soon()))
    assert caught.value.failure == Failure(reason=FailureReason.INVALID_JOB, message="no", sequence=-1)
    queue.check_idle()


async def test_a_poisoned_jobs_caller_gets_its_failure(queue, any_redis_url):
    async with producer_at(any_redis_url) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(5), deadline=soon())))
        await until(lambda: queue.check_depth().jobs == 1)
        for number in range(3):
            assert queue.dead_consumer(f"dead-{number}").take(budget=10, num_held=0).jobs
            queue.consumer("reaper").reap()
        queue.consumer("last").take(budget=10, num_held=0)
        with pytest.raises(JobFailedError) as caught:
            await waiting
    assert caught.value.failure.reason is FailureReason.POISON_INPUT
    assert len(queue.dead_letters()) == 1
    queue.check_idle()


async def test_an_answer_that_this_process_cannot_read_fails_its_own_call_only(queue, any_redis_url):
    worker = queue.consumer("a")
    async with producer_at(any_redis_url) as producer:
        waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(5), deadline=soon())))
        await until(lambda: queue.check_depth().jobs == 1)
        (taken,) = worker.take(budget=10, num_held=0).jobs
        worker._end([(taken, b"\xffof a later version")])
        with pytest.raises(DecodeError, match="message version 255"):
            async with asyncio.timeout(5):
                await waiting
        with WorkerDouble(any_redis_url, queue.name):
            call = job_of(6)
            assert await producer.submit(submission(queue.name, call, deadline=soon())) == echo(call)


async def test_an_answer_that_nobody_waits_for_is_deleted(queue, any_redis_url):
    async with producer_at(any_redis_url) as producer:
        with WorkerDouble(any_redis_url, queue.name):
            await producer.submit(submission(queue.name, job_of(2), deadline=soon()))
            stream = QueueKeys(queue.name).replies(producer._gateway)
            queue.client.xadd(stream, {b"nobody waits for it": b"\x00"})
            await until(lambda: queue.client.xlen(stream) == 0)
            await producer.submit(submission(queue.name, job_of(2), deadline=soon()))


async def test_the_gateway_keeps_its_reply_stream_alive(queue, any_redis_url, monkeypatch):
    monkeypatch.setattr("jobqueue.replies.BLOCK_MS", 10)
    async with producer_at(any_redis_url) as producer:
        with WorkerDouble(any_redis_url, queue.name):
            await producer.submit(submission(queue.name, job_of(2), deadline=soon()))
        stream = QueueKeys(queue.name).replies(producer._gateway)
        queue.client.expire(stream, 1)
        await until(lambda: queue.client.ttl(stream) > 1)


async def test_submits_work_after_the_server_forgot_its_scripts(queue, any_redis_url):
    calls = [job_of(size) for size in range(1, 21)]
    async with producer_at(any_redis_url) as producer:
        queue.client.script_flush()
        with WorkerDouble(any_redis_url, queue.name):
            results = await asyncio.gather(
                *[producer.submit(submission(queue.name, call, deadline=soon())) for call in calls]
            )
    assert results == [echo(call) for call in calls]
    queue.check_idle()


async def test_a_closed_producer_leaves_no_task(queue, any_redis_url):
    before = asyncio.all_tasks()
    async with producer_at(any_redis_url) as producer:
        with WorkerDouble(any_redis_url, queue.name):
            await producer.submit(submission(queue.name, job_of(2), deadline=soon()))
        waiting = asyncio.create_task(producer.submit(submission(queue.name, job_of(2), deadline=soon())))
        await until(lambda: queue.check_depth().jobs == 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert asyncio.all_tasks() == before
    queue.check_idle()


async def test_a_call_without_room_for_its_deadline_still_ends(queue, any_redis_url):
    async with producer_at(any_redis_url) as producer:
        past = asyncio.get_running_loop().time() - 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await producer.submit(submission(queue.name, job_of(2), deadline=past))
    queue.check_idle()


async def test_token_ids_arrive_as_they_were_sent(queue, any_redis_url):
    tail = array("i", [0, 1, 151_643, 2**31 - 1])
    call = Job(operation=job_of(1).operation, prefix=array("i"), tails=(tail,), dimensions=32, normalize=False)
    async with producer_at(any_redis_url) as producer:
        with WorkerDouble(any_redis_url, queue.name) as worker:
            await producer.submit(submission(queue.name, call, deadline=soon()))
    assert [decode_job(taken.payload) for taken in worker.ran] == [call]


async def test_a_step_that_nobody_waits_for_any_more_harms_no_other_of_its_tick(queue, any_redis_url):
    async with producer_at(any_redis_url) as producer:
        pipeline = producer._channel(queue.name)._pipeline
        (entry_id,) = queue.admit(1)
        steps = [pipeline.send("known", (60,), ("hi", some_id)) for some_id in (entry_id, entry_id, "1-1")]
        steps[0].cancel()
        outcomes = await asyncio.gather(*steps, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [1, 0]


async def test_a_gateway_waits_on_more_queues_than_a_connection_pool_has_by_default(any_redis_url):
    async with producer_at(any_redis_url) as producer:
        names = [f"m-{uuid.uuid4()}@1" for _ in range(120)]
        calls = [asyncio.create_task(producer.submit(submission(name, job_of(1), deadline=soon()))) for name in names]
        done, waiting = await asyncio.wait(calls, timeout=2)
        assert (len(done), len(waiting)) == (0, 120)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_a_reader_that_nobody_waits_on_ends_and_another_begins(queue, any_redis_url, monkeypatch):
    monkeypatch.setattr("jobqueue.replies.IDLE_S", 0.05)
    monkeypatch.setattr("jobqueue.replies.BLOCK_MS", 20)
    async with producer_at(any_redis_url) as producer:
        with WorkerDouble(any_redis_url, queue.name):
            first = await producer.submit(submission(queue.name, job_of(2), deadline=soon()))
            readers = [task for task in asyncio.all_tasks() if "Channel.run" in repr(task.get_coro())]
            await asyncio.wait_for(asyncio.gather(*readers), 5)
            second = await producer.submit(submission(queue.name, job_of(3), deadline=soon()))
        assert (first.num_rows, second.num_rows) == (1, 1)


async def test_a_call_cancelled_at_the_moment_of_its_admission_leaves_the_queue(queue, any_redis_url, monkeypatch):
    outcomes_of = Pipeline._outcomes

    async def cancel_when_replied(pipeline, groups):
        outcomes = await outcomes_of(pipeline, groups)
        if groups[0][0].name == "admit":
            call.cancel()
        return outcomes

    monkeypatch.setattr(Pipeline, "_outcomes", cancel_when_replied)
    async with producer_at(any_redis_url) as producer:
        call = asyncio.create_task(producer.submit(submission(queue.name, job_of(4), deadline=soon())))
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: queue.check_depth() == Depth(tokens=0, jobs=0))
