"""What LangChain's and LlamaIndex' parts ask for. What they find is shown in tests/e2e/test_frameworks.py."""

import pytest
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import ValidationError

from qwen3.inference.v1 import common_pb2, embedding_pb2, rerank_pb2
from qwen3_client import Client, langchain, llama_index

COMMON = {"truncation": "start", "priority": "bulk"}
RERANK = {"model": "rerank", "instruction": "Judge", "top_n": 2, **COMMON}
ASKED = {"truncation_policy": common_pb2.TRUNCATION_POLICY_START, "priority": common_pb2.PRIORITY_BULK}
TEXTS = ["aaa", "a", "aa"]


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


@pytest.fixture
def embeddings(client):
    """One of each framework, both as functions of a query and of documents."""
    options = {"client": client, "dimensions": 64, "query_instruction": "Find", **COMMON}
    lang = langchain.Qwen3Embeddings(model="embed", document_instruction="Store", **options)
    llama = llama_index.Qwen3Embedding(model_name="embed", text_instruction="Store", **options)
    return [(lang.embed_query, lang.embed_documents), (llama.get_query_embedding, llama.get_text_embedding_batch)]


def test_every_option_of_embeddings_reaches_the_service(server, embeddings):
    config = {
        "model": "embed",
        "dimensions": 64,
        "normalize": True,
        "encoding": embedding_pb2.VECTOR_ENCODING_FLOAT32,
        **ASKED,
    }
    query = embedding_pb2.EmbedConfig(input_type=embedding_pb2.INPUT_TYPE_QUERY, instruction="Find", **config)
    document = embedding_pb2.EmbedConfig(instruction="Store", **config)
    for embed_query, embed_documents in embeddings:
        assert embed_query("q") == [ord("q"), 1, 2, 3]
        assert embed_documents(["a", "b"]) == [[ord("a"), 1, 2, 3], [ord("b"), 1, 2, 3]]
        assert [(list(request.inputs), request.config) for request in server.requests[-2:]] == [
            (["q"], query),
            (["a", "b"], document),
        ]


def test_every_option_of_a_reranker_reaches_the_service(server, client):
    found = langchain.Qwen3Rerank(client=client, **RERANK).compress_documents(
        [Document(page_content=text) for text in TEXTS], "q"
    )
    assert [document.page_content for document in found] == ["a", "aa"]
    nodes = llama_index.Qwen3Rerank(client=client, **RERANK).postprocess_nodes(
        [NodeWithScore(node=TextNode(text=text)) for text in TEXTS], query_str="q"
    )
    assert [node.text for node in nodes] == ["a", "aa"]
    asked = rerank_pb2.RerankRequest(
        model="rerank",
        query="q",
        documents=TEXTS,
        instruction="Judge",
        top_n=2,
        score_type=rerank_pb2.SCORE_TYPE_PROBABILITY,
        **ASKED,
    )
    for request in server.requests:
        request.ClearField("request_id")  # the client's own
    assert server.requests == [asked, asked]


def test_a_node_is_judged_with_what_it_was_embedded_with(server, client):
    node = TextNode(text="text", metadata={"title": "T", "id": 7}, excluded_embed_metadata_keys=["id"])
    llama_index.Qwen3Rerank(client=client).postprocess_nodes([NodeWithScore(node=node)], query_str="q")
    assert server.requests[-1].documents == ["title: T\n\ntext"]


def test_nothing_is_asked_for_nothing(server, client, embeddings):
    assert [embed_documents([]) for _, embed_documents in embeddings] == [[], []]
    assert langchain.Qwen3Rerank(client=client).compress_documents([], "q") == []
    assert llama_index.Qwen3Rerank(client=client).postprocess_nodes([], query_str="q") == []
    assert server.requests == []


@pytest.mark.parametrize(
    "part",
    [langchain.Qwen3Embeddings, langchain.Qwen3Rerank, llama_index.Qwen3Embedding, llama_index.Qwen3Rerank],
    ids=lambda part: f"{part.__module__}.{part.__name__}",
)
@pytest.mark.parametrize("option", [{"instructions": "Find"}, {"truncation": "middle"}, {"priority": 1}], ids=str)
def test_options_that_do_not_exist_are_refused_by_name(part, option, client):
    with pytest.raises(ValidationError, match=next(iter(option))):
        part(client=client, **option)


def test_nodes_are_not_reranked_without_a_query(client):
    with pytest.raises(ValueError, match="query_str"):
        llama_index.Qwen3Rerank(client=client).postprocess_nodes([NodeWithScore(node=TextNode(text="a"))])


def test_what_llama_index_stores_has_the_options_and_no_client(client):
    """Its caches go by it: other options must be other keys."""
    stored = llama_index.Qwen3Embedding(client=client, dimensions=64, text_instruction="Store").to_dict()
    assert stored["class_name"] == "Qwen3Embedding"
    assert (stored["dimensions"], stored["text_instruction"]) == (64, "Store")
    assert not {"client", "async_client"} & set(stored)
    assert llama_index.Qwen3Rerank(client=client).to_dict()["class_name"] == "Qwen3Rerank"
