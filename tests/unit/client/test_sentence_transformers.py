"""What the service is asked for. That the results are the library's is shown in tests/e2e/test_drop_ins.py."""

import subprocess
import sys

import numpy as np
import pytest

from qwen3.inference.v1 import common_pb2, embedding_pb2, rerank_pb2
from qwen3_client import Client, ModelNotFoundError
from qwen3_client.sentence_transformers import CrossEncoder, SentenceTransformer


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


@pytest.fixture
def embedder(client) -> SentenceTransformer:
    return SentenceTransformer("embed", client=client)


@pytest.fixture
def reranker(client) -> CrossEncoder:
    return CrossEncoder("rerank", client=client)


def asked(server):
    return server.requests[-1].config


def test_texts_are_cut_as_by_the_library_and_not_normalised_twice(server, embedder):
    embedder.encode(["a", "b"])
    assert server.requests[-1].inputs == ["a", "b"]
    assert asked(server) == embedding_pb2.EmbedConfig(
        model="embed",
        normalize=True,
        encoding=embedding_pb2.VECTOR_ENCODING_FLOAT32,
        truncation_policy=common_pb2.TRUNCATION_POLICY_END,
    )


def test_truncation_and_priority_are_a_models_settings(server, client):
    settings = {"client": client, "truncation": "error", "priority": "bulk"}
    embedder, reranker = SentenceTransformer("embed", **settings), CrossEncoder("rerank", **settings)
    embedder.encode("a")
    reranker.predict(("q", "d"))
    for asked_for in (server.requests[-2].config, server.requests[-1]):
        assert asked_for.truncation_policy == common_pb2.TRUNCATION_POLICY_ERROR
        assert asked_for.priority == common_pb2.PRIORITY_BULK


@pytest.mark.parametrize(
    ("options", "instruction"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"prompt": ""}, None, id="empty"),
        pytest.param({"prompt_name": "document"}, None, id="a document's"),
        pytest.param({"prompt_name": "query"}, "Find it", id="a query's"),
        pytest.param({"prompt": "Instruct: Find\nQuery: x\nQuery:"}, "Find\nQuery: x", id="one's own"),
    ],
)
def test_a_prompt_becomes_an_instruction(options, instruction, server, embedder):
    embedder.encode(["a"], **options)
    assert server.requests[-1].inputs == ["a"]
    assert asked(server).HasField("instruction") == (instruction is not None)
    assert asked(server).instruction == (instruction or "")


@pytest.mark.parametrize("prompt", ["Query: ", "Instruct: Find\nQuery: ", "Instruct: \nQuery:", "Instruct: Find", " "])
def test_a_prompt_that_the_model_does_not_know_is_refused(prompt, embedder):
    with pytest.raises(ValueError, match="prompt must be"):
        embedder.encode(["a"], prompt=prompt)


def test_one_prompt_is_given_at_most(embedder, reranker):
    for call in (embedder.encode, embedder.encode_query, reranker.predict):
        with pytest.raises(ValueError, match="prompt or prompt_name, not both"):
            call([], prompt="x", prompt_name="query")


@pytest.mark.parametrize(
    ("options", "dimensions"),
    [
        ({"truncate_dim": 64}, 0),  # the library cuts the whole width's unit vectors
        ({"truncate_dim": 64, "normalize_embeddings": True}, 64),
        ({"truncate_dim": 4096, "normalize_embeddings": True}, 1024),
    ],
)
def test_the_service_cuts_vectors_where_the_result_is_the_same(options, dimensions, server, embedder):
    embedder.encode(["a"], **options)
    assert asked(server).dimensions == dimensions


def test_with_a_progress_bar_texts_go_over_a_stream(server, embedder, capsys):
    vectors = embedder.encode([chr(ord("a") + index % 26) for index in range(100)], show_progress_bar=True)
    assert vectors[:, 0].tolist() == [ord("a") + index % 26 for index in range(100)]
    assert server.streams == [[0, 1]]
    assert "100%" in capsys.readouterr().err


def test_pairs_of_one_query_go_together_and_scores_keep_their_order(server, reranker, capsys):
    pairs = [("q", "aaa"), ("r", "a"), ("q", "a"), ("r", "aaaa"), ("s", "aa"), ("q", "aaa")]
    scores = reranker.predict(pairs, show_progress_bar=True)
    assert scores.tolist() == pytest.approx([1 / (1 + len(document)) for _, document in pairs])
    assert "100%" in capsys.readouterr().err
    calls = {request.query: request for request in server.requests if isinstance(request, rerank_pb2.RerankRequest)}
    assert {query: list(call.documents) for query, call in calls.items()} == {
        "q": ["aaa", "a", "aaa"],
        "r": ["a", "aaaa"],
        "s": ["aa"],
    }
    assert calls["q"].truncation_policy == common_pb2.TRUNCATION_POLICY_END
    assert calls["q"].score_type == rerank_pb2.SCORE_TYPE_PROBABILITY


def test_a_rerankers_prompt_is_its_instruction(server, client):
    reranker = CrossEncoder("rerank", client=client, prompts={"code": "Find code"}, default_prompt_name="code")
    for options, instruction in ({}, "Find code"), ({"prompt": "Find"}, "Find"), ({"prompt": ""}, None):
        reranker.predict(("q", "d"), **options)
        assert server.requests[-1].HasField("instruction") == (instruction is not None)
        assert server.requests[-1].instruction == (instruction or "")


def test_sentences_may_be_given_by_their_old_name(embedder, reranker):
    assert embedder.encode(sentences=["a"]).shape == (1, 4)
    assert reranker.predict(sentences=[("q", "d")]).shape == (1,)
    for given in ({}, {"inputs": ["a"], "sentences": ["a"]}):
        with pytest.raises(TypeError, match="inputs, or sentences"):
            embedder.encode(**given)


@pytest.mark.parametrize("inputs", [{"text": "a"}, [{"text": "a"}], [1], [b"a"]], ids=str)
def test_nothing_but_texts_is_embedded(inputs, embedder):
    with pytest.raises(TypeError, match="texts"):
        embedder.encode(inputs)


@pytest.mark.parametrize("inputs", [{"q": "d"}, [("q", "d", "e")], [("q", 1)], ["q", "d", "e"], ["q"], "qd"], ids=str)
def test_nothing_but_pairs_of_texts_is_scored(inputs, reranker):
    with pytest.raises(TypeError, match="texts"):
        reranker.predict(inputs)


def test_no_name_is_the_default_model(client, server):
    SentenceTransformer(client=client).encode("a")
    assert asked(server).model == "embed"


def test_a_model_that_is_not_served_is_told_at_once(client):
    with pytest.raises(ModelNotFoundError, match="no embedding model other is served, but embed"):
        SentenceTransformer("other", client=client)
    with pytest.raises(ModelNotFoundError, match="no default rerank model is served, but rerank"):
        CrossEncoder(client=client)


@pytest.mark.parametrize("settings", [{"default_prompt_name": "clustering"}, {"similarity_fn_name": "maxsim"}], ids=str)
def test_settings_that_do_not_exist_are_refused(settings, client):
    with pytest.raises(ValueError, match=next(iter(settings))):
        SentenceTransformer("embed", client=client, **settings)


def test_torch_is_not_needed_but_for_tensors(embedder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    vectors = embedder.encode(["a", "b"])
    assert embedder.similarity(vectors, vectors).dtype == np.float32
    with pytest.raises(ImportError, match="pip install torch"):
        embedder.encode(["a"], convert_to_tensor=True)


def test_neither_torch_nor_the_library_is_imported():
    code = (
        "import sys, qwen3_client.sentence_transformers; print({'torch', 'sentence_transformers'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.parametrize(
    ("adapter", "package", "extra"),
    [("langchain", "langchain_core", "langchain"), ("llama_index", "llama_index.core", "llama-index")],
)
def test_an_adapter_says_what_to_install(adapter, package, extra):
    code = f"import sys; sys.modules[{package!r}] = None; import qwen3_client.{adapter}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'qwen3-serve[{extra}]'" in done.stderr
