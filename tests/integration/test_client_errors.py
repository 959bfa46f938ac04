"""Both clients against real gateways: every error of the contract as its own exception, with its details."""

import asyncio
import threading

import pytest
import redis

from gateway.identity.api_keys import ApiKey
from jobqueue.messages import Failure, FailureReason, Result
from jobqueue.operator import Operator
from qwen3.inference.v1 import embedding_pb2
from qwen3_client import (
    AsyncClient,
    CallCancelledError,
    DeadlineExceededError,
    HealthStatus,
    InvalidRequestError,
    ModelNotFoundError,
    NonFiniteResultError,
    NotAllowedError,
    PoisonInputError,
    Qwen3Error,
    ResourceExhaustedError,
    ServerFaultError,
    UnauthenticatedError,
    UnavailableError,
    channel,
)
from tests.support.clients import CLIENTS
from tests.support.echo import MAX_INPUT_TOKENS, EchoWorker, eventually
from tests.support.processes import gateway
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import TIMEOUT_S, Stubs

TEXTS = [f"text number {number}" for number in range(300)]
MAX_CALLS = 3
KEYS = {name: ApiKey.new() for name in ("reader", "hurried", "other")}
ACCESS = f"""
[tenants.reader]
models = ["emb"]
rpcs = ["ListModels"]
keys.{KEYS["reader"].id} = {{ sha256 = "{KEYS["reader"].sha256}" }}
[tenants.hurried]
models = ["emb"]
priorities = ["interactive"]
quota = {{ requests_per_s = 0.001 }}
keys.{KEYS["hurried"].id} = {{ sha256 = "{KEYS["hurried"].sha256}" }}
[tenants.other]
models = ["theirs"]
keys.{KEYS["other"].id} = {{ sha256 = "{KEYS["other"].sha256}" }}
"""


@pytest.fixture(scope="module")
def address(redis_url, shared_worker):
    """Takes few calls at once, and little work."""
    limits = ["--max-calls-in-flight", str(MAX_CALLS), "--max-queue-tokens", "4000"]
    with gateway(redis_url, "--await-models", "emb", "--default-embedding-model", "emb", *limits) as (_, address):
        yield address


@pytest.fixture(scope="module")
def guarded(redis_url, shared_worker, tmp_path_factory):
    file = tmp_path_factory.mktemp("access") / "access.toml"
    file.write_text(ACCESS)
    with gateway(redis_url, "--access", str(file), "--await-models", "emb") as (_, address):
        yield address


@pytest.fixture(scope="module")
def orphan():
    """Has lost its Redis."""
    with (
        redis_server(embedded_binary()) as url,
        EchoWorker(url, "emb"),
        gateway(url, "--await-models", "emb") as (_, address),
    ):
        with redis.Redis.from_url(url) as connection:
            connection.shutdown(nosave=True)
        yield address


@pytest.fixture(params=CLIENTS)
def connect(request):
    return CLIENTS[request.param]


@pytest.fixture
def client(address, connect, worker):
    with connect(address) as client:
        yield client


@pytest.fixture
def impatient(address, connect, worker, monkeypatch):
    """A client that sees what the last of its attempts is told."""
    monkeypatch.setattr(channel, "_RETRIES", {})
    with connect(address) as client:
        yield client


@pytest.fixture
def stubs(address):
    found = Stubs(address)
    yield found
    found.channel.close()


def failing(kind: type[Qwen3Error], call, *arguments, **options) -> Qwen3Error:
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    assert type(caught.value) is kind
    return caught.value


@pytest.mark.parametrize("place", [1, 270])
def test_a_bad_text_is_named_by_its_place_among_all(client, place):
    texts = [*TEXTS[:place], " ", "more"]
    error = failing(InvalidRequestError, client.embed, texts)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert error.field_violations == ((f"inputs[{place}]", "is empty or white space only"),)
    assert str(error).count(f"inputs[{place}]") == 1
    assert error.request_id


@pytest.mark.parametrize("num_before", [1, 270])
def test_a_text_that_is_too_long_is_named_with_its_tokens(client, num_before):
    error = failing(InvalidRequestError, client.embed, [*TEXTS[:num_before], "word " * 600])
    [(field, what)] = error.field_violations
    assert field == f"inputs[{num_before}]"
    assert f"the model takes {MAX_INPUT_TOKENS}" in what


@pytest.mark.parametrize("num_texts", [1, 300])
def test_bad_options_are_named(client, num_texts):
    error = failing(InvalidRequestError, client.embed, TEXTS[:num_texts], dimensions=65)
    assert error.field_violations[0][0] == "config.dimensions"
    with pytest.raises(ValueError, match="encoding"):
        client.embed(TEXTS[:num_texts], encoding="float64")


def test_no_texts_are_the_callers_mistake(client):
    assert failing(InvalidRequestError, client.embed, []).field_violations == (("inputs", "is empty"),)
    assert list(client.embed_stream([])) == []


@pytest.mark.parametrize("num_texts", [1, 300])
def test_an_unknown_model_is_told_with_those_that_are_served(client, num_texts):
    error = failing(ModelNotFoundError, client.embed, TEXTS[:num_texts], model="nowhere")
    assert (error.code, error.metadata["served"]) == ("NOT_FOUND", "emb")
    assert error.request_id


def test_a_model_that_does_something_else_is_told_with_those_that_do_it(client):
    error = failing(InvalidRequestError, client.rerank, "query", ["document"], model="emb")
    assert (error.reason, error.metadata["served"]) == ("WRONG_TASK", "")


@pytest.mark.parametrize("num_texts", [1, 300])
def test_nobody_is_let_in_without_a_key(guarded, connect, num_texts):
    with connect(guarded) as client:
        error = failing(UnauthenticatedError, client.embed, TEXTS[:num_texts])
        assert (error.code, error.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


@pytest.mark.parametrize("num_texts", [1, 300])
@pytest.mark.parametrize(
    ("key", "options", "reason"),
    [
        ("reader", {}, "METHOD_NOT_ALLOWED"),
        ("other", {"model": "emb"}, "MODEL_NOT_ALLOWED"),
        ("hurried", {"priority": "bulk"}, "PRIORITY_NOT_ALLOWED"),
    ],
)
def test_what_a_key_is_not_for_is_refused(guarded, connect, num_texts, key, options, reason):
    with connect(guarded, token=KEYS[key].reveal()) as client:
        error = failing(NotAllowedError, client.embed, TEXTS[:num_texts], **options)
        assert (error.code, error.reason) == ("PERMISSION_DENIED", reason)


def test_a_used_up_quota_says_which_and_until_when(guarded, connect):
    with connect(guarded, token=KEYS["hurried"].reveal) as client:
        found = None
        while found is None:
            try:
                client.embed(["text"])
            except ResourceExhaustedError as error:
                found = error
    assert (found.code, found.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_REQUESTS")
    assert found.retry_after_s > 1
    assert found.quota_violations[0][0] == "hurried"


def test_a_message_over_the_servers_limit_is_more_than_it_takes(client):
    error = failing(ResourceExhaustedError, client.embed, ["x" * 33 * 1024 * 1024])
    assert error.code == "RESOURCE_EXHAUSTED"


def test_a_model_without_a_worker_is_unavailable_and_says_when_to_come_back(redis_url, impatient):
    with EchoWorker(redis_url, "gone"):
        eventually(lambda: impatient.health("gone") is HealthStatus.SERVING)
    eventually(lambda: impatient.health("gone") is HealthStatus.NOT_SERVING)
    error = failing(UnavailableError, impatient.embed, ["text"], model="gone")
    assert (error.code, error.reason, error.retry_after_s) == ("UNAVAILABLE", "NO_WORKER", 1.0)


def test_a_full_queue_says_when_there_is_room(impatient, stubs, worker):
    worker.hold()
    ahead = embedding_pb2.EmbedRequest(inputs=["word " * 450] * 8)
    waiting = stubs.embedding.Embed.future(ahead, timeout=TIMEOUT_S)
    eventually(worker.num_queued)
    error = failing(UnavailableError, impatient.embed, ["word " * 450])
    assert (error.code, error.reason) == ("UNAVAILABLE", "QUEUE_FULL")
    assert error.retry_after_s >= 1
    worker.release()
    assert waiting.result()


def test_a_full_gateway_says_when_to_come_back(impatient, stubs, worker):
    worker.hold()
    request = embedding_pb2.EmbedRequest(inputs=["text"])
    waiting = [stubs.embedding.Embed.future(request, timeout=TIMEOUT_S) for _ in range(MAX_CALLS)]
    eventually(lambda: worker.num_queued() == MAX_CALLS)
    error = failing(UnavailableError, impatient.embed, ["text"])
    assert (error.reason, error.retry_after_s) == ("OVERLOADED", 1.0)
    worker.release()
    assert all(call.result() for call in waiting)


def test_a_model_that_is_drained_says_when_to_come_back(redis_url, impatient, worker):
    with redis.Redis.from_url(redis_url) as connection:
        operator = Operator(connection)
        queue = operator.resolve("emb")
        operator.drain(queue)
        error = failing(UnavailableError, impatient.embed, ["text"])
        operator.resume(queue)
    assert (error.reason, error.retry_after_s) == ("DRAINING", 1.0)


def test_a_service_without_its_redis_says_when_to_come_back(orphan, connect, monkeypatch):
    monkeypatch.setattr(channel, "_RETRIES", {})
    with connect(orphan) as client:
        eventually(lambda: client.health() is HealthStatus.NOT_SERVING)
        error = failing(UnavailableError, client.embed, ["text"])
    assert (error.reason, error.retry_after_s) == ("QUEUE_AWAY", 1.0)


@pytest.mark.parametrize("num_texts", [1, 300])
def test_no_answer_in_time_is_an_error_of_its_own(client, worker, num_texts):
    worker.hold()
    error = failing(DeadlineExceededError, client.embed, TEXTS[:num_texts], timeout_s=0.5)
    assert error.code == "DEADLINE_EXCEEDED"
    worker.release()
    eventually(lambda: worker.num_queued() == 0)


@pytest.mark.parametrize("num_texts", [1, 300])
def test_closing_the_client_ends_its_calls_and_their_work(address, worker, num_texts):
    worker.hold()
    client = CLIENTS["sync"](address)
    caught = []

    def call():
        try:
            client.embed(TEXTS[:num_texts])
        except Qwen3Error as error:
            caught.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    eventually(worker.num_queued)
    client.close()
    caller.join(20)
    assert [type(error) for error in caught] == [CallCancelledError]


@pytest.mark.parametrize("num_texts", [1, 300])
def test_closing_the_async_client_is_no_cancellation_of_its_callers(address, worker, num_texts):
    async def main():
        client = AsyncClient(address)
        call = asyncio.create_task(client.embed(TEXTS[:num_texts]))
        await asyncio.to_thread(eventually, worker.num_queued)
        await client.close()
        with pytest.raises(CallCancelledError):
            await call

    worker.hold()
    asyncio.run(main())


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (FailureReason.POISON_INPUT, PoisonInputError),
        (FailureReason.NON_FINITE_RESULT, NonFiniteResultError),
        (FailureReason.OUT_OF_MEMORY, ServerFaultError),
        (FailureReason.INVALID_JOB, ServerFaultError),
    ],
)
@pytest.mark.parametrize("num_texts", [2, 300])
def test_texts_that_cannot_be_computed_are_named(client, worker, reason, kind, num_texts):
    worker.answer = Failure(reason=reason, message="cannot be computed", sequence=1)
    error = failing(kind, client.embed, TEXTS[:num_texts])
    assert (error.code, error.reason) == ("INTERNAL", reason.name)
    assert error.message.endswith("cannot be computed")
    assert error.message.startswith("inputs[")


@pytest.mark.parametrize("num_texts", [2, 300])
def test_a_bug_tells_the_id_under_which_it_is_logged(client, worker, num_texts):
    worker.answer = Result(rows=bytes(4), num_rows=1, computed_tokens=1, queue_us=1, compute_us=1)
    error = failing(ServerFaultError, client.embed, TEXTS[:num_texts], request_id="mine")
    assert (error.code, error.reason, error.request_id) == ("INTERNAL", "BUG", "mine")
    assert error.message == "internal error; request id mine"
