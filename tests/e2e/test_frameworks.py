"""LangChain's and LlamaIndex' own vector stores find, over the service, what the client finds by itself."""

from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from qwen3_client import AsyncClient, Client, langchain, llama_index

TEXTS = [
    "The capital of China is Beijing.",
    "Gravity attracts two bodies.",
    "def f(x):\n\treturn x",
    "🚀 to the 🌕!!",
    "x",
]
QUERY = "What is the capital of China?"
INSTRUCTION = "Find what is like it"


@pytest.fixture(scope="module")
def client(address) -> Iterator[Client]:
    with Client(address) as found:
        yield found


@pytest.fixture(params=["with an async client", "in a thread"])
async def clients(request, address, client) -> AsyncIterator[dict[str, Client | AsyncClient]]:
    """For async methods. Beside an async client the other one is not used: it is closed."""
    if request.param == "in a thread":
        yield {"client": client}
        return
    closed = Client(address)
    closed.close()
    async with AsyncClient(address) as async_client:
        yield {"client": closed, "async_client": async_client}


@pytest.fixture(scope="module")
def found(client) -> list[tuple[str, float]]:
    """The nearest three texts and their cosines."""
    query = client.embed([QUERY], input_type="query", instruction=INSTRUCTION, dimensions=64).vectors[0]
    scores = client.embed(TEXTS, dimensions=64).vectors @ query
    return [(TEXTS[place], scores[place]) for place in np.argsort(-scores)[:3]]


@pytest.fixture(scope="module")
def reranked(client, found) -> list[tuple[str, float]]:
    """The best two of these and their scores."""
    texts = [text for text, _ in found]
    return [(texts[hit.index], hit.score) for hit in client.rerank(QUERY, texts, instruction=INSTRUCTION, top_n=2)]


def assert_same(ours, theirs):
    assert [text for text, _ in ours] == [text for text, _ in theirs]
    assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-6)


def documents(scored):
    return [(document.page_content, score) for document, score in scored]


def compressed(kept):
    return [(document.page_content, document.metadata["relevance_score"]) for document in kept]


def nodes(scored):
    return [(node.node.get_content(), node.score) for node in scored]


def test_langchain_finds_and_reranks(client, found, reranked):
    embeddings = langchain.Qwen3Embeddings(client=client, query_instruction=INSTRUCTION, dimensions=64)
    store = InMemoryVectorStore(embeddings)
    store.add_texts(TEXTS, metadatas=[{"place": place} for place in range(len(TEXTS))])
    hits = store.similarity_search_with_score(QUERY, k=3)
    assert_same(documents(hits), found)
    reranker = langchain.Qwen3Rerank(client=client, instruction=INSTRUCTION, top_n=2)
    kept = reranker.compress_documents([document for document, _ in hits], QUERY)
    assert_same(compressed(kept), reranked)
    assert [TEXTS[document.metadata["place"]] for document in kept] == [text for text, _ in reranked]
    assert all("relevance_score" not in document.metadata for document, _ in hits)


async def test_langchain_finds_and_reranks_without_blocking(clients, found, reranked):
    store = InMemoryVectorStore(langchain.Qwen3Embeddings(**clients, query_instruction=INSTRUCTION, dimensions=64))
    await store.aadd_texts(TEXTS)
    hits = await store.asimilarity_search_with_score(QUERY, k=3)
    assert_same(documents(hits), found)
    reranker = langchain.Qwen3Rerank(**clients, instruction=INSTRUCTION, top_n=2)
    kept = await reranker.acompress_documents([document for document, _ in hits], QUERY)
    assert_same(compressed(kept), reranked)


def test_llama_index_finds_and_reranks(client, found, reranked):
    embedding = llama_index.Qwen3Embedding(client=client, query_instruction=INSTRUCTION, dimensions=64)
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=embedding)
    hits = index.as_retriever(similarity_top_k=3).retrieve(QUERY)
    assert_same(nodes(hits), found)
    reranker = llama_index.Qwen3Rerank(client=client, instruction=INSTRUCTION, top_n=2)
    assert_same(nodes(reranker.postprocess_nodes(hits, query_str=QUERY)), reranked)
    assert_same(nodes(hits), found)


async def test_llama_index_finds_and_reranks_without_blocking(clients, found, reranked):
    embedding = llama_index.Qwen3Embedding(**clients, query_instruction=INSTRUCTION, dimensions=64)
    index = VectorStoreIndex([], embed_model=embedding)
    await index.ainsert_nodes([TextNode(text=text) for text in TEXTS])
    hits = await index.as_retriever(similarity_top_k=3).aretrieve(QUERY)
    assert_same(nodes(hits), found)
    reranker = llama_index.Qwen3Rerank(**clients, instruction=INSTRUCTION, top_n=2)
    assert_same(nodes(await reranker.apostprocess_nodes(hits, query_str=QUERY)), reranked)
