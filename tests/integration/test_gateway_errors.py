"""What fails, and how it is told: bytes that do not parse, deadlines, cancellations, full queues, failed jobs."""

import json

import grpc
import pytest
import redis

from jobqueue.messages import Failure, FailureReason, Result
from qwen3.inference.v1 import common_pb2, embedding_pb2
from tests.support.echo import eventually
from tests.support.processes import gateway
from tests.support.wire import TIMEOUT_S, Stubs, refusal

PACKAGE = "qwen3.inference.v1"
UNARY = {
    f"/{PACKAGE}.EmbeddingService/Embed": b"\x12",  # the tag of a string field
    f"/{PACKAGE}.RerankService/Rerank": b"\x12",
    f"/{PACKAGE}.TokenizerService/CountTokens": b"\x12",
    f"/{PACKAGE}.TokenizerService/Tokenize": b"\x12",
    f"/{PACKAGE}.ModelService/ListModels": b"\x12",
    f"/{PACKAGE}.ModelService/GetModel": b"\x0a",
    "/grpc.health.v1.Health/Check": b"\x0a",
}
GARBAGE = [b"\xff\xff\xff\xff", b"\x12\x7f", b"\x00", b"not a message"]


@pytest.fixture(scope="module")
def service(redis_url, shared_worker):
    """A gateway whose queue takes two jobs, or one of the bulk lane, of 100 tokens together."""
    options = ["--max-queue-jobs", "2", "--max-queue-tokens", "100", "--bulk-share", "0.5"]
    with gateway(redis_url, *options, "--default-timeout-s", "0.5") as (process, address):
        yield process, address


@pytest.fixture(scope="module")
def stubs(service):
    found = Stubs(service[1])
    yield found
    found.channel.close()


def request(*texts: str, **config) -> embedding_pb2.EmbedRequest:
    return embedding_pb2.EmbedRequest(config=embedding_pb2.EmbedConfig(**config), inputs=texts or ["text"])


def refused(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return refusal(caught.value)


@pytest.mark.parametrize("method", UNARY)
@pytest.mark.parametrize("garbage", [None, *GARBAGE])
def test_bytes_that_do_not_parse_are_the_callers_mistake(stubs, method, garbage):
    invalid_utf8 = UNARY[method] + b"\x02\xff\xfe"
    found = refused(stubs.channel.unary_unary(method), invalid_utf8 if garbage is None else garbage, timeout=TIMEOUT_S)
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert found.trailers["x-request-id"]


def test_a_watch_whose_bytes_do_not_parse_is_refused(stubs):
    watch = stubs.channel.unary_stream("/grpc.health.v1.Health/Watch")
    found = refused(lambda: list(watch(b"\x0a\x02\xff\xfe", timeout=TIMEOUT_S)))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


@pytest.mark.parametrize("method", [f"/{PACKAGE}.EmbeddingService/Nope", "/nobody.Service/Call", "/x"])
def test_an_unknown_method_is_unimplemented(stubs, method):
    with pytest.raises(grpc.RpcError) as caught:
        stubs.channel.unary_unary(method)(b"", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_requests_larger_than_the_librarys_default_arrive(stubs):
    message = embedding_pb2.EmbedRequest(inputs=["x" * 20_000_000], request_id="\n")
    assert refused(stubs.embedding.Embed, message, timeout=TIMEOUT_S).field == "request_id"


def test_requests_over_the_limit_are_refused(stubs):
    message = embedding_pb2.EmbedRequest(inputs=["x" * 33 * 1024 * 1024])
    with pytest.raises(grpc.RpcError) as caught:
        stubs.embedding.Embed(message, timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_clients_deadline_ends_the_call_and_its_job(stubs, worker):
    worker.hold()
    while not worker.jobs:  # a busy machine may not get as far as the queue
        calls = [stubs.embedding.Embed.future(request(), timeout=1) for _ in range(2)]
        assert [call.code() for call in calls] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
        eventually(lambda: worker.num_queued() == 0)


def test_a_call_without_a_deadline_gets_the_servers(stubs, worker):
    worker.hold()
    found = refused(stubs.embedding.Embed, request())
    assert (found.code, found.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    eventually(lambda: worker.num_queued() == 0)


def test_the_clients_deadline_may_be_later_than_the_servers_default(stubs, worker):
    worker.hold()
    patient = stubs.embedding.Embed.future(request(), timeout=TIMEOUT_S)
    assert refused(stubs.embedding.Embed, request()).code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not patient.done()
    worker.release()
    assert len(patient.result().embeddings) == 1


def test_a_cancelled_call_takes_its_waiting_job_along(service, stubs, worker):
    worker.hold()
    calls = [stubs.embedding.Embed.future(request(), timeout=TIMEOUT_S) for _ in range(2)]
    eventually(lambda: worker.num_queued() == 2)
    for call in calls:
        call.cancel()
    eventually(lambda: worker.num_queued() == 0)
    eventually(lambda: '"CANCELLED"' in service[0].log)


def test_a_full_queue_refuses_and_says_when_to_come_back(stubs, worker):
    worker.hold()
    calls = [stubs.embedding.Embed.future(request(), timeout=TIMEOUT_S) for _ in range(2)]
    eventually(lambda: worker.num_queued() == 2)
    found = refused(stubs.embedding.Embed, request(), timeout=TIMEOUT_S)
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "QUEUE_FULL")
    assert found.retry_s == 1.0
    assert found.trailers["grpc-retry-pushback-ms"] == "1000"
    worker.release()
    assert all(len(call.result().embeddings) == 1 for call in calls)
    assert stubs.embed(["text"]).embeddings


def test_bulk_work_leaves_room_for_interactive_work(stubs, worker):
    worker.hold()
    bulk = request(priority=common_pb2.PRIORITY_BULK)
    first = stubs.embedding.Embed.future(bulk, timeout=TIMEOUT_S)
    eventually(lambda: worker.num_queued() == 1)
    assert refused(stubs.embedding.Embed, bulk, timeout=TIMEOUT_S).reason == "QUEUE_FULL"
    second = stubs.embedding.Embed.future(request(), timeout=TIMEOUT_S)
    eventually(lambda: worker.num_queued() == 2)
    worker.release()
    assert first.result()
    assert second.result()


def test_a_call_larger_than_the_queue_is_the_callers_mistake(stubs, worker):
    found = refused(stubs.embedding.Embed, request("one " * 60, "two " * 60), timeout=TIMEOUT_S)
    assert (found.code, found.field) == (grpc.StatusCode.INVALID_ARGUMENT, "inputs")
    assert "100" in found.message


@pytest.mark.parametrize(
    ("reason", "sequence", "message"),
    [
        (FailureReason.NON_FINITE_RESULT, 1, "inputs[1]: why"),
        (FailureReason.NON_FINITE_RESULT, -1, "why"),
        (FailureReason.OUT_OF_MEMORY, 0, "inputs[0]: why"),
        (FailureReason.POISON_INPUT, -1, "why"),
        (FailureReason.INVALID_JOB, -1, "why"),
    ],
)
def test_a_failed_job_is_an_internal_error_with_its_reason(stubs, worker, reason, sequence, message):
    worker.answer = Failure(reason=reason, message="why", sequence=sequence)
    found = refused(stubs.embedding.Embed, request("a", "b"), timeout=TIMEOUT_S)
    assert (found.code, found.reason, found.message) == (grpc.StatusCode.INTERNAL, reason.name, message)
    assert found.retry_s is None


def test_a_bug_tells_nothing_but_the_id_under_which_it_is_logged(service, stubs, worker):
    worker.answer = Result(rows=bytes(4), num_rows=1, computed_tokens=1, queue_us=1, compute_us=1)
    message = request("a secret text", "another")
    message.request_id = "bug-1"
    found = refused(stubs.embedding.Embed, message, timeout=TIMEOUT_S)
    assert (found.code, found.reason) == (grpc.StatusCode.INTERNAL, "BUG")
    assert found.message == "internal error; request id bug-1"
    lines = [json.loads(line) for line in service[0].log.splitlines()]
    [logged] = [line for line in lines if line.get("event") == "bug"]
    assert logged["request_id"] == "bug-1"
    assert "Traceback" in logged["exception"]
    assert "secret" not in service[0].log


def test_after_all_that_the_gateway_answers(stubs, worker):
    assert stubs.embed(["text"]).embeddings


def test_who_was_refused_and_comes_back_finds_room_kept(worker, stubs, redis_url):
    worker.hold()
    with redis.Redis.from_url(redis_url) as client:
        seconds, _ = client.time()
        told_ms = (seconds + 60) * 1000  # some have been told to come back by then
        client.hset(worker.keys.control, "hi_retry_ms", told_ms)
        ahead = stubs.embedding.Embed.future(request("word " * 85), timeout=TIMEOUT_S)
        eventually(lambda: worker.num_queued() == 1)
        assert refused(stubs.embedding.Embed, request("new"), timeout=TIMEOUT_S).reason == "QUEUE_FULL"
        back = stubs.embedding.Embed.future(
            request("again"), timeout=TIMEOUT_S, metadata=[("x-previous-rpc-attempts", "1")]
        )
        eventually(lambda: worker.num_queued() == 2)
        worker.release()
        assert len(ahead.result().embeddings) == len(back.result().embeddings) == 1
        client.hdel(worker.keys.control, "hi_retry_ms")
