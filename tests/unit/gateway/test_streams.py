"""The life of one stream, with the real tokenizer and a stand-in for the queue."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import grpc
import pytest
from google.rpc import error_details_pb2

from gateway.calls import Call
from gateway.errors import CallError, unavailable
from gateway.parts import Parts, StreamLimits
from gateway.quotas import Quotas
from gateway.reasons import Reason
from gateway.sharing.answers import Answers, CachePolicy
from gateway.streams import answer_stream
from gateway.tokenization import Tokenization
from jobqueue.announcements import Liveness
from jobqueue.cache import CacheLimits
from jobqueue.errors import NoWorkerError, QueueFullError
from jobqueue.lanes import Lane
from jobqueue.messages import Operation, Result
from jobqueue.pending import Submission
from qwen3.inference.v1.embedding_pb2 import EmbedChunk, EmbedConfig, EmbedStreamRequest

MAX_CHUNKS = 4
CONFIG = EmbedStreamRequest(config=EmbedConfig())
NO_CACHE = CachePolicy(models=frozenset(), across_tenants=False, limits=CacheLimits(max_bytes=1, lifetime_ms=1))


class Queue:
    """Stands for the producer: every submission waits for `release`, unless it is refused first."""

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.refusals: list[Exception] = []
        self.num_waiting = 0
        self._open = asyncio.Event()

    def release(self) -> None:
        self._open.set()

    async def submit(self, submission: Submission) -> Result:
        self.submissions.append(submission)
        if self.refusals:
            raise self.refusals.pop(0)
        self.num_waiting += 1
        try:
            await self._open.wait()
        finally:
            self.num_waiting -= 1
        num_rows = len(submission.call.tails)
        return Result(rows=bytes(4 * num_rows), num_rows=num_rows, computed_tokens=0, queue_us=0, compute_us=0)


class Recorder:
    """An observer: how the chunks ended."""

    def __init__(self) -> None:
        self.began_ids: list[int] = []
        self.ended_ids: list[int] = []
        self.ends: dict[int, tuple[str, str | None]] = {}

    def began(self, call: Call, metadata: object) -> None:
        self.began_ids.append(call.chunk_id)

    def ended(self, call: Call, code: str, reason: str | None) -> None:
        self.ended_ids.append(call.chunk_id)
        self.ends[call.chunk_id] = (code, reason)


class Requests:
    """What a client sends, one message when it is asked for; `num_read` of them were."""

    def __init__(self, *messages: EmbedStreamRequest | CallError, half_closes: bool = True) -> None:
        self._messages = list(messages)
        self._half_closes = half_closes
        self.num_read = 0

    def __aiter__(self) -> AsyncIterator[EmbedStreamRequest]:
        return self

    async def __anext__(self) -> EmbedStreamRequest:
        await asyncio.sleep(0)
        if self.num_read == len(self._messages):
            if not self._half_closes:
                await asyncio.Event().wait()
            raise StopAsyncIteration
        message = self._messages[self.num_read]
        self.num_read += 1
        if isinstance(message, CallError):
            raise message
        return message


@pytest.fixture
def queue():
    return Queue()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def make_parts(catalog, limits, queue, recorder):
    """A gateway's parts; `stream` are fields of its StreamLimits."""
    tokenization = Tokenization(num_threads=1)

    def make(in_catalog=catalog, **stream) -> Parts:
        defaults = {"max_chunks": MAX_CHUNKS, "config_timeout_s": 60.0, "chunk_timeout_s": 60.0, "max_age_s": None}
        return Parts(
            registry=SimpleNamespace(catalog=in_catalog),
            tokenization=tokenization,
            producer=queue,
            answers=Answers(None, NO_CACHE),
            quotas=Quotas(None),
            limits=limits,
            stream_limits=StreamLimits(**(defaults | stream)),
            observers=[recorder],
            draining=asyncio.Event(),
        )

    yield make
    tokenization.close()


@pytest.fixture
def parts(make_parts) -> Parts:
    return make_parts()


def call(deadline: float = math.inf) -> Call:
    return Call(method="/x/EmbedStream", request_id="r-1", started=time.perf_counter(), deadline=deadline)


def chunk(chunk_id: int, *texts: str) -> EmbedStreamRequest:
    return EmbedStreamRequest(chunk=EmbedChunk(chunk_id=chunk_id, inputs=texts or ["text"]))


def chunks(number: int) -> list[EmbedStreamRequest]:
    return [chunk(chunk_id) for chunk_id in range(number)]


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - of what others do, who set no event
        await asyncio.sleep(0.001)


async def settle() -> None:
    """Let everybody do what can be done without waiting."""
    for _ in range(100):
        await asyncio.sleep(0)


async def settled(requests: Requests) -> int:
    """How many messages were read, once no more are."""
    num_read = -1
    while num_read != requests.num_read:
        num_read = requests.num_read
        await settle()
    return num_read


async def collect(parts: Parts, *messages: EmbedStreamRequest, in_call: Call | None = None, half_closes: bool = True):
    """All answers by chunk_id, and the error that ended the stream, if any."""
    answers, ending = {}, None
    async with contextlib.aclosing(
        answer_stream(Requests(*messages, half_closes=half_closes), in_call or call(), parts)
    ) as stream:
        try:
            async for answer in stream:
                assert answer.chunk_id not in answers
                answers[answer.chunk_id] = answer
        except CallError as error:
            ending = error
    return answers, ending


async def test_every_chunk_is_answered_and_the_stream_ends_well(parts, queue, recorder):
    queue.release()
    answers, ending = await collect(parts, CONFIG, *chunks(20))
    assert ending is None
    assert sorted(answers) == list(range(20))
    assert all(answer.WhichOneof("outcome") == "result" for answer in answers.values())
    assert recorder.ends == dict.fromkeys(range(20), ("OK", None))
    assert sorted(recorder.began_ids) == sorted(recorder.ended_ids) == list(range(20))


async def test_a_stream_of_a_config_alone_ends_well(parts):
    assert await collect(parts, CONFIG) == ({}, None)


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "config"),
        ([chunk(1)], "config"),
        ([EmbedStreamRequest()], "config"),
        ([CONFIG, CONFIG], "config"),
        ([CONFIG, EmbedStreamRequest()], "chunk"),
        ([CONFIG, chunk(1), chunk(1)], "chunk.chunk_id"),
        ([EmbedStreamRequest(config=EmbedConfig(dimensions=7))], "config.dimensions"),
        ([EmbedStreamRequest(config=EmbedConfig(priority=9))], "config.priority"),
        ([EmbedStreamRequest(config=EmbedConfig(model="rer"))], "config.model"),
    ],
)
async def test_misuse_ends_the_stream_at_once_and_names_the_field(parts, queue, messages, field):
    answers, ending = await collect(parts, *messages, half_closes=not messages)
    assert answers == {}
    assert (ending.code, ending.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert queue.num_waiting == 0


async def test_what_reading_raises_ends_the_stream(parts, queue):
    malformed = CallError(reason=Reason.MALFORMED_REQUEST, message="no message")
    answers, ending = await collect(parts, CONFIG, chunk(1), malformed)
    assert (answers, ending) == ({}, malformed)
    assert queue.num_waiting == 0


async def test_an_id_may_be_used_again_once_it_is_answered(make_parts, queue):
    queue.release()
    stream = answer_stream(Requests(CONFIG, chunk(1), chunk(1), chunk(1)), call(), make_parts(max_chunks=1))
    assert [answer.chunk_id async for answer in stream] == [1, 1, 1]


async def test_no_more_chunks_are_read_than_may_be_in_flight(parts, queue):
    requests = Requests(CONFIG, *chunks(50))
    async with contextlib.aclosing(answer_stream(requests, call(), parts)) as stream:
        first = asyncio.ensure_future(anext(stream))
        await until(lambda: queue.num_waiting == MAX_CHUNKS)
        assert await settled(requests) == 1 + MAX_CHUNKS
        queue.release()
        await first


async def test_answers_that_nobody_takes_stop_the_intake(parts, queue):
    queue.release()
    requests = Requests(CONFIG, *chunks(50))
    async with contextlib.aclosing(answer_stream(requests, call(), parts)) as stream:
        for num_taken in range(1, 10):
            await anext(stream)
            await until(lambda: len(queue.submissions) == MAX_CHUNKS + num_taken - 1)  # noqa: B023 - at once
            assert await settled(requests) == 1 + MAX_CHUNKS + num_taken - 1


async def test_closing_the_stream_withdraws_everything_before_it_returns(parts, queue, recorder):
    stream = answer_stream(Requests(CONFIG, *chunks(50)), call(), parts)
    first = asyncio.ensure_future(anext(stream))
    await until(lambda: queue.num_waiting == MAX_CHUNKS)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert queue.num_waiting == 0
    assert recorder.ends == dict.fromkeys(range(MAX_CHUNKS), ("CANCELLED", None))
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stream_that_is_closed_between_answers_leaves_nothing_behind(parts, queue):
    queue.release()
    async with contextlib.aclosing(answer_stream(Requests(CONFIG, *chunks(50)), call(), parts)) as stream:
        await anext(stream)
    assert queue.num_waiting == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_failed_chunk_says_why_in_full_and_the_stream_goes_on(parts, queue, recorder):
    queue.release()
    answers, ending = await collect(parts, CONFIG, chunk(1, "text", " "), chunk(2))
    assert ending is None
    error = answers[1].error
    assert (error.code, error.message) == (3, "inputs[1]: is empty or white space only")
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert error.details[0].Unpack(info)
    assert error.details[1].Unpack(bad)
    assert (info.reason, info.domain) == ("INVALID_FIELD", "qwen3.inference")
    assert bad.field_violations[0].field == "inputs[1]"
    assert answers[2].HasField("result")
    assert recorder.ends == {1: ("INVALID_ARGUMENT", "INVALID_FIELD"), 2: ("OK", None)}


async def test_a_bug_fails_its_chunk_and_tells_nothing(parts, queue):
    queue.refusals = [ZeroDivisionError("secret")]
    queue.release()
    answers, ending = await collect(parts, CONFIG, chunk(1), chunk(2))
    assert ending is None
    errors = [answer.error for answer in answers.values() if answer.HasField("error")]
    assert [(error.code, error.message) for error in errors] == [(13, "internal error; request id r-1")]


async def test_a_refused_chunk_comes_back_as_often_as_it_is_told_to(parts, queue):
    queue.refusals = [QueueFullError("full", retry_s=0.05), QueueFullError("full", retry_s=0.05)]
    queue.release()
    answers, ending = await collect(parts, CONFIG, chunk(1))
    assert ending is None
    assert answers[1].HasField("result")
    assert [submission.is_retry for submission in queue.submissions] == [False, True, True]


async def test_a_refusal_that_outlasts_the_chunks_deadline_is_its_answer(make_parts, queue):
    queue.refusals = [QueueFullError("full", retry_s=61.0)]
    answers, ending = await collect(make_parts(chunk_timeout_s=60.0), CONFIG, chunk(1))
    assert ending is None
    error = answers[1].error
    retry = error_details_pb2.RetryInfo()
    assert error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert error.details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 61


async def test_a_chunk_that_is_not_done_by_its_deadline_says_so(make_parts, queue):
    answers, ending = await collect(make_parts(chunk_timeout_s=0.05), CONFIG, chunk(1))
    assert ending is None
    assert answers[1].error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert queue.num_waiting == 0


async def test_a_chunk_has_no_more_time_than_its_stream(parts, queue):
    deadline = asyncio.get_running_loop().time() + 30.0
    queue.release()
    await collect(parts, CONFIG, chunk(1), in_call=call(deadline))
    assert queue.submissions[0].deadline == deadline


async def test_every_chunk_has_its_time_from_when_it_was_read(parts, queue):
    queue.release()
    before = asyncio.get_running_loop().time() + 60.0
    await collect(parts, CONFIG, chunk(1))
    assert before <= queue.submissions[0].deadline <= asyncio.get_running_loop().time() + 60.0


async def test_chunks_wait_for_a_worker(make_parts, served, catalog_of, queue):
    parts = make_parts(catalog_of(served("emb", Operation.EMBED, Liveness.ABSENT)))
    queue.release()
    collecting = asyncio.ensure_future(collect(parts, CONFIG, chunk(1)))
    await settle()
    assert queue.submissions == []
    parts.registry.catalog = catalog_of(served("emb", Operation.EMBED))
    queue.refusals = [NoWorkerError("gone again")]
    answers, ending = await collecting
    assert (list(answers), ending) == ([1], None)
    assert answers[1].HasField("result")


async def test_nothing_is_queued_while_the_queue_is_away(make_parts, served, catalog_of, queue):
    model = served("emb", Operation.EMBED)
    parts = make_parts(catalog_of(model, reachable=False), chunk_timeout_s=0.5)
    answers, _ = await collect(parts, CONFIG, chunk(1))
    assert queue.submissions == []
    info = error_details_pb2.ErrorInfo()
    assert answers[1].error.details[0].Unpack(info)
    assert info.reason == "QUEUE_AWAY"


async def test_new_chunks_go_to_the_models_new_revision(make_parts, served, catalog_of, queue):
    parts = make_parts(catalog_of(served("emb", Operation.EMBED)))
    queue.release()
    async with contextlib.aclosing(answer_stream(Requests(CONFIG, *chunks(9)), call(), parts)) as stream:
        assert (await anext(stream)).result.model_revision == "r1"
        parts.registry.catalog = catalog_of(served("emb", Operation.EMBED, revision="r2"))
        revisions = [answer.result.model_revision async for answer in stream]
    assert revisions[-1] == "r2"
    assert queue.submissions[-1].queue == "emb@r2"


@pytest.mark.parametrize(("priority", "lane"), [(0, Lane.BULK), (1, Lane.INTERACTIVE), (2, Lane.BULK)])
async def test_a_stream_is_bulk_work_unless_it_says_otherwise(parts, queue, priority, lane):
    queue.release()
    await collect(parts, EmbedStreamRequest(config=EmbedConfig(priority=priority)), chunk(1))
    assert queue.submissions[0].lane is lane


async def test_a_draining_gateway_answers_what_is_queued_and_sends_the_rest_elsewhere(parts, queue, recorder):
    requests = Requests(CONFIG, *chunks(50))
    collecting = asyncio.ensure_future(collect(parts, *requests._messages))
    await until(lambda: queue.num_waiting == MAX_CHUNKS)
    parts.draining.set()
    await asyncio.sleep(0)
    queue.release()
    answers, ending = await collecting
    assert sorted(answers) == list(range(MAX_CHUNKS))
    assert (ending.code, ending.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert ending.retry_s is not None
    assert set(recorder.ends.values()) == {("OK", None)}


async def test_a_draining_gateway_leaves_chunks_that_wait_for_room_unanswered(parts, queue):
    queue.refusals = [QueueFullError("full", retry_s=30.0)]
    collecting = asyncio.ensure_future(collect(parts, CONFIG, *chunks(3)))
    await until(lambda: queue.num_waiting == 2)
    parts.draining.set()
    queue.release()
    answers, ending = await collecting
    assert sorted(answers) == [1, 2]
    assert ending.reason == "DRAINING"


async def test_a_stream_that_has_all_its_answers_ends_well_also_while_draining(parts, queue):
    requests = Requests(CONFIG, *chunks(2))
    collecting = asyncio.ensure_future(collect(parts, *requests._messages))
    await until(lambda: queue.num_waiting == 2)
    await settle()  # the client's end is read too
    parts.draining.set()
    queue.release()
    answers, ending = await collecting
    assert (sorted(answers), ending) == ([0, 1], None)


async def test_an_idle_stream_of_a_draining_gateway_ends(parts):
    collecting = asyncio.ensure_future(collect(parts, half_closes=False))
    await settle()
    parts.draining.set()
    answers, ending = await collecting
    assert (answers, ending.reason) == ({}, "DRAINING")


async def test_a_stream_ends_at_its_age(make_parts):
    answers, ending = await collect(make_parts(max_age_s=0.05), CONFIG, half_closes=False)
    assert answers == {}
    assert (ending.code, ending.reason, ending.retry_s) == (grpc.StatusCode.UNAVAILABLE, "STREAM_AGED", 0)


async def test_chunks_in_back_off_do_not_hold_up_others(parts, queue):
    queue.refusals = [unavailable(Reason.QUEUE_FULL, "later", retry_s=30.0)] * (MAX_CHUNKS - 1)
    queue.release()
    async with contextlib.aclosing(answer_stream(Requests(CONFIG, *chunks(10)), call(), parts)) as stream:
        assert [(await anext(stream)).chunk_id for _ in range(7)] == list(range(3, 10))
