import pytest

from qwen3.inference.v1 import common_pb2, embedding_pb2, model_pb2, rerank_pb2
from qwen3_client import Client
from qwen3_client.requests import (
    count_tokens_request,
    embed_config,
    embed_request,
    known_request_id,
    known_timeout_s,
    list_of_texts,
    next_page,
    rerank_request,
    tokenize_request,
)

EMBED_DEFAULTS = {
    "model": "",
    "input_type": None,
    "instruction": None,
    "dimensions": 0,
    "normalize": True,
    "encoding": "float32",
    "truncation": "error",
    "priority": None,
}
RERANK_DEFAULTS = {
    "model": "",
    "instruction": None,
    "top_n": 0,
    "truncation": "error",
    "score_type": "probability",
    "priority": None,
    "request_id": "",
}


def test_an_unset_instruction_is_absent_and_an_empty_one_is_present():
    assert not embed_config(**EMBED_DEFAULTS).HasField("instruction")
    assert embed_config(**EMBED_DEFAULTS | {"instruction": ""}).HasField("instruction")


def test_words_become_the_contracts_enum_values():
    config = embed_config(
        **EMBED_DEFAULTS
        | {"input_type": "query", "encoding": "int8", "truncation": "start", "priority": "bulk", "normalize": False}
    )
    assert config == embedding_pb2.EmbedConfig(
        input_type=embedding_pb2.INPUT_TYPE_QUERY,
        encoding=embedding_pb2.VECTOR_ENCODING_INT8,
        truncation_policy=common_pb2.TRUNCATION_POLICY_START,
        priority=common_pb2.PRIORITY_BULK,
        normalize=False,
    )


def test_a_word_that_no_option_has_is_refused_with_the_words_it_has():
    with pytest.raises(ValueError, match="encoding must be one of float32, float16, int8, binary"):
        embed_config(**EMBED_DEFAULTS | {"encoding": "float64"})
    with pytest.raises(ValueError, match="encoding must be one of"):
        embed_config(**EMBED_DEFAULTS | {"encoding": "float_list"})  # a model has it, and this client no use for it
    with pytest.raises(ValueError, match="input_type must be one of query, document, not 'passage'"):
        embed_config(**EMBED_DEFAULTS | {"input_type": "passage"})


def test_a_request_id_is_the_callers_or_a_new_one():
    assert known_request_id("mine") == "mine"
    assert known_request_id("") != known_request_id("")
    for bad in ("x" * 129, "two\nlines", "naïve"):
        with pytest.raises(ValueError, match="128 printable ASCII"):
            known_request_id(bad)


@pytest.mark.parametrize("timeout_s", [float("inf"), float("nan"), 1e12])
def test_a_timeout_that_no_clock_counts_is_refused(timeout_s):
    with pytest.raises(ValueError, match="timeout_s must be at most 100000000 seconds, not"):
        known_timeout_s(timeout_s)
    with pytest.raises(ValueError, match="timeout_s"):
        Client(timeout_s=timeout_s)


def test_an_embed_request_carries_what_was_asked():
    config = embed_config(**EMBED_DEFAULTS)
    request = embed_request(config, request_id="id")(["a", "b"])
    assert request == embedding_pb2.EmbedRequest(config=config, inputs=["a", "b"], request_id="id")


def test_special_tokens_are_asked_for_or_not():
    request = tokenize_request(model="m", add_special_tokens=False)(["a"])
    assert request.HasField("add_special_tokens")
    assert not request.add_special_tokens


def test_one_text_in_place_of_a_list_is_refused():
    with pytest.raises(TypeError, match="texts must be a list"):
        list_of_texts("text")
    with pytest.raises(TypeError, match="documents must be a list"):
        list_of_texts("document", "documents")


def test_a_rerank_request_carries_what_was_asked():
    options = RERANK_DEFAULTS | {"top_n": 1, "score_type": "logit", "truncation": "end"}
    assert rerank_request("q", **options)(["a", "b"]) == rerank_pb2.RerankRequest(
        query="q",
        documents=["a", "b"],
        top_n=1,
        score_type=rerank_pb2.SCORE_TYPE_LOGIT,
        truncation_policy=common_pb2.TRUNCATION_POLICY_END,
    )


def test_a_count_with_a_query_is_a_rerankers():
    request = count_tokens_request(model="", input_type=None, instruction=None, query="q")(["d"])
    assert (request.query, list(request.inputs)) == ("q", ["d"])


def test_pages_are_asked_for_until_the_last_one():
    assert next_page(None) == model_pb2.ListModelsRequest()
    assert next_page(model_pb2.ListModelsResponse(next_page_token="2")).page_token == "2"
    assert next_page(model_pb2.ListModelsResponse()) is None
