import asyncio
import itertools
import socket
import threading

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from qwen3.inference.v1.embedding_pb2 import ChunkError
from qwen3_client import (
    AsyncClient,
    CallCancelledError,
    DeadlineExceededError,
    HealthStatus,
    InvalidRequestError,
    ModelNotFoundError,
    NotAllowedError,
    Qwen3Error,
    ResourceExhaustedError,
    RevisionChangedError,
    ServerFaultError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.support.clients import CLIENTS


@pytest.fixture(params=CLIENTS)
def connect(request):
    return CLIENTS[request.param]


@pytest.fixture
def client(server, connect):
    with connect(server.address) as client:
        yield client


def test_vectors_come_back_in_the_order_of_the_texts(server, client):
    texts = [chr(ord("A") + index % 26) * (1 + index % 7) for index in range(150)]
    result = client.embed(texts)
    assert result.vectors.tolist() == [[ord(text[0]), 1, 2, 3] for text in texts]
    assert result.vectors.dtype == np.float32
    assert result.token_counts == tuple(len(text) for text in texts)
    assert result.truncated == tuple(len(text) > 5 for text in texts)
    assert (result.model, result.model_revision, result.dimensions) == ("m", "r1", 4)
    assert [len(request.inputs) for request in server.requests] == [150]


def test_what_does_not_fit_one_call_goes_over_a_stream_in_chunks(server, client):
    texts = [chr(ord("A") + index % 26) * (1 + index % 7) for index in range(300)]
    result = client.embed(texts)
    assert result.vectors.tolist() == [[ord(text[0]), 1, 2, 3] for text in texts]
    assert result.token_counts == tuple(len(text) for text in texts)
    assert [len(request.inputs) for request in server.requests] == [64, 64, 64, 64, 44]
    assert server.streams == [[0, 1, 2, 3, 4]]


def test_the_part_that_fails_fails_the_whole(server, client):
    def fail_second(chunk):
        return ChunkError(code=3, message="inputs[7]: too long") if chunk.chunk_id == 1 else None

    server.chunk_error = fail_second
    with pytest.raises(InvalidRequestError, match=r"inputs\[71\]: too long"):
        client.embed(["a"] * 300)


def test_a_refusal_is_not_lost_while_messages_are_sent(server, client):
    """As grpc.aio by itself does (grpc/grpc#36066); where it knows nothing else, the client asks again."""
    for _ in range(200):
        server.fail_next(grpc.StatusCode.NOT_FOUND, "no such model")
    for _ in range(20):
        with pytest.raises(ModelNotFoundError, match="no such model"):
            client.embed(["a" * 20_000] * 300)


def test_a_revision_that_changes_between_two_parts_is_an_error(server, client):
    server.revisions += ["r1", "r2"]
    with pytest.raises(RevisionChangedError):
        client.embed(["a"] * 300)


def test_documents_come_back_best_first_with_their_text_where_asked(client):
    hits = client.rerank("q", ["long text", "a", "four"], top_n=2, return_documents=True)
    assert [(hit.index, hit.document, hit.token_count) for hit in hits] == [(1, "a", 1), (2, "four", 4)]
    assert hits[0].score == pytest.approx(0.5)
    assert client.rerank("q", ["a"])[0].document is None


def test_tokens_are_counted_for_each_text(client):
    counts = client.count_tokens(["a", "four"])
    assert (counts.token_counts, counts.total_tokens, counts.max_input_tokens) == ((1, 4), 5, 32768)


def test_models_of_every_page_are_listed(client):
    embed, rerank = client.models()
    assert (embed.id, embed.task, embed.state, embed.native_dimensions) == ("embed", "embedding", "ready", 1024)
    assert embed.encodings == ("float32", "float_list", "unknown")
    assert (rerank.id, rerank.task, rerank.state, rerank.encodings) == ("rerank", "rerank", "loading", ())


def test_health_is_told_for_the_service_and_for_each_model(client):
    assert client.health() is HealthStatus.SERVING
    assert client.health("embed") is HealthStatus.SERVING
    assert client.health("rerank") is HealthStatus.NOT_SERVING
    assert client.health("nobody") is HealthStatus.SERVICE_UNKNOWN


def test_everything_that_the_server_says_of_an_error_is_kept(server, client):
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    violation = BadRequest.FieldViolation(field="inputs[3]", description="is empty")
    server.fail_next(
        grpc.StatusCode.INVALID_ARGUMENT,
        "a text is missing",
        ErrorInfo(reason="EMPTY_INPUT", domain="qwen3.inference"),
        BadRequest(field_violations=[violation]),
        retry,
        trailers=[("x-request-id", "abc")],
    )
    with pytest.raises(InvalidRequestError) as caught:
        client.embed([""])
    error = caught.value
    assert (error.code, error.reason, error.request_id) == ("INVALID_ARGUMENT", "EMPTY_INPUT", "abc")
    assert error.field_violations == (("inputs[3]", "is empty"),)
    assert error.retry_after_s == 1.5
    assert str(error) == ("INVALID_ARGUMENT (EMPTY_INPUT): a text is missing; inputs[3]: is empty [request abc]")
    assert isinstance(error.__cause__, grpc.RpcError)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (grpc.StatusCode.NOT_FOUND, ModelNotFoundError),
        (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, NotAllowedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhaustedError),
        (grpc.StatusCode.INTERNAL, ServerFaultError),
        (grpc.StatusCode.UNIMPLEMENTED, Qwen3Error),
    ],
)
def test_each_status_has_its_error(server, client, code, kind):
    server.fail_next(code, "no")
    with pytest.raises(Qwen3Error, match="no") as caught:
        client.embed(["a"])
    assert type(caught.value) is kind
    assert caught.value.code == code.name


def test_details_that_do_not_parse_leave_the_status_standing(server, client):
    def garble(context):
        context.set_trailing_metadata([("grpc-status-details-bin", b"\xff\xff")])
        context.abort(grpc.StatusCode.NOT_FOUND, "no such model")

    server.failures.append(garble)
    with pytest.raises(ModelNotFoundError, match="no such model"):
        client.embed(["a"])


def test_what_was_not_begun_is_asked_again_when_the_server_says(server, client):
    for _ in range(2):
        server.fail_next(grpc.StatusCode.UNAVAILABLE, "full", trailers=[("grpc-retry-pushback-ms", "1")])
    assert len(client.embed(["a"]).vectors) == 1
    assert len(server.requests) == 3


def test_large_calls_are_asked_again_too(server, client):
    server.fail_next(grpc.StatusCode.UNAVAILABLE, "full", trailers=[("grpc-retry-pushback-ms", "1")])
    assert len(client.rerank("q", ["a" * 10_000] * 64)) == 64
    assert len(server.requests) == 2


def test_a_pushback_that_forbids_retries_is_obeyed(server, client):
    server.fail_next(grpc.StatusCode.UNAVAILABLE, "going away", trailers=[("grpc-retry-pushback-ms", "-1")])
    with pytest.raises(UnavailableError, match="going away"):
        client.embed(["a"])
    assert len(server.requests) == 1


def test_other_failures_are_not_asked_again(server, client):
    server.fail_next(grpc.StatusCode.INTERNAL, "broken")
    with pytest.raises(ServerFaultError):
        client.embed(["a"])
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_unavailable(connect):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with connect(f"127.0.0.1:{unused.getsockname()[1]}") as client, pytest.raises(UnavailableError):
            client.models()


@pytest.mark.parametrize("num_texts", [1, 300])
def test_a_call_that_is_not_answered_ends_with_its_timeout(server, connect, num_texts):
    answering = threading.Event()
    server.failures.append(lambda _context: answering.wait(30))
    with connect(server.address, timeout_s=60) as client, pytest.raises(DeadlineExceededError):
        client.embed(["a"] * num_texts, timeout_s=0.3)
    answering.set()


def closes(results):
    next(results)
    results.close()


def breaks(results):
    for _ in results:
        break


def fails(results):
    with pytest.raises(RuntimeError):  # noqa: PT012 - the loop is what is tested
        for _ in results:
            raise RuntimeError


@pytest.mark.parametrize("leave", [closes, breaks, fails])
def test_a_stream_that_is_left_ends_though_its_texts_do_not(server, client, leave):
    leave(client.embed_stream(itertools.repeat("a")))
    server.ended.get(timeout=60)


async def test_an_async_stream_that_is_left_ends_too(server):
    async with AsyncClient(server.address) as client:
        async for _ in client.embed_stream(itertools.repeat("a")):
            break
        await asyncio.to_thread(server.ended.get, timeout=60)


def test_every_method_may_have_a_timeout_of_its_own(client):
    calls = {
        client.embed: [["a"]],
        client.rerank: ["q", ["a"]],
        client.count_tokens: [["a"]],
        client.tokenize: [["a"]],
        client.models: [],
        client.health: [],
    }
    for call, arguments in calls.items():
        with pytest.raises(DeadlineExceededError):
            call(*arguments, timeout_s=-1)


def test_a_closed_client_says_so(server, connect):
    with connect(server.address) as client:
        client.health()
        client.close()
        for call in (client.models, lambda: client.embed(["a"]), lambda: client.embed(["a"] * 300)):
            with pytest.raises(CallCancelledError, match="closed"):
                call()


def test_a_proxy_in_the_environment_is_not_used_for_this_machine(server, monkeypatch, connect):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with connect(server.address) as client:
        assert client.health() is HealthStatus.SERVING
