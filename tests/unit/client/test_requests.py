import pytest

from qwen3.inference.v1 import common_pb2, embedding_pb2, model_pb2, rerank_pb2
from qwen3_client.requests import (
    count_tokens_parts,
    embed_config,
    embed_request,
    list_of_texts,
    next_page,
    rerank_parts,
    tokenize_parts,
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
    with pytest.raises(ValueError, match="input_type must be one of query, document, not 'passage'"):
        embed_config(**EMBED_DEFAULTS | {"input_type": "passage"})


def test_texts_that_fit_one_call_are_one_request():
    texts = [f"text {index}" for index in range(200)]
    request = embed_request(texts, config=embed_config(**EMBED_DEFAULTS), request_id="id")
    assert (list(request.inputs), request.request_id) == (texts, "id")
    assert not embed_request([], config=embed_config(**EMBED_DEFAULTS), request_id="").inputs


@pytest.mark.parametrize("texts", [["text"] * 251, ["x" * 300_000] * 4])
def test_texts_that_do_not_fit_one_call_are_none(texts):
    assert embed_request(texts, config=embed_config(**EMBED_DEFAULTS), request_id="id") is None


def test_many_documents_go_in_parts_that_know_their_place():
    documents = [f"text {index}" for index in range(2500)]
    parts = rerank_parts("q", documents, **RERANK_DEFAULTS | {"top_n": 3})
    assert [part.first for part in parts] == [0, 1000, 2000]
    assert [document for part in parts for document in part.request.documents] == documents
    assert {(part.request.query, part.request.top_n) for part in parts} == {("q", 3)}


def test_texts_to_tokenise_go_in_smaller_parts():
    parts = tokenize_parts(["x" * 100_000] * 5, model="m", add_special_tokens=False)
    assert [len(part.request.inputs) for part in parts] == [2, 2, 1]
    assert all(part.request.HasField("add_special_tokens") for part in parts)


def test_one_text_in_place_of_a_list_is_refused():
    with pytest.raises(TypeError, match="texts must be a list"):
        list_of_texts("text")
    with pytest.raises(TypeError, match="documents must be a list"):
        list_of_texts("document", "documents")


def test_what_is_no_text_is_refused():
    with pytest.raises(TypeError, match="must be of type str, not bytes"):
        embed_request(["text", b"text"], config=embed_config(**EMBED_DEFAULTS), request_id="")


def test_a_rerank_request_carries_what_was_asked():
    options = RERANK_DEFAULTS | {"top_n": 1, "score_type": "logit", "truncation": "end"}
    [part] = rerank_parts("q", ["a", "b"], **options)
    assert part.request == rerank_pb2.RerankRequest(
        query="q",
        documents=["a", "b"],
        top_n=1,
        score_type=rerank_pb2.SCORE_TYPE_LOGIT,
        truncation_policy=common_pb2.TRUNCATION_POLICY_END,
    )


def test_a_count_with_a_query_is_a_rerankers():
    [part] = count_tokens_parts(["d"], model="", input_type=None, instruction=None, query="q")
    assert (part.request.query, list(part.request.inputs)) == ("q", ["d"])


def test_pages_are_asked_for_until_the_last_one():
    assert next_page(None) == model_pb2.ListModelsRequest()
    assert next_page(model_pb2.ListModelsResponse(next_page_token="2")).page_token == "2"
    assert next_page(model_pb2.ListModelsResponse()) is None
