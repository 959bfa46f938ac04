"""Both clients against a real gateway: what each call brings, and every error of the contract as its own exception."""

import threading

import numpy as np
import pytest

from gateway.api_keys import ApiKey
from jobqueue.lanes import Lane
from jobqueue.messages import Failure, FailureReason, Operation
from qwen3_client import (
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
    UnauthenticatedError,
    UnavailableError,
)
from qwen3_client.scoring import cosine, dot, hamming
from tests.support.clients import CLIENTS
from tests.support.echo import NATIVE_DIMENSIONS, EchoWorker, eventually, probability
from tests.support.processes import gateway

TEXTS = [f"text number {number}" for number in range(300)]
KEYS = {name: ApiKey.new() for name in ("reader", "hurried")}
ACCESS = f"""
[tenants.reader]
models = ["emb"]
rpcs = ["ListModels"]
keys.{KEYS["reader"].id} = {{ sha256 = "{KEYS["reader"].sha256}" }}
[tenants.hurried]
models = ["emb"]
quota = {{ requests_per_s = 0.001 }}
keys.{KEYS["hurried"].id} = {{ sha256 = "{KEYS["hurried"].sha256}" }}
"""


@pytest.fixture(scope="module")
def reranker(redis_url):
    with EchoWorker(redis_url, "rer", Operation.RERANK) as worker:
        yield worker


@pytest.fixture(scope="module")
def address(redis_url, shared_worker, reranker):
    with gateway(redis_url, "--await-models", "emb,rer", "--default-embedding-model", "emb") as (_, address):
        yield address


@pytest.fixture(scope="module")
def guarded(redis_url, shared_worker, tmp_path_factory):
    file = tmp_path_factory.mktemp("access") / "access.toml"
    file.write_text(ACCESS)
    with gateway(redis_url, "--access", str(file), "--await-models", "emb") as (_, address):
        yield address


@pytest.fixture(params=CLIENTS)
def connect(request):
    return CLIENTS[request.param]


@pytest.fixture
def client(address, connect, worker):
    with connect(address) as client:
        yield client


def failing(kind: type[Qwen3Error], call, *arguments, **options) -> Qwen3Error:
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    assert type(caught.value) is kind
    return caught.value


def test_a_call_of_any_size_brings_the_same_vectors_in_order(client, worker):
    whole = client.embed(TEXTS)
    assert (whole.vectors.shape, whole.vectors.dtype) == ((300, NATIVE_DIMENSIONS), np.float32)
    assert {job.lane for job, _ in worker.jobs} == {Lane.BULK}
    for first in (0, 200):
        part = client.embed(TEXTS[first : first + 100])
        assert np.array_equal(part.vectors, whole.vectors[first : first + 100])
        assert part.token_counts == whole.token_counts[first : first + 100]
    streamed = list(client.embed_stream(iter(TEXTS)))
    assert np.array_equal(np.concatenate([result.vectors for result in streamed]), whole.vectors)


def test_what_is_asked_for_reaches_the_server_by_either_way(client, worker):
    options = {"input_type": "query", "dimensions": 32, "normalize": False, "priority": "interactive"}
    many = client.embed(TEXTS, encoding="float16", truncation="end", model="emb", **options)
    few = client.embed(TEXTS[:2], encoding="float16", truncation="end", model="emb", request_id="mine", **options)
    assert many.vectors.dtype == few.vectors.dtype == np.float16
    assert np.array_equal(many.vectors[:2], few.vectors)
    assert few.dimensions == 32
    assert {job.lane for job, _ in worker.jobs} == {Lane.INTERACTIVE}


def test_int8_and_binary_score_nearly_as_float32(client):
    full, small, bits = (client.embed(TEXTS[:20], encoding=name) for name in ("float32", "int8", "binary"))
    assert (small.vectors.dtype, small.scales.shape, bits.vectors.dtype) == (np.int8, (20,), np.uint8)
    exact = full.vectors @ full.vectors.T
    assert np.abs(dot(small, small) - exact).max() < 0.02
    assert np.abs(cosine(small, full) - exact).max() < 0.02
    signs = full.vectors > 0
    assert np.array_equal(hamming(bits, bits), (signs[:, None] != signs[None]).sum(axis=2))


def test_any_number_of_documents_is_ranked_as_one_list(client):
    documents = [f"document {number}" for number in range(1500)]
    hits = client.rerank("which?", documents, return_documents=True)
    assert sorted(hit.index for hit in hits) == list(range(1500))
    assert [(-hit.score, hit.index) for hit in hits] == sorted((-hit.score, hit.index) for hit in hits)
    assert all(hit.document == documents[hit.index] for hit in hits)
    assert client.rerank("which?", documents, top_n=5) == [
        type(hit)(index=hit.index, score=hit.score, document=None, token_count=hit.token_count, truncated=False)
        for hit in hits[:5]
    ]
    [logit] = client.rerank("which?", documents[:1], score_type="logit")
    [alone] = client.rerank("which?", documents[:1])
    assert alone.score == pytest.approx(probability(logit.score))


def test_tokens_are_counted_and_shown_for_any_number_of_texts(client):
    texts = [f"text {number}" for number in range(1200)]
    counts = client.count_tokens(texts, model="emb")
    sequences = client.tokenize(texts, model="emb")
    assert len(counts.token_counts) == len(sequences) == 1200
    assert [len(sequence.ids) for sequence in sequences] == list(counts.token_counts)
    assert counts.total_tokens == sum(counts.token_counts)
    assert sequences[7].ends[-1] <= len(texts[7])


def test_models_and_health_are_told(client):
    assert [(model.id, model.task, model.state) for model in client.models()] == [
        ("emb", "embedding", "ready"),
        ("rer", "rerank", "ready"),
    ]
    assert (client.health(), client.health("emb")) == (HealthStatus.SERVING, HealthStatus.SERVING)
    assert client.health("nowhere") is HealthStatus.SERVICE_UNKNOWN


@pytest.mark.parametrize("place", [1, 270])
def test_a_bad_text_is_named_by_its_place_among_all(client, place):
    texts = [*TEXTS[:place], " ", "more"]
    error = failing(InvalidRequestError, client.embed, texts)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert error.field_violations == ((f"inputs[{place}]", "is empty or white space only"),)
    assert str(error).count(f"inputs[{place}]") == 1


def test_a_bad_document_is_named_by_its_place_among_all(client):
    error = failing(InvalidRequestError, client.rerank, "q", ["text"] * 1100 + [""])
    assert error.field_violations[0][0] == "documents[1100]"


@pytest.mark.parametrize("num_texts", [1, 300])
def test_bad_options_are_named(client, num_texts):
    error = failing(InvalidRequestError, client.embed, TEXTS[:num_texts], dimensions=65)
    assert error.field_violations[0][0] == "config.dimensions"
    assert failing(InvalidRequestError, client.embed, TEXTS[:num_texts], model="rer").metadata["served"] == "emb"
    with pytest.raises(ValueError, match="encoding"):
        client.embed(TEXTS[:num_texts], encoding="float64")


def test_no_texts_are_the_callers_mistake(client):
    assert failing(InvalidRequestError, client.embed, []).field_violations == (("inputs", "is empty"),)
    assert list(client.embed_stream([])) == []


@pytest.mark.parametrize("num_texts", [1, 300])
def test_an_unknown_model_is_told_with_those_that_are_served(client, num_texts):
    error = failing(ModelNotFoundError, client.embed, TEXTS[:num_texts], model="nowhere")
    assert (error.code, error.metadata["served"]) == ("NOT_FOUND", "emb,rer")
    assert error.request_id


@pytest.mark.parametrize("num_texts", [1, 300])
def test_nobody_is_let_in_without_a_key(guarded, connect, num_texts):
    with connect(guarded) as client:
        error = failing(UnauthenticatedError, client.embed, TEXTS[:num_texts])
        assert (error.code, error.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


@pytest.mark.parametrize("num_texts", [1, 300])
def test_what_a_key_is_not_for_is_refused(guarded, connect, num_texts):
    with connect(guarded, token=KEYS["reader"].reveal()) as client:
        assert [model.id for model in client.models()] == ["emb"]
        error = failing(NotAllowedError, client.embed, TEXTS[:num_texts])
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "METHOD_NOT_ALLOWED")


def test_a_used_up_quota_says_which_and_until_when(guarded, connect):
    with connect(guarded, token=KEYS["hurried"].reveal) as client:
        found = None
        while found is None:
            try:
                client.embed(["text"])
            except ResourceExhaustedError as error:
                found = error
    assert found.code == "RESOURCE_EXHAUSTED"
    assert found.retry_after_s > 1
    assert found.quota_violations[0][0]


def test_a_model_without_a_worker_is_unavailable_and_says_when_to_come_back(redis_url, client):
    with EchoWorker(redis_url, "gone"):
        eventually(lambda: client.health("gone") is HealthStatus.SERVING)
    eventually(lambda: client.health("gone") is HealthStatus.NOT_SERVING)
    error = failing(UnavailableError, client.embed, ["text"], model="gone")
    assert (error.code, error.reason, error.retry_after_s) == ("UNAVAILABLE", "NO_WORKER", 1.0)


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


@pytest.mark.parametrize(
    ("reason", "kind"),
    [(FailureReason.POISON_INPUT, PoisonInputError), (FailureReason.NON_FINITE_RESULT, NonFiniteResultError)],
)
@pytest.mark.parametrize("num_texts", [2, 300])
def test_texts_that_cannot_be_computed_are_named(client, worker, reason, kind, num_texts):
    worker.answer = Failure(reason=reason, message="cannot be computed", sequence=1)
    error = failing(kind, client.embed, TEXTS[:num_texts])
    assert (error.code, error.reason) == ("INTERNAL", reason.name)
    assert error.message.endswith("cannot be computed")
    assert error.message.startswith("inputs[")
