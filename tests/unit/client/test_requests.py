import pytest

from qwen3.inference.v1 import common_pb2, embedding_pb2, rerank_pb2
from qwen3_client.requests import count_tokens_request, embed_config, embed_requests, rerank_request

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
    "return_documents": False,
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
    with pytest.raises(ValueError, match="input_type must be one of query, document, not 'passage'"):
        embed_config(**EMBED_DEFAULTS | {"input_type": "passage"})


@pytest.mark.parametrize(
    ("num_texts", "sizes"), [(0, [0]), (1, [1]), (64, [64]), (65, [64, 1]), (200, [64, 64, 64, 8])]
)
def test_texts_are_split_into_calls_of_64_in_order(num_texts, sizes):
    texts = [f"text {index}" for index in range(num_texts)]
    requests = embed_requests(texts, config=embed_config(**EMBED_DEFAULTS), request_id="id")
    assert [len(request.inputs) for request in requests] == sizes
    assert [text for request in requests for text in request.inputs] == texts
    assert {request.request_id for request in requests} == {"id"}


def test_one_text_in_place_of_a_list_is_refused():
    with pytest.raises(TypeError, match="texts must be a list"):
        embed_requests("text", config=embed_config(**EMBED_DEFAULTS), request_id="")
    with pytest.raises(TypeError, match="documents must be a list"):
        rerank_request("query", "document", **RERANK_DEFAULTS)


def test_a_rerank_request_carries_what_was_asked():
    request = rerank_request(
        "q", ["a", "b"], **RERANK_DEFAULTS | {"top_n": 1, "score_type": "logit", "truncation": "end"}
    )
    assert request == rerank_pb2.RerankRequest(
        query="q",
        documents=["a", "b"],
        top_n=1,
        score_type=rerank_pb2.SCORE_TYPE_LOGIT,
        truncation_policy=common_pb2.TRUNCATION_POLICY_END,
    )


def test_a_count_with_a_query_is_a_rerankers():
    request = count_tokens_request(["d"], model="", input_type=None, instruction=None, query="q")
    assert (request.query, list(request.inputs)) == ("q", ["d"])
