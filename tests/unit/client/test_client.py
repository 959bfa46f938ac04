import pickle
import socket
import time

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from qwen3_client import (
    Client,
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


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


def test_vectors_come_back_in_the_order_of_the_texts_over_several_calls(server, client):
    texts = [chr(ord("A") + index % 26) * (1 + index % 7) for index in range(150)]
    result = client.embed(texts)
    assert result.vectors.tolist() == [[ord(text[0]), 1, 2, 3] for text in texts]
    assert result.vectors.dtype == np.float32
    assert result.token_counts == tuple(len(text) for text in texts)
    assert result.truncated == tuple(len(text) > 5 for text in texts)
    assert (result.model, result.model_revision, result.dimensions) == ("m", "r1", 4)
    assert [len(request.inputs) for request in server.requests] == [64, 64, 22]


def test_the_part_that_fails_fails_the_whole(server, client):
    server.failures.append(lambda _context: None)
    server.fail_next(grpc.StatusCode.INVALID_ARGUMENT, "too long")
    with pytest.raises(InvalidRequestError, match="too long"):
        client.embed(["a"] * 100)


def test_a_revision_that_changes_between_two_parts_is_an_error(server, client):
    server.revisions += ["r1", "r2"]
    with pytest.raises(RevisionChangedError):
        client.embed(["a"] * 100)


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


def test_errors_survive_pickling():
    error = InvalidRequestError("no", code="INVALID_ARGUMENT", field_violations=(("inputs", "none"),))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_what_was_not_begun_is_asked_again_when_the_server_says(server, client):
    for _ in range(2):
        server.fail_next(grpc.StatusCode.UNAVAILABLE, "full", trailers=[("grpc-retry-pushback-ms", "1")])
    assert len(client.embed(["a"]).vectors) == 1
    assert len(server.requests) == 3


def test_large_calls_are_asked_again_too(server, client):
    server.fail_next(grpc.StatusCode.UNAVAILABLE, "full", trailers=[("grpc-retry-pushback-ms", "1")])
    assert len(client.embed(["a" * 100_000] * 64).vectors) == 64
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


def test_a_server_that_is_not_there_is_unavailable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Client(f"127.0.0.1:{unused.getsockname()[1]}") as client, pytest.raises(UnavailableError):
            client.models()


def test_the_timeout_holds_for_all_parts_together(server):
    server.failures += [lambda _context: time.sleep(0.2)] * 10
    with Client(server.address, timeout_s=0.5) as client, pytest.raises(DeadlineExceededError):
        client.embed(["a"] * 640)
    assert len(server.requests) < 10


def test_a_proxy_in_the_environment_is_not_used_for_this_machine(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Client(server.address) as client:
        assert client.health() is HealthStatus.SERVING
