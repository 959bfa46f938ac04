"""Bad input is refused by name, before any work, and harms nobody else."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from safetensors.torch import load_file, save_file

from qwen3.inference.v1 import common_pb2, embedding_pb2, model_pb2, rerank_pb2, tokenizer_pb2
from tests.support.processes import gateway, worker
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import TIMEOUT_S, Stubs, refusal

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def refused(call, *arguments, **fields):
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **fields)
    return refusal(error.value)


@pytest.mark.parametrize(
    ("texts", "config", "field"),
    [
        pytest.param([], {}, "inputs", id="no texts"),
        pytest.param([""], {}, "inputs[0]", id="an empty text"),
        pytest.param(["a", " \n\t\u3000"], {}, "inputs[1]", id="white space only"),
        pytest.param(["a"] * 257, {}, "inputs", id="too many texts"),
        pytest.param(["a", "a " * 40_000], {}, "inputs[1]", id="too long under ERROR"),
        pytest.param(["a", "a " * 600_000], {"truncation_policy": 2}, "inputs[1]", id="too large to be cut"),
        pytest.param(["a"], {"dimensions": 1}, "config.dimensions", id="1 dimension"),
        pytest.param(["a"], {"dimensions": 31}, "config.dimensions", id="31 dimensions"),
        pytest.param(["a"], {"dimensions": 129}, "config.dimensions", id="too many dimensions"),
        pytest.param(["a"], {"dimensions": -1}, "config.dimensions", id="negative dimensions"),
        pytest.param(["a"], {"encoding": 77}, "config.encoding", id="an unknown encoding"),
        pytest.param(["a"], {"input_type": 9}, "config.input_type", id="an unknown input type"),
        pytest.param(["a"], {"truncation_policy": -3}, "config.truncation_policy", id="an unknown policy"),
        pytest.param(["a"], {"priority": 4}, "config.priority", id="an unknown priority"),
        pytest.param(["a"], {"instruction": "x", "input_type": 2}, "config.instruction", id="a document's instruction"),
        pytest.param(["a"], {"model": "tiny-rerank"}, "config.model", id="a reranker asked to embed"),
    ],
)
def test_embed_names_the_field_at_fault(texts, config, field, stubs):
    error = refused(stubs.embed, texts, **config)
    assert (error.code, error.field) == (INVALID, field)
    assert error.reason in {"INVALID_FIELD", "WRONG_TASK"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        pytest.param({"query": ""}, "query", id="no query"),
        pytest.param({"documents": []}, "documents", id="no documents"),
        pytest.param({"documents": ["a", " "]}, "documents[1]", id="an empty document"),
        pytest.param({"documents": ["a"] * 1001}, "documents", id="too many documents"),
        pytest.param({"documents": ["a " * 40_000]}, "documents[0]", id="too long under ERROR"),
        pytest.param({"query": "a " * 40_000}, "query", id="a query that leaves no room for a document"),
        pytest.param(
            {"query": "a " * 40_000, "truncation_policy": common_pb2.TRUNCATION_POLICY_END},
            "query",
            id="the same where documents may be cut",
        ),
        pytest.param({"instruction": ""}, "instruction", id="an empty instruction"),
        pytest.param({"top_n": -1}, "top_n", id="a negative top_n"),
        pytest.param({"top_n": 1, "order": rerank_pb2.RERANK_ORDER_INPUT}, "order", id="input order with top_n"),
        pytest.param({"order": 7}, "order", id="an unknown order"),
        pytest.param({"score_type": 7}, "score_type", id="an unknown score type"),
        pytest.param({"model": "tiny-embedding"}, "model", id="an embedding model asked to rerank"),
        pytest.param(
            {"documents": ["x" * 1_000_000] * 5, "return_documents": True}, "return_documents", id="a reply over 4 MiB"
        ),
    ],
)
def test_rerank_names_the_field_at_fault(fields, field, stubs):
    error = refused(stubs.rerank_documents, **{"query": "q", "documents": ["d"]} | fields)
    assert (error.code, error.field) == (INVALID, field)


def test_a_text_that_is_too_long_is_told_its_length_and_the_limit(stubs):
    error = refused(stubs.embed, ["a " * 40_000])
    assert "32768" in error.message
    assert "40002" in error.message


def test_an_unknown_model_is_not_found_and_the_served_ones_are_named(stubs):
    error = refused(stubs.embed, ["a"], model="nobody/knows-me")
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert error.metadata["served"] == "tiny-embedding,tiny-rerank"


@pytest.mark.parametrize("request_id", ["x" * 200, "Größe", "a\nb"], ids=["200 characters", "not ASCII", "a newline"])
def test_a_bad_request_id_is_refused(request_id, stubs):
    error = refused(stubs.embed, ["a"], request_id=request_id)
    assert (error.code, error.field) == (INVALID, "request_id")
    assert error.trailers["x-request-id"] != request_id


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("EmbeddingService/Embed", embedding_pb2.EmbedRequest(inputs=["AAAA"])),
        ("RerankService/Rerank", rerank_pb2.RerankRequest(query="AAAA")),
        ("TokenizerService/CountTokens", tokenizer_pb2.CountTokensRequest(inputs=["AAAA"])),
        ("TokenizerService/Tokenize", tokenizer_pb2.TokenizeRequest(inputs=["AAAA"])),
        ("ModelService/GetModel", model_pb2.GetModelRequest(id="AAAA")),
    ],
)
def test_invalid_utf8_on_the_wire_is_the_callers_mistake(method, message, stubs):
    bad = message.SerializeToString().replace(b"AAAA", b"A\xff\xfeA")
    call = stubs.channel.unary_unary(f"/qwen3.inference.v1.{method}")
    error = refused(call, bad, timeout=TIMEOUT_S)
    assert (error.code, error.reason) == (INVALID, "MALFORMED_REQUEST")


def test_a_reply_that_would_not_fit_a_client_is_refused_before_any_work(redis_url, address):
    """At 128 dimensions in float32, 7,589 vectors fit into 4 MiB less 64 KiB; smaller encodings leave room for more."""
    with gateway(redis_url, "--max-embed-inputs", "8000") as (_, of_many):
        stubs = Stubs(of_many)
        error = refused(stubs.embed, ["a"] * 7590)
        assert (error.code, error.field) == (INVALID, "inputs")
        assert "7589" in error.message
        assert len(stubs.embed(["a"] * 7589).embeddings) == 7589
        assert len(stubs.embed(["a"] * 8000, encoding=embedding_pb2.VECTOR_ENCODING_FLOAT16).embeddings) == 8000
        stubs.channel.close()


@pytest.fixture(scope="module")
def broken_checkpoint(embedding_checkpoint, tmp_path_factory) -> Path:
    """A checkpoint with a NaN in the embedding of one token, that of ` broken`."""
    folder = tmp_path_factory.mktemp("nan") / "nan"
    shutil.copytree(embedding_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "embed_tokens" in name)
    weights[name][10865] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def broken(broken_checkpoint) -> Iterator[Stubs]:
    with (
        redis_server(embedded_binary()) as redis_url,
        worker(redis_url, broken_checkpoint) as _,
        gateway(redis_url) as (_, address),
    ):
        stubs = Stubs(address)
        yield stubs
        stubs.channel.close()


def test_nan_weights_give_an_error_and_never_a_vector(broken):
    request = tokenizer_pb2.TokenizeRequest(inputs=[" broken"], add_special_tokens=False)
    assert list(broken.tokenizer.Tokenize(request).sequences[0].ids) == [10865]
    error = refused(broken.embed, ["whole", "a broken one", "whole again"])
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "NON_FINITE_RESULT")
    assert "inputs[1]" in error.message
    assert len(broken.embed(["whole", "whole again"]).embeddings) == 2
