"""From a request to a task, or the field that is wrong: one test a rule of the contract."""

from dataclasses import replace
from functools import partial

import grpc
import pytest

from gateway.errors import CallError, trailing_metadata
from gateway.identity.callers import ANYBODY
from gateway.tokenization import Truncation
from gateway.validation import (
    MAX_REPLY_BYTES,
    Limits,
    max_vectors,
    validate_count,
    validate_embed,
    validate_get_model,
    validate_page_size,
    validate_rerank,
    validate_tokenize,
)
from jobqueue.announcements import Liveness
from jobqueue.lanes import Lane
from jobqueue.messages import Operation, VectorEncoding
from qwen3.inference.v1 import common_pb2, embedding_pb2, model_pb2, rerank_pb2, tokenizer_pb2
from tests.support.echo import DEFAULT_INSTRUCTION, NATIVE_DIMENSIONS

GRPC_DEFAULT_BYTES = 4 * 1024 * 1024


@pytest.fixture
def embed(catalog, limits):
    """Validate an EmbedRequest made of config fields."""

    def validate(inputs=("text",), request_id="", in_catalog=None, under=limits, **config):
        request = embedding_pb2.EmbedRequest(
            config=embedding_pb2.EmbedConfig(**config), inputs=inputs, request_id=request_id
        )
        return validate_embed(request, in_catalog or catalog, under, caller=ANYBODY)

    return validate


@pytest.fixture
def rerank(catalog, limits):
    def validate(query="query", documents=("text",), in_catalog=None, under=limits, **fields):
        request = rerank_pb2.RerankRequest(query=query, documents=documents, **fields)
        return validate_rerank(request, in_catalog or catalog, under, caller=ANYBODY)

    return validate


@pytest.fixture
def count(catalog, limits):
    def validate(inputs=("text",), **fields):
        request = tokenizer_pb2.CountTokensRequest(inputs=inputs, **fields)
        return validate_count(request, catalog, limits, caller=ANYBODY)

    return validate


def refused(call, *arguments, **fields) -> CallError:
    with pytest.raises(CallError) as caught:
        call(*arguments, **fields)
    return caught.value


def wrong_field(call, *arguments, **fields) -> str:
    """The field that is named in an INVALID_ARGUMENT."""
    error = refused(call, *arguments, **fields)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.message.startswith(f"{error.field}: ")
    return error.field


def test_what_is_not_said_has_the_documented_defaults(embed):
    task = embed()
    assert task.model.id == "emb"
    assert task.instruction is None
    assert task.dimensions == NATIVE_DIMENSIONS
    assert task.normalize is True
    assert task.encoding is VectorEncoding.FLOAT32
    assert task.truncation is Truncation.ERROR
    assert task.lane is Lane.INTERACTIVE


def test_what_is_said_is_in_the_task(embed):
    task = embed(
        ["a", "b"],
        model="emb",
        input_type=embedding_pb2.INPUT_TYPE_QUERY,
        instruction="Retrieve",
        dimensions=32,
        normalize=False,
        encoding=embedding_pb2.VECTOR_ENCODING_INT8,
        truncation_policy=common_pb2.TRUNCATION_POLICY_START,
        priority=common_pb2.PRIORITY_BULK,
    )
    assert list(task.texts) == ["a", "b"]
    assert task.instruction == "Retrieve"
    assert (task.dimensions, task.normalize) == (32, False)
    assert task.encoding is VectorEncoding.INT8
    assert task.truncation is Truncation.START
    assert task.lane is Lane.BULK


def test_a_query_without_an_instruction_gets_the_model_s(embed):
    assert embed(input_type=embedding_pb2.INPUT_TYPE_QUERY).instruction == DEFAULT_INSTRUCTION


def test_a_document_gets_no_template(embed):
    assert embed(input_type=embedding_pb2.INPUT_TYPE_DOCUMENT).instruction is None


def test_an_instruction_without_a_type_is_a_template_for_both_sides(embed):
    assert embed(instruction="Match").instruction == "Match"


def test_an_empty_instruction_means_no_template_even_for_a_query(embed):
    assert embed(input_type=embedding_pb2.INPUT_TYPE_QUERY, instruction="").instruction is None


@pytest.mark.parametrize("instruction", ["", "Retrieve"])
def test_an_instruction_for_a_document_is_refused(embed, instruction):
    fields = {"input_type": embedding_pb2.INPUT_TYPE_DOCUMENT, "instruction": instruction}
    assert wrong_field(embed, **fields) == "config.instruction"


def test_an_instruction_of_white_space_is_refused(embed):
    assert wrong_field(embed, instruction=" \n") == "config.instruction"


def test_a_call_without_inputs_is_refused(embed):
    assert wrong_field(embed, []) == "inputs"


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0\u3000\u2028"])
def test_an_empty_text_is_refused_by_its_place(embed, text):
    assert wrong_field(embed, ["a", "b", "c", text]) == "inputs[3]"


def test_more_inputs_than_one_call_takes_are_refused_with_the_way_out(embed):
    error = refused(embed, ["a"] * 9)
    assert error.field == "inputs"
    assert error.message == "inputs: 9 where 8 fit in one call; split the call"
    assert len(embed(["a"] * 8).texts) == 8


@pytest.mark.parametrize("dimensions", [-1, 1, 31, NATIVE_DIMENSIONS + 1, 2**31 - 1])
def test_dimensions_outside_of_the_model_s_are_refused(embed, dimensions):
    assert wrong_field(embed, dimensions=dimensions) == "config.dimensions"


@pytest.mark.parametrize("dimensions", [32, 33, NATIVE_DIMENSIONS])
def test_dimensions_within_the_model_s_are_taken(embed, dimensions):
    assert embed(dimensions=dimensions).dimensions == dimensions


@pytest.mark.parametrize("field", ["input_type", "encoding", "truncation_policy", "priority"])
@pytest.mark.parametrize("value", [99, -1])
def test_an_unknown_enum_value_of_a_config_is_refused(embed, field, value):
    assert wrong_field(embed, **{field: value}) == f"config.{field}"


@pytest.mark.parametrize("field", ["order", "score_type", "truncation_policy", "priority"])
@pytest.mark.parametrize("value", [99, -1])
def test_an_unknown_enum_value_of_a_rerank_is_refused(rerank, field, value):
    assert wrong_field(rerank, **{field: value}) == field


@pytest.mark.parametrize("encoding", embedding_pb2.VectorEncoding.values()[1:])
def test_every_encoding_is_taken(embed, encoding):
    assert embed(encoding=encoding).encoding == encoding


@pytest.mark.parametrize("request_id", ["x" * 129, "line\nbreak", "ünïcode", "tab\t", "nul\0", "\x7f"])
def test_a_request_id_that_cannot_be_shown_is_refused(embed, rerank, request_id):
    assert wrong_field(embed, request_id=request_id) == "request_id"
    assert wrong_field(rerank, request_id=request_id) == "request_id"


@pytest.mark.parametrize("request_id", ["x" * 128, "a b", "trace/1:2~!"])
def test_a_request_id_of_printable_ascii_is_taken(embed, rerank, request_id):
    assert embed(request_id=request_id)
    assert rerank(request_id=request_id)


def test_an_unknown_model_is_not_found_and_the_served_ones_are_told(embed, rerank):
    for call in (embed, rerank):
        error = refused(call, model="nope")
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
        assert error.metadata == {"served": "emb,rer"}


def test_a_model_of_the_other_task_is_refused_and_the_right_ones_are_told(embed, rerank):
    for call, model, field, served in ((embed, "rer", "config.model", "emb"), (rerank, "emb", "model", "rer")):
        error = refused(call, model=model)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WRONG_TASK")
        assert (error.field, error.metadata) == (field, {"served": served})


def test_with_several_models_and_no_setting_the_model_is_required(embed, served, catalog_of):
    several = catalog_of(served("a", Operation.EMBED), served("b", Operation.EMBED))
    assert wrong_field(embed, in_catalog=several) == "config.model"


def test_with_several_models_a_setting_says_which(embed, rerank, served, catalog_of):
    models = [served(id_, operation) for operation in Operation for id_ in (f"{operation.name}1", f"{operation.name}2")]
    limits = Limits(
        max_embed_inputs=8,
        max_rerank_documents=8,
        max_text_bytes=1_000_000,
        max_request_tokens=1_000_000,
        default_embedding_model="EMBED2",
        default_rerank_model="RERANK1",
    )
    assert embed(in_catalog=catalog_of(*models), under=limits).model.id == "EMBED2"
    assert rerank(in_catalog=catalog_of(*models), under=limits).model.id == "RERANK1"


@pytest.mark.parametrize("ids", [[], ["a"], ["a", "b"]])
def test_a_set_default_that_is_not_served_is_unavailable(embed, served, catalog_of, ids):
    limits = Limits(
        max_embed_inputs=8,
        max_rerank_documents=8,
        max_text_bytes=1_000_000,
        max_request_tokens=1_000_000,
        default_embedding_model="gone",
    )
    models = catalog_of(*(served(id_, Operation.EMBED) for id_ in ids))
    error = refused(embed, in_catalog=models, under=limits)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")


def test_with_no_model_at_all_a_call_is_unavailable(embed, catalog_of):
    error = refused(embed, in_catalog=catalog_of())
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")
    assert error.retry_s


@pytest.mark.parametrize(
    ("liveness", "wakeable"), [(Liveness.LIVE, False), (Liveness.LOADING, False), (Liveness.ABSENT, True)]
)
def test_a_model_admits_where_a_worker_lives_loads_or_can_be_woken(embed, served, catalog_of, liveness, wakeable):
    models = catalog_of(served("m", Operation.EMBED, liveness, wakeable=wakeable))
    assert embed(in_catalog=models).model.id == "m"


def test_a_model_without_a_worker_that_cannot_be_woken_is_unavailable(embed, served, catalog_of):
    models = catalog_of(served("m", Operation.EMBED, Liveness.ABSENT))
    error = refused(embed, in_catalog=models)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")


def test_a_rerank_that_says_nothing_more_has_the_documented_defaults(rerank):
    task = rerank("q", ["a", "b"])
    assert (task.model.id, task.query, list(task.documents)) == ("rer", "q", ["a", "b"])
    assert task.instruction == DEFAULT_INSTRUCTION
    assert (task.top_n, task.return_documents, task.by_score, task.as_logit) == (0, False, True, False)
    assert (task.truncation, task.lane) == (Truncation.ERROR, Lane.INTERACTIVE)


def test_what_a_rerank_says_is_in_the_task(rerank):
    task = rerank(
        top_n=3,
        return_documents=True,
        instruction="Judge",
        score_type=rerank_pb2.SCORE_TYPE_LOGIT,
        truncation_policy=common_pb2.TRUNCATION_POLICY_END,
        priority=common_pb2.PRIORITY_BULK,
    )
    assert (task.top_n, task.return_documents, task.as_logit, task.instruction) == (3, True, True, "Judge")
    assert (task.truncation, task.lane) == (Truncation.END, Lane.BULK)
    assert rerank(order=rerank_pb2.RERANK_ORDER_INPUT).by_score is False


@pytest.mark.parametrize("query", ["", "  ", "\n"])
def test_a_rerank_without_a_query_is_refused(rerank, query):
    assert wrong_field(rerank, query) == "query"


def test_a_rerank_without_documents_is_refused(rerank):
    assert wrong_field(rerank, "q", []) == "documents"


def test_an_empty_document_is_refused_by_its_place(rerank):
    assert wrong_field(rerank, "q", ["a", " "]) == "documents[1]"


def test_more_documents_than_one_call_takes_are_refused(rerank):
    error = refused(rerank, "q", ["a"] * 11)
    assert error.field == "documents"
    assert "11 where 10 fit" in error.message


@pytest.mark.parametrize("instruction", ["", "  "])
def test_an_empty_instruction_of_a_rerank_is_refused(rerank, instruction):
    assert wrong_field(rerank, instruction=instruction) == "instruction"


def test_a_negative_top_n_is_refused(rerank):
    assert wrong_field(rerank, top_n=-1) == "top_n"


def test_input_order_does_not_go_with_top_n(rerank):
    assert wrong_field(rerank, top_n=1, order=rerank_pb2.RERANK_ORDER_INPUT) == "order"


@pytest.fixture
def rerank_large(rerank, limits):
    """A rerank whose texts may be as large as a whole reply."""
    return partial(rerank, under=replace(limits, max_text_bytes=MAX_REPLY_BYTES))


def test_returned_documents_must_fit_a_reply(rerank_large):
    size = MAX_REPLY_BYTES // 3
    documents = ["é" * (size // 2)] * 3
    assert wrong_field(rerank_large, "q", documents, return_documents=True) == "return_documents"
    assert rerank_large("q", documents, return_documents=False)
    assert rerank_large("q", documents, return_documents=True, top_n=2)


def test_the_largest_documents_count_where_top_n_leaves_the_choice_open(rerank_large):
    small, large = "a", "b" * (MAX_REPLY_BYTES // 2)
    fields = {"return_documents": True, "top_n": 2}
    assert wrong_field(rerank_large, "q", [small, large, small, large], **fields) == "return_documents"
    assert rerank_large("q", [small, large, small], **fields)


@pytest.mark.parametrize("text", ["x" * 1_000_001, "é" * 500_001], ids=["letters", "bytes"])
def test_a_text_that_is_too_large_is_refused_before_it_is_tokenised(rerank, text):
    assert wrong_field(rerank, "q", ["fits", text]) == "documents[1]"
    assert wrong_field(rerank, text, ["fits"]) == "query"
    assert wrong_field(rerank, "q", ["fits"], instruction=text) == "instruction"
    assert rerank("q", [text[:400_000]])


def test_documents_that_pass_fit_the_default_limit_of_clients(limits, rerank):
    overhead = 40
    count = limits.max_rerank_documents
    documents = ["x" * (MAX_REPLY_BYTES // count - overhead)] * count
    assert rerank("q", documents, return_documents=True)
    results = [
        rerank_pb2.RerankResult(index=2**31 - 1, score=0.5, document=text, token_count=2**31 - 1, truncated=True)
        for text in documents
    ]
    assert rerank_pb2.RerankResponse(results=results, model="m" * 200).ByteSize() < GRPC_DEFAULT_BYTES


@pytest.mark.parametrize("encoding", list(VectorEncoding))
@pytest.mark.parametrize("dimensions", [32, 33, 64, 1000, 1024, 2560, 4096])
def test_a_full_reply_of_every_encoding_fits_the_default_limit_of_clients(encoding, dimensions):
    most = max_vectors(
        Limits(max_embed_inputs=10**9, max_rerank_documents=1, max_text_bytes=1_000_000, max_request_tokens=1_000_000),
        dimensions,
        encoding,
    )
    reply = embedding_pb2.EmbedResponse(
        embeddings=[largest_embedding(encoding, dimensions)] * most,
        model="m" * 200,
        model_revision="r" * 64,
        dimensions=dimensions,
        encoding=int(encoding),
        usage=common_pb2.Usage(input_tokens=2**40, computed_tokens=2**40),
        timing=common_pb2.Timing(queue_us=2**40, tokenize_us=2**40, compute_us=2**40, total_us=2**40),
    )
    assert reply.ByteSize() < GRPC_DEFAULT_BYTES
    assert reply.ByteSize() > GRPC_DEFAULT_BYTES * 0.4  # and not much room is wasted


def largest_embedding(encoding, dimensions):
    others = {"token_count": 2**31 - 1, "truncated": True}
    if encoding is VectorEncoding.FLOAT_LIST:
        return embedding_pb2.Embedding(values=[0.5] * dimensions, **others)
    bytes_each = {VectorEncoding.FLOAT32: 4, VectorEncoding.FLOAT16: 2, VectorEncoding.INT8: 1}
    size = -(-dimensions // 8) if encoding is VectorEncoding.BINARY else dimensions * bytes_each[encoding]
    return embedding_pb2.Embedding(packed=b"\x01" * size, scale=0.5, **others)


def test_fewer_vectors_fit_where_they_are_wide(embed, served, catalog_of):
    wide = catalog_of(served("wide", Operation.EMBED, native_dimensions=4096))
    limits = Limits(
        max_embed_inputs=300, max_rerank_documents=1, max_text_bytes=1_000_000, max_request_tokens=1_000_000
    )
    error = refused(embed, ["a"] * 300, in_catalog=wide, under=limits)
    assert "300 where 251 fit" in error.message
    assert embed(["a"] * 300, in_catalog=wide, under=limits, encoding=embedding_pb2.VECTOR_ENCODING_FLOAT16)


def test_a_count_means_the_embedding_model_and_with_a_query_the_reranker(count):
    assert count().model.id == "emb"
    task = count(query="q")
    assert (task.model.id, task.query, task.instruction) == ("rer", "q", DEFAULT_INSTRUCTION)


def test_a_count_follows_the_rules_of_embed_for_instructions(count):
    assert count().instruction is None
    assert count(input_type=embedding_pb2.INPUT_TYPE_QUERY).instruction == DEFAULT_INSTRUCTION
    assert count(instruction="Match").instruction == "Match"
    fields = {"input_type": embedding_pb2.INPUT_TYPE_DOCUMENT, "instruction": "Match"}
    assert wrong_field(count, **fields) == "instruction"


def test_a_count_for_a_reranker_needs_a_query(count):
    assert wrong_field(count, model="rer") == "query"


def test_a_count_for_an_embedding_model_takes_no_query(count):
    assert wrong_field(count, model="emb", query="q") == "query"


def test_a_count_for_a_reranker_takes_no_input_type(count):
    fields = {"query": "q", "input_type": embedding_pb2.INPUT_TYPE_QUERY}
    assert wrong_field(count, **fields) == "input_type"


def test_a_count_refuses_an_empty_instruction_of_a_reranker(count):
    assert wrong_field(count, query="q", instruction="") == "instruction"


@pytest.mark.parametrize(("inputs", "field"), [([], "inputs"), (["a", ""], "inputs[1]"), (["a"] * 11, "inputs")])
def test_a_count_checks_its_inputs(count, inputs, field):
    assert wrong_field(count, inputs) == field


def test_a_count_refuses_an_unknown_input_type(count):
    assert wrong_field(count, input_type=9) == "input_type"


def test_a_count_of_an_unknown_model_is_not_found(count):
    assert refused(count, model="nope").code is grpc.StatusCode.NOT_FOUND


def test_counting_needs_no_worker(served, catalog_of, limits):
    asleep = catalog_of(served("m", Operation.EMBED, Liveness.ABSENT))
    request = tokenizer_pb2.CountTokensRequest(inputs=["a"])
    assert validate_count(request, asleep, limits, caller=ANYBODY).model.id == "m"


def test_tokenize_appends_unless_told_otherwise(catalog, limits):
    def appends(**fields):
        request = tokenizer_pb2.TokenizeRequest(inputs=["a"], **fields)
        return validate_tokenize(request, catalog, limits, caller=ANYBODY).appends

    assert appends()
    assert appends(add_special_tokens=True)
    assert not appends(add_special_tokens=False)


@pytest.mark.parametrize(("inputs", "field"), [([], "inputs"), (["a", " "], "inputs[1]"), (["a"] * 11, "inputs")])
def test_tokenize_checks_its_inputs(catalog, limits, inputs, field):
    request = tokenizer_pb2.TokenizeRequest(inputs=inputs)
    assert wrong_field(validate_tokenize, request, catalog, limits, caller=ANYBODY) == field


def test_get_model_needs_an_id_that_is_served(catalog):
    assert wrong_field(validate_get_model, model_pb2.GetModelRequest(), catalog, caller=ANYBODY) == "id"
    error = refused(validate_get_model, model_pb2.GetModelRequest(id="nope"), catalog, caller=ANYBODY)
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert validate_get_model(model_pb2.GetModelRequest(id="rer"), catalog, caller=ANYBODY).id == "rer"


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_a_page_has_the_asked_size_within_bounds(asked, given):
    assert validate_page_size(model_pb2.ListModelsRequest(page_size=asked)) == given


def test_a_negative_page_size_is_refused():
    assert wrong_field(validate_page_size, model_pb2.ListModelsRequest(page_size=-1)) == "page_size"


def test_an_error_that_lists_models_fits_into_headers_however_many_are_served(embed, served, catalog_of):
    models = catalog_of(*(served(f"{'long' * 20}-{number:04}", Operation.EMBED) for number in range(1000)))
    for error in (refused(embed, in_catalog=models), refused(embed, in_catalog=models, model="none")):
        assert "and 980 more" in error.message + error.metadata.get("served", "")
        assert sum(len(key) + len(value) for key, value in trailing_metadata(error)) < 8000
