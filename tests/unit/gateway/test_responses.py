"""Results in the reply: scores, their order, and what of a model is told."""

import math
import time

import numpy as np
import pytest

from gateway.calls import Call
from gateway.identity.callers import ANYBODY
from gateway.prompts import rerank_prompt
from gateway.responses import model_messages, probability, rerank_response
from gateway.tokenization import Truncation, tokenize
from gateway.validation import Limits, validate_rerank
from jobqueue.announcements import Liveness
from jobqueue.messages import Operation, Result
from qwen3.inference.v1 import embedding_pb2, model_pb2, rerank_pb2


@pytest.mark.parametrize("logit", [-1e308, -1e4, -745.2, -88.8, -1.5, 0.0, 1.5, 88.8, 745.2, 1e4, 1e308])
def test_a_probability_is_finite_and_the_softmax_of_the_two_logits(logit):
    found = probability(logit)
    assert 0.0 <= found <= 1.0
    assert math.isclose(found + probability(-logit), 1.0)
    if abs(logit) < 100:
        exact = np.exp(np.longdouble(logit)) / (1 + np.exp(np.longdouble(logit)))
        assert math.isclose(found, exact, rel_tol=1e-12)


def test_probabilities_keep_the_order_of_logits():
    logits = np.linspace(-40, 30, 2001)
    found = [probability(logit) for logit in logits]
    assert found == sorted(found)
    assert probability(0.0) == 0.5


@pytest.fixture
def respond(catalog, limits, rerank_tokenizer):
    """The response to a rerank whose documents got these logits."""

    def make(logits, **fields):
        documents = [f"document {index}" for index in range(len(logits))]
        task = validate_rerank(
            rerank_pb2.RerankRequest(query="q", documents=documents, **fields), catalog, limits, caller=ANYBODY
        )
        prompt = rerank_prompt(task.query, documents, instruction=task.instruction, field="documents")
        result = Result(
            rows=np.array(logits, "<f4").tobytes(), num_rows=len(logits), computed_tokens=9, queue_us=5, compute_us=6
        )
        call = Call(method="m", request_id="r", started=time.perf_counter(), deadline=0)
        return rerank_response(task, tokenize(rerank_tokenizer, prompt, Truncation.ERROR, None), result, call)

    return make


def indices(response) -> list[int]:
    return [result.index for result in response.results]


def test_results_come_by_score_and_ties_by_index(respond):
    assert indices(respond([1.0, 3.0, 1.0, -2.0, 3.0, 1.0])) == [1, 4, 0, 2, 5, 3]


def test_saturated_probabilities_keep_the_order_of_their_logits(respond):
    assert indices(respond([50.0, 60.0, -200.0, -150.0])) == [1, 0, 3, 2]


def test_input_order_is_the_documents_order(respond):
    response = respond([1.0, 3.0, 2.0], order=rerank_pb2.RERANK_ORDER_INPUT)
    assert indices(response) == [0, 1, 2]


@pytest.mark.parametrize(("top_n", "found"), [(0, [1, 2, 0]), (1, [1]), (2, [1, 2]), (3, [1, 2, 0]), (99, [1, 2, 0])])
def test_top_n_keeps_the_best(respond, top_n, found):
    assert indices(respond([1.0, 3.0, 2.0], top_n=top_n)) == found


def test_scores_are_probabilities_or_logits_as_asked(respond):
    by_default = respond([1.5, -1.5])
    as_logits = respond([1.5, -1.5], score_type=rerank_pb2.SCORE_TYPE_LOGIT)
    assert [result.score for result in by_default.results] == pytest.approx([0.8175745, 0.1824255])
    assert [result.score for result in as_logits.results] == [1.5, -1.5]


def test_documents_come_back_only_where_asked(respond):
    with_documents = respond([1.0, 2.0], return_documents=True)
    assert [result.document for result in with_documents.results] == ["document 1", "document 0"]
    assert not any(result.HasField("document") for result in respond([1.0, 2.0]).results)


def test_usage_counts_every_prompt(respond):
    response = respond([1.0, 2.0])
    assert response.usage.input_tokens == sum(result.token_count for result in response.results)
    assert response.usage.computed_tokens == 9


def message_of(model, catalog, limits):
    (message,) = model_messages([model.id], catalog, limits)
    return message


def test_a_model_is_told_as_it_was_announced(served, catalog_of):
    model = served("m", Operation.EMBED, Liveness.LOADING, native_dimensions=1024, max_input_tokens=32768)
    limits = Limits(
        max_embed_inputs=256, max_rerank_documents=1000, max_text_bytes=1_000_000, max_request_tokens=1_000_000
    )
    found = message_of(model, catalog_of(model), limits)
    assert (found.id, found.revision, found.task) == ("m", "r1", model_pb2.MODEL_TASK_EMBEDDING)
    assert found.state == model_pb2.MODEL_STATE_LOADING
    assert (found.native_dimensions, found.min_dimensions, found.max_input_tokens) == (1024, 32, 32768)
    assert found.max_batch_inputs == 256
    assert list(found.encodings) == embedding_pb2.VectorEncoding.values()[1:]
    assert found.default_for_task


def test_a_reranker_is_told_without_what_only_vectors_have(served, catalog_of):
    model = served("m", Operation.RERANK, Liveness.ABSENT)
    limits = Limits(
        max_embed_inputs=256, max_rerank_documents=1000, max_text_bytes=1_000_000, max_request_tokens=1_000_000
    )
    found = message_of(model, catalog_of(model, served("other", Operation.RERANK)), limits)
    assert (found.task, found.state) == (model_pb2.MODEL_TASK_RERANK, model_pb2.MODEL_STATE_UNAVAILABLE)
    assert (found.native_dimensions, found.min_dimensions, list(found.encodings)) == (0, 0, [])
    assert found.max_batch_inputs == 1000
    assert not found.default_for_task


def test_a_wide_model_tells_how_many_of_its_vectors_fit(served, catalog_of):
    model = served("m", Operation.EMBED, native_dimensions=4096)
    found = message_of(
        model,
        catalog_of(model),
        Limits(max_embed_inputs=256, max_rerank_documents=1, max_text_bytes=1_000_000, max_request_tokens=1_000_000),
    )
    assert found.max_batch_inputs == 251
