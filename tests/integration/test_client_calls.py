"""Both clients against real gateways: what each call brings."""

from dataclasses import replace

import numpy as np
import pytest

from jobqueue.lanes import Lane
from jobqueue.messages import Operation
from qwen3_client import HealthStatus, InvalidRequestError
from qwen3_client.scoring import cosine, dot, hamming
from tests.support.clients import CLIENTS
from tests.support.echo import NATIVE_DIMENSIONS, EchoWorker, eventually, probability
from tests.support.processes import gateway

TEXTS = [f"text number {number}" for number in range(300)]


@pytest.fixture(scope="module")
def reranker(redis_url):
    with EchoWorker(redis_url, "rer", Operation.RERANK) as worker:
        yield worker


@pytest.fixture(scope="module")
def address(redis_url, shared_worker, reranker):
    with gateway(redis_url, "--await-models", "emb,rer", "--default-embedding-model", "emb") as (_, address):
        yield address


@pytest.fixture(scope="module")
def narrow(redis_url, shared_worker, reranker):
    """Takes less in one message than the clients send."""
    options = ["--await-models", "emb,rer", "--max-embed-inputs", "20", "--max-rerank-documents", "90"]
    with gateway(redis_url, *options) as (_, address):
        yield address


@pytest.fixture(params=CLIENTS)
def connect(request):
    return CLIENTS[request.param]


@pytest.fixture
def client(address, connect, worker):
    with connect(address) as client:
        yield client


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


@pytest.mark.parametrize("num_texts", [2, 300])
def test_the_callers_id_is_that_of_every_job(client, worker, num_texts):
    client.embed(TEXTS[:num_texts], request_id="mine")
    assert {job.request_id for job, _ in worker.jobs} == {"mine"}
    worker.jobs.clear()
    list(client.embed_stream(TEXTS[:num_texts], request_id="streamed"))
    assert {job.request_id for job, _ in worker.jobs} == {"streamed"}


def test_a_server_that_takes_less_than_usual_is_sent_less(narrow, connect, client, worker):
    documents = [f"document {number}" for number in range(200)]
    with connect(narrow) as other:
        assert [model.max_batch_inputs for model in other.models()] == [20, 90]
        found = [other.embed(texts).vectors for texts in (TEXTS[:50], TEXTS)]
        assert max(len(job.tails) for _, job in worker.jobs) <= 20
        for texts, vectors in zip((TEXTS[:50], TEXTS), found, strict=True):
            assert np.array_equal(vectors, client.embed(texts).vectors)
        assert other.rerank("which?", documents) == client.rerank("which?", documents)
        assert other.count_tokens(TEXTS) == client.count_tokens(TEXTS, model="emb")
        with pytest.raises(InvalidRequestError) as caught:
            other.embed([*TEXTS[:45], ""])
    assert caught.value.field_violations[0][0] == "inputs[45]"


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
    assert client.rerank("which?", documents, top_n=5) == [replace(hit, document=None) for hit in hits[:5]]
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


def test_a_bad_document_is_named_by_its_place_among_all_and_ends_the_rest(client, reranker):
    reranker.hold()
    with pytest.raises(InvalidRequestError) as caught:
        client.rerank("q", ["", *["text"] * 3500])
    assert caught.value.field_violations[0][0] == "documents[0]"
    eventually(lambda: reranker.num_queued() == 0)
    reranker.release()
    with pytest.raises(InvalidRequestError) as caught:
        client.rerank("q", [*["text"] * 1100, ""])
    assert caught.value.field_violations[0][0] == "documents[1100]"
