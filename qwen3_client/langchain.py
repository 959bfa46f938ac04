"""LangChain's Embeddings and document compressor over the service: `pip install 'qwen3-serve[langchain]'`."""

from collections.abc import Sequence
from typing import Any

from qwen3_client.async_client import AsyncClient
from qwen3_client.client import Client
from qwen3_client.framework_calls import (
    EMBED_OPTIONS,
    RERANK_OPTIONS,
    embedded,
    embedded_async,
    options_of,
    reranked,
    reranked_async,
)
from qwen3_client.options import Priority, Truncation
from qwen3_client.results import RerankHit

try:
    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from pydantic import BaseModel, ConfigDict, Field
except ImportError as error:
    raise ImportError("qwen3_client.langchain needs LangChain: pip install 'qwen3-serve[langchain]'") from error


class Qwen3Embeddings(BaseModel, Embeddings):
    """An embedding model for LangChain's vector stores.

    Queries carry `query_instruction`, or the model's own where it is None. Documents carry none, unless
    `document_instruction` says so, for tasks in which both sides are alike. The other options are those of
    Client.embed, and so are the errors. Async methods use `async_client`, or without one `client` in a thread.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    client: Client = Field(exclude=True)
    async_client: AsyncClient | None = Field(default=None, exclude=True)
    model: str = ""
    query_instruction: str | None = None
    document_instruction: str | None = None
    dimensions: int = 0
    truncation: Truncation = "error"
    priority: Priority | None = None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        return embedded(self.client, texts, self._document_options())

    def embed_query(self, text: str) -> list[float]:
        """The vector of one query."""
        return embedded(self.client, [text], self._query_options())[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        return await embedded_async(self.async_client, self.client, texts, self._document_options())

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of one query."""
        return (await embedded_async(self.async_client, self.client, [text], self._query_options()))[0]

    def _query_options(self) -> dict[str, Any]:
        return self._options() | {"input_type": "query", "instruction": self.query_instruction}

    def _document_options(self) -> dict[str, Any]:
        return self._options() | {"instruction": self.document_instruction}

    def _options(self) -> dict[str, Any]:
        return options_of(self, EMBED_OPTIONS) | {"model": self.model}


class Qwen3Rerank(BaseDocumentCompressor):
    """Keeps the `top_n` documents that fit a query best, all of them for 0, best first.

    Each is a copy with its score in `metadata["relevance_score"]`. The other options are those of Client.rerank, and so
    are the errors. Async methods use `async_client`, or without one `client` in a thread.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    client: Client = Field(exclude=True)
    async_client: AsyncClient | None = Field(default=None, exclude=True)
    model: str = ""
    instruction: str | None = None
    top_n: int = 0
    truncation: Truncation = "error"
    priority: Priority | None = None

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - nothing happens that they could be told
    ) -> Sequence[Document]:
        """The best of them."""
        return _kept(documents, reranked(self.client, query, _contents(documents), self._options()))

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - likewise
    ) -> Sequence[Document]:
        """The same."""
        hits = await reranked_async(self.async_client, self.client, query, _contents(documents), self._options())
        return _kept(documents, hits)

    def _options(self) -> dict[str, Any]:
        return options_of(self, RERANK_OPTIONS)


def _contents(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _kept(documents: Sequence[Document], hits: Sequence[RerankHit]) -> list[Document]:
    return [_scored(documents[hit.index], hit.score) for hit in hits]


def _scored(document: Document, score: float) -> Document:
    return document.model_copy(update={"metadata": document.metadata | {"relevance_score": score}})
