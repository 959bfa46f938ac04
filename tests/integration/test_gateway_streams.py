"""EmbedStream through a real gateway: what clients see, what reaches the queue, and what is left behind."""

import contextlib
import itertools
import json
import os
import queue
import signal
from types import SimpleNamespace

import grpc
import grpc.aio
import numpy as np
import psutil
import pytest
import redis
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from jobqueue.lanes import Lane
from jobqueue.messages import Result
from qwen3.inference.v1 import common_pb2, embedding_pb2_grpc, tokenizer_pb2
from qwen3.inference.v1.embedding_pb2 import EmbedChunk, EmbedConfig, EmbedStreamRequest
from tests.support.echo import EchoWorker, eventually
from tests.support.processes import gateway
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import TIMEOUT_S, Stubs, refusal, unpack

MAX_CHUNKS = 8
EMB = EmbedConfig(model="emb")
MARKER = "xyzzy-plugh-plover"
SERVING = health_pb2.HealthCheckResponse.SERVING
SMALL_WINDOWS = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536)]


@pytest.fixture(scope="module")
def service(redis_url, shared_worker):
    with gateway(redis_url, "--max-stream-chunks", str(MAX_CHUNKS)) as found:
        yield found


@pytest.fixture
def stubs(service):
    found = Stubs(service[1])
    yield found
    found.channel.close()


class Stream:
    """One EmbedStream, of which messages are sent one by one."""

    def __init__(self, stub, timeout_s: float | None, config: EmbedConfig | None) -> None:
        self._messages = queue.SimpleQueue()
        self.call = stub.EmbedStream(iter(self._messages.get, None), timeout=timeout_s)
        if config is not None:
            self.send(EmbedStreamRequest(config=config))

    def send(self, *messages: EmbedStreamRequest) -> None:
        for message in messages:
            self._messages.put(message)

    def half_close(self) -> None:
        self._messages.put(None)

    def answers(self) -> dict:
        """All that come until the end, by chunk_id; the end may be an error."""
        found = {}
        with contextlib.suppress(grpc.RpcError):
            for answer in self.call:
                assert answer.chunk_id not in found
                found[answer.chunk_id] = answer
        return found

    def ending(self) -> SimpleNamespace:
        """What the stream was ended with."""
        assert self.call.code() is not grpc.StatusCode.OK
        return refusal(self.call)


@contextlib.contextmanager
def streaming(stubs: Stubs, *, timeout_s: float | None = TIMEOUT_S, config: EmbedConfig | None = EMB):
    stream = Stream(stubs.embedding, timeout_s, config)
    try:
        yield stream
    finally:
        stream.half_close()
        stream.call.cancel()


@contextlib.contextmanager
def serving(redis_url: str, *options: str):
    """A gateway of its own: its process and its stubs."""
    with gateway(redis_url, *options) as (process, address):
        stubs = Stubs(address)
        yield process, stubs
        stubs.channel.close()


def chunk(chunk_id: int, *texts: str) -> EmbedStreamRequest:
    return EmbedStreamRequest(chunk=EmbedChunk(chunk_id=chunk_id, inputs=texts or [f"text {chunk_id}"]))


def chunks(number: int) -> list[EmbedStreamRequest]:
    return [chunk(chunk_id) for chunk_id in range(number)]


def converse(stream: Stream) -> None:
    """Send chunks, each once the one before it is answered, as long as the stream lasts."""
    for chunk_id in itertools.count():
        stream.send(chunk(chunk_id))
        assert next(stream.call).chunk_id == chunk_id


def explained(answer) -> SimpleNamespace:
    """The parts of a chunk's error."""
    error = answer.error
    status = status_pb2.Status(code=error.code, message=error.message, details=error.details)
    trailers = {"grpc-status-details-bin": status.SerializeToString()}
    code = next(code for code in grpc.StatusCode if code.value[0] == error.code)
    return refusal(
        SimpleNamespace(code=lambda: code, details=lambda: error.message, trailing_metadata=lambda: trailers)
    )


def rows(number: int) -> Result:
    """Vectors of 4 KiB each."""
    return Result(rows=bytes(number * 4096), num_rows=number, computed_tokens=0, queue_us=0, compute_us=0)


def pass_time(stubs: Stubs) -> None:
    """Have the gateway do other things, with time enough for anything that is about to happen."""
    for _ in range(200):
        stubs.tokenizer.CountTokens(tokenizer_pb2.CountTokensRequest(model="emb", inputs=["text"]), timeout=TIMEOUT_S)


def die(worker: EchoWorker) -> None:
    """As if it was killed: what it has taken is not answered, and nobody is told."""
    worker._stopping.set()
    worker._answering.set()
    for thread in worker._threads:
        thread.join()
    worker._redis.close()


def is_healthy(stubs: Stubs) -> bool:
    stub = health_pb2_grpc.HealthStub(stubs.channel)
    return stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status == SERVING


def is_draining(stubs: Stubs) -> bool:
    try:
        stubs.tokenizer.CountTokens(tokenizer_pb2.CountTokensRequest(model="emb", inputs=["text"]), timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


def log_lines(process) -> list[dict]:
    return [json.loads(line) for line in process.log.splitlines()]


class TestAnswers:
    def test_three_hundred_chunks_get_what_unary_calls_get(self, stubs, worker):
        texts = {chunk_id: [f"{chunk_id} {index}" for index in range(chunk_id % 5 + 1)] for chunk_id in range(300)}
        with streaming(stubs) as stream:
            stream.send(*(chunk(chunk_id, *some) for chunk_id, some in texts.items()))
            stream.half_close()
            answers = stream.answers()
            assert stream.call.code() is grpc.StatusCode.OK
        assert sorted(answers) == sorted(texts)
        flat = [text for some in texts.values() for text in some]
        expected = np.concatenate(
            [stubs.vectors(flat[start : start + 200], model="emb") for start in range(0, len(flat), 200)]
        )
        ends = itertools.accumulate(len(some) for some in texts.values())
        for (chunk_id, some), end in zip(texts.items(), ends, strict=True):
            np.testing.assert_array_equal(unpack(answers[chunk_id].result), expected[end - len(some) : end])

    async def test_the_asyncio_client_gets_the_same(self, service, stubs, worker):
        async def messages():
            yield EmbedStreamRequest(config=EmbedConfig(model="emb", dimensions=32))
            for message in chunks(100):
                yield message

        async with grpc.aio.insecure_channel(service[1]) as channel:
            call = embedding_pb2_grpc.EmbeddingServiceStub(channel).EmbedStream(messages(), timeout=TIMEOUT_S)
            answers = {answer.chunk_id: answer async for answer in call}
        assert sorted(answers) == list(range(100))
        expected = stubs.vectors([f"text {chunk_id}" for chunk_id in range(100)], model="emb", dimensions=32)
        np.testing.assert_array_equal(np.concatenate([unpack(answers[i].result) for i in range(100)]), expected)

    def test_answers_come_when_they_are_done_in_any_order(self, stubs, worker):
        worker.hold()
        with streaming(stubs) as stream:
            stream.send(chunk(1), chunk(2, ""), chunk(3, " "))
            assert {next(stream.call).chunk_id, next(stream.call).chunk_id} == {2, 3}
            worker.release()
            assert next(stream.call).chunk_id == 1

    def test_a_failed_chunk_says_why_in_full_and_the_stream_goes_on(self, stubs, worker):
        with streaming(stubs) as stream:
            stream.send(chunk(-7, "good", "good", "good", "word " * 600), chunk(2))
            stream.half_close()
            answers = stream.answers()
            assert stream.call.code() is grpc.StatusCode.OK
        found = explained(answers[-7])
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert found.field == "inputs[3]"
        assert found.message.startswith("inputs[3]: 602 tokens")
        assert answers[2].HasField("result")

    def test_too_many_inputs_fail_their_chunk_only(self, stubs, worker):
        with streaming(stubs) as stream:
            stream.send(chunk(1, *["text"] * 257), chunk(2))
            stream.half_close()
            answers = stream.answers()
        assert explained(answers[1]).field == "inputs"
        assert answers[2].HasField("result")

    def test_two_streams_at_once_do_not_mix(self, stubs, worker):
        with streaming(stubs) as one, streaming(stubs) as other:
            for chunk_id in range(50):
                one.send(chunk(chunk_id, f"one {chunk_id}"))
                other.send(chunk(chunk_id, f"other {chunk_id}"))
            for name, stream in (("one", one), ("other", other)):
                stream.half_close()
                answers = stream.answers()
                found = np.concatenate([unpack(answers[chunk_id].result) for chunk_id in range(50)])
                np.testing.assert_array_equal(
                    found, stubs.vectors([f"{name} {chunk_id}" for chunk_id in range(50)], model="emb")
                )

    def test_a_half_closed_stream_still_gets_its_answers(self, stubs, worker):
        worker.hold()
        with streaming(stubs) as stream:
            stream.send(*chunks(3))
            stream.half_close()
            eventually(lambda: worker.num_queued() == 3)
            worker.release()
            assert sorted(stream.answers()) == [0, 1, 2]
            assert stream.call.code() is grpc.StatusCode.OK

    @pytest.mark.parametrize(
        ("priority", "lane"),
        [
            (common_pb2.PRIORITY_UNSPECIFIED, Lane.BULK),
            (common_pb2.PRIORITY_BULK, Lane.BULK),
            (common_pb2.PRIORITY_INTERACTIVE, Lane.INTERACTIVE),
        ],
    )
    def test_a_stream_is_bulk_work_unless_it_says_otherwise(self, stubs, worker, priority, lane):
        with streaming(stubs, config=EmbedConfig(model="emb", priority=priority)) as stream:
            stream.send(chunk(1))
            next(stream.call)
        assert [job.lane for job, _ in worker.jobs] == [lane]

    def test_a_new_revision_gets_the_chunks_that_come_after_it(self, stubs, worker, redis_url):
        with streaming(stubs) as stream:
            revisions = set()

            def next_revision():
                stream.send(chunk(1))
                return next(stream.call).result.model_revision

            assert next_revision() == "r1"
            with EchoWorker(redis_url, "emb", revision="r2"):
                eventually(lambda: revisions.add(next_revision()) or "r2" in revisions)
            eventually(lambda: next_revision() == "r1")


class TestMisuse:
    @pytest.mark.parametrize(
        ("messages", "field"),
        [
            ([chunk(1)], "config"),
            ([EmbedStreamRequest()], "config"),
            ([EmbedStreamRequest(config=EMB)] * 2, "config"),
            ([EmbedStreamRequest(config=EMB), EmbedStreamRequest()], "chunk"),
            ([EmbedStreamRequest(config=EmbedConfig(model="emb", dimensions=9999))], "config.dimensions"),
            ([EmbedStreamRequest(config=EmbedConfig(model="emb", encoding=99))], "config.encoding"),
        ],
    )
    def test_it_ends_the_stream_and_names_the_field(self, stubs, worker, messages, field):
        with streaming(stubs, config=None) as stream:
            stream.send(*messages)
            assert stream.answers() == {}
            found = stream.ending()
            assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
            assert found.field == field

    def test_an_unknown_model_ends_the_stream(self, stubs, worker):
        with streaming(stubs, config=EmbedConfig(model="nobody")) as stream:
            assert stream.answers() == {}
            found = stream.ending()
            assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
            assert "emb" in found.metadata["served"]

    def test_an_id_that_is_in_flight_ends_the_stream_and_withdraws_its_chunks(self, stubs, worker):
        worker.hold()
        with streaming(stubs) as stream:
            stream.send(chunk(1), chunk(2), chunk(1))
            assert stream.answers() == {}
            assert stream.ending().field == "chunk.chunk_id"
            eventually(lambda: worker.num_queued() == 0)

    def test_bytes_that_do_not_parse_end_the_stream(self, stubs, worker):
        method = stubs.channel.stream_stream("/qwen3.inference.v1.EmbeddingService/EmbedStream")
        call = method(iter([EmbedStreamRequest(config=EMB).SerializeToString(), b"\xff\xff"]))
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert refusal(caught.value).reason == "MALFORMED_REQUEST"


class TestFlow:
    def test_a_slow_worker_bounds_the_chunks_in_flight(self, stubs, worker):
        worker.hold()
        with streaming(stubs) as stream:
            stream.send(*chunks(100))
            eventually(lambda: worker.num_queued() == MAX_CHUNKS)
            pass_time(stubs)
            assert worker.num_queued() == MAX_CHUNKS
            worker.release()
            stream.half_close()
            assert len(stream.answers()) == 100

    def test_a_slow_reader_stops_the_intake(self, service, stubs, worker):
        texts = ["text"] * 64
        worker.answer = rows(64)  # more than goes out before anybody reads
        with grpc.insecure_channel(service[1], options=SMALL_WINDOWS) as channel:
            stream = Stream(embedding_pb2_grpc.EmbeddingServiceStub(channel), TIMEOUT_S, EMB)
            stream.send(*(chunk(chunk_id, *texts) for chunk_id in range(100)))
            eventually(lambda: len(worker.jobs) >= MAX_CHUNKS)
            pass_time(stubs)
            assert len(worker.jobs) <= MAX_CHUNKS + 1
            stream.half_close()
            assert len(stream.answers()) == 100
            assert len(worker.jobs) == 100

    def test_memory_stays_flat(self, service, stubs, worker):
        process, texts = psutil.Process(service[0].pid), ["text"] * 16
        worker.answer = rows(16)
        with streaming(stubs) as stream:
            sizes = []
            for start in range(0, 2000, 500):
                stream.send(*(chunk(chunk_id, *texts) for chunk_id in range(start, start + 500)))
                for _ in range(500):
                    next(stream.call)
                sizes.append(process.memory_info().rss)
                worker.jobs.clear()
        assert sizes[-1] - sizes[0] < 40 * 2**20  # of 130 MB that went through

    def test_a_full_queue_is_waited_for(self, redis_url):
        with (
            EchoWorker(redis_url, "full") as worker,
            serving(redis_url, "--max-queue-tokens", "40", "--max-job-tokens", "32") as (_, stubs),
        ):
            worker.hold()
            with streaming(stubs, config=EmbedConfig(model="full")) as stream:
                stream.send(*(chunk(chunk_id, "word " * 19) for chunk_id in range(5)))
                eventually(lambda: worker.num_queued() == 1)
                pass_time(stubs)
                assert worker.num_queued() == 1
                worker.release()
                stream.half_close()
                answers = stream.answers()
            assert sorted(answers) == list(range(5))
            assert all(answer.HasField("result") for answer in answers.values())

    def test_chunks_wait_for_a_worker_that_comes_back(self, redis_url, worker):
        late = EmbedConfig(model="late")
        with EchoWorker(redis_url, "late") as first, serving(redis_url) as (_, stubs):
            with streaming(stubs, config=late) as stream:
                stream.send(chunk(1))
                assert next(stream.call).HasField("result")
            first.stop()
            with streaming(stubs, config=late) as stream:
                stream.send(chunk(1))
                pass_time(stubs)
                with EchoWorker(redis_url, "late"):
                    assert next(stream.call).HasField("result")

    def test_chunks_outlive_a_redis_that_is_away(self):
        with redis_server(embedded_binary()) as url, EchoWorker(url, "emb"), serving(url) as (_, stubs):
            pid = redis.Redis.from_url(url).info()["process_id"]
            with streaming(stubs) as stream:
                stream.send(chunk(1))
                next(stream.call)
                os.kill(pid, signal.SIGSTOP)
                try:
                    eventually(lambda: not is_healthy(stubs))
                    stream.send(*(chunk(chunk_id) for chunk_id in range(2, 5)))
                    pass_time(stubs)
                finally:
                    os.kill(pid, signal.SIGCONT)
                stream.half_close()
                answers = stream.answers()
                assert sorted(answers) == [2, 3, 4]
                assert all(answer.HasField("result") for answer in answers.values())

    def test_a_worker_that_dies_is_not_noticed(self, redis_url):
        with (
            EchoWorker(redis_url, "mortal") as dying,
            serving(redis_url) as (_, stubs),
            streaming(stubs, config=EmbedConfig(model="mortal")) as stream,
        ):
            dying.hold()
            stream.send(*chunks(5))
            stream.half_close()
            eventually(lambda: dying.jobs and dying.num_queued() == 5)
            die(dying)
            with EchoWorker(redis_url, "mortal"):
                answers = stream.answers()
        assert sorted(answers) == list(range(5))
        assert all(answer.HasField("result") for answer in answers.values())


class TestEnd:
    def test_a_cancelled_stream_leaves_nothing_in_the_queue(self, stubs, worker):
        worker.hold()
        with streaming(stubs) as stream:
            stream.send(*chunks(20))
            eventually(lambda: worker.num_queued() == MAX_CHUNKS)
            stream.call.cancel()
            eventually(lambda: worker.num_queued() == 0)

    def test_a_client_that_is_gone_leaves_nothing_in_the_queue(self, service, stubs, worker):
        worker.hold()
        other = Stubs(service[1])
        with streaming(other) as stream:
            stream.send(*chunks(20))
            eventually(lambda: worker.num_queued() == MAX_CHUNKS)
            other.channel.close()
            eventually(lambda: worker.num_queued() == 0)

    def test_a_reader_who_cancels_without_having_read_leaves_nothing_behind(self, service, stubs, worker):
        worker.answer = rows(64)
        with grpc.insecure_channel(service[1], options=SMALL_WINDOWS) as channel:
            stream = Stream(embedding_pb2_grpc.EmbeddingServiceStub(channel), TIMEOUT_S, EMB)
            stream.send(*(chunk(chunk_id, *["text"] * 64) for chunk_id in range(100)))
            eventually(lambda: len(worker.jobs) >= MAX_CHUNKS)
            before = len(log_lines(service[0]))
            stream.call.cancel()
            stream.half_close()
        eventually(lambda: self._stream_end(service[0], since=before))
        assert self._stream_end(service[0], since=before)["code"] == "CANCELLED"

    @staticmethod
    def _stream_end(process, since: int) -> dict | None:
        ends = [
            line for line in log_lines(process)[since:] if "Stream" in line.get("method", "") and "chunk_id" not in line
        ]
        return ends[0] if ends else None

    def test_the_clients_deadline_ends_the_stream(self, stubs, worker):
        worker.hold()
        with streaming(stubs, timeout_s=1.0) as stream:
            stream.send(*chunks(3))
            stream.answers()
            assert stream.call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            eventually(lambda: worker.num_queued() == 0)

    def test_a_chunk_has_a_deadline_of_its_own(self, redis_url, worker):
        worker.hold()
        with (
            serving(redis_url, "--stream-chunk-timeout-s", "2") as (_, stubs),
            streaming(stubs) as stream,
        ):
            stream.send(chunk(1))
            assert explained(next(stream.call)).code is grpc.StatusCode.DEADLINE_EXCEEDED
            eventually(lambda: worker.num_queued() == 0)
            worker.release()
            stream.send(chunk(2))
            assert next(stream.call).HasField("result")

    def test_what_a_stopping_gateway_leaves_unanswered_another_one_answers(self, redis_url, stubs, worker):
        options = ["--max-stream-chunks", "4", "--drain-grace-s", "300"]
        worker.hold()
        with serving(redis_url, *options) as (process, old), streaming(old) as stream:
            stream.send(*chunks(10))
            eventually(lambda: worker.num_queued() == 4)
            process.signal(signal.SIGTERM)
            eventually(lambda: is_draining(old))
            worker.release()
            answered = stream.answers()
            found = stream.ending()
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
            assert found.retry_s is not None
            assert process.wait() == 0
        assert sorted(answered) == [0, 1, 2, 3]
        with streaming(stubs) as stream:
            stream.send(*(message for message in chunks(10) if message.chunk.chunk_id not in answered))
            stream.half_close()
            rest = stream.answers()
        assert sorted(rest) == [4, 5, 6, 7, 8, 9]
        found = np.concatenate([unpack((answered | rest)[chunk_id].result) for chunk_id in range(10)])
        np.testing.assert_array_equal(found, stubs.vectors([f"text {i}" for i in range(10)], model="emb"))

    def test_streams_that_outlast_the_grace_are_sent_elsewhere_too(self, redis_url, worker):
        worker.hold()
        with (
            serving(redis_url, "--drain-grace-s", "0.5") as (process, stubs),
            streaming(stubs) as stream,
        ):
            stream.send(*chunks(3))
            eventually(lambda: worker.num_queued() == 3)
            assert process.stop() == 0
            assert stream.answers() == {}
            assert stream.call.code() is grpc.StatusCode.UNAVAILABLE
            eventually(lambda: worker.num_queued() == 0)

    def test_a_reader_who_does_not_read_holds_up_no_stop(self, redis_url, worker):
        worker.answer = rows(64)
        with (
            gateway(redis_url, "--drain-grace-s", "0.5") as (process, address),
            grpc.insecure_channel(address, options=SMALL_WINDOWS) as channel,
        ):
            stream = Stream(embedding_pb2_grpc.EmbeddingServiceStub(channel), None, EMB)
            stream.send(*(chunk(chunk_id, *["text"] * 64) for chunk_id in range(100)))
            eventually(lambda: len(worker.jobs) >= MAX_CHUNKS)
            assert process.stop() == 0
            stream.half_close()

    def test_a_stream_as_old_as_a_connection_may_be_ends_between_chunks(self, redis_url, worker):
        with (
            serving(redis_url, "--max-connection-age-s", "1") as (_, stubs),
            streaming(stubs) as stream,
        ):
            with pytest.raises(grpc.RpcError):
                converse(stream)
            found = stream.ending()
            assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "STREAM_AGED")
            assert found.trailers["grpc-retry-pushback-ms"] == "0"


def test_every_chunk_and_the_stream_are_log_lines_without_texts(redis_url, worker):
    with serving(redis_url, "--log-level", "debug") as (process, stubs):
        with streaming(stubs, config=EmbedConfig(model="emb", instruction=MARKER)) as stream:
            stream.send(chunk(1, MARKER), chunk(2, MARKER, ""))
            stream.half_close()
            stream.answers()
            trailers = dict(stream.call.trailing_metadata())
        assert process.stop() == 0
        assert MARKER not in process.log
        lines = [line for line in log_lines(process) if line["event"] == "call"]
    by_chunk = {line.get("chunk_id"): line for line in lines}
    assert [line["code"] for line in lines if "chunk_id" not in line] == ["OK"]
    assert (by_chunk[1]["code"], by_chunk[1]["model"]) == ("OK", "emb")
    assert (by_chunk[2]["code"], by_chunk[2]["reason"]) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert {line["request_id"] for line in lines} == {trailers["x-request-id"]}
    assert {line["method"] for line in lines} == {"/qwen3.inference.v1.EmbeddingService/EmbedStream"}
