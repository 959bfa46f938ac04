"""LlamaIndex' embedding model and node postprocessor over the service: `pip install 'qwen3-serve[llama-index]'`."""

from collections.abc import Sequence
from typing import Any

from qwen3_client.async_client import AsyncClient
from qwen3_client.batches import MAX_CALL_TEXTS
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
    from llama_index.core.bridge.pydantic import ConfigDict, Field
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
except ImportError as error:
    raise ImportError("qwen3_client.llama_index needs LlamaIndex: pip install 'qwen3-serve[llama-index]'") from error


class Qwen3Embedding(BaseEmbedding):
    """An embedding model for LlamaIndex' indices; `model_name` is the id, or "" for the service's default.

    Queries carry `query_instruction`, or the model's own where it is None. Texts carry none, unless `text_instruction`
    says so, for tasks in which both sides are alike. The other options are those of Client.embed, and so are the
    errors. Async methods use `async_client`, or without one `client` in a thread.
    """

    model_config = ConfigDict(extra="forbid")

    client: Client = Field(exclude=True)
    async_client: AsyncClient | None = Field(default=None, exclude=True)
    model_name: str = ""
    embed_batch_size: int = Field(default=MAX_CALL_TEXTS, gt=0)
    query_instruction: str | None = None
    text_instruction: str | None = None
    dimensions: int = 0
    truncation: Truncation = "error"
    priority: Priority | None = None

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex writes into what it stores."""
        return "Qwen3Embedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return embedded(self.client, [query], self._query_options())[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return embedded(self.client, texts, self._text_options())

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await embedded_async(self.async_client, self.client, [query], self._query_options()))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await embedded_async(self.async_client, self.client, texts, self._text_options())

    def _query_options(self) -> dict[str, Any]:
        return self._options() | {"input_type": "query", "instruction": self.query_instruction}

    def _text_options(self) -> dict[str, Any]:
        return self._options() | {"instruction": self.text_instruction}

    def _options(self) -> dict[str, Any]:
        return options_of(self, EMBED_OPTIONS) | {"model": self.model_name}


class Qwen3Rerank(BaseNodePostprocessor):
    """Keeps the `top_n` nodes that fit a query best, all of them for 0, best first and with the reranker's scores.

    The other options are those of Client.rerank, and so are the errors. Async methods use `async_client`, or without
    one `client` in a thread.
    """

    model_config = ConfigDict(extra="forbid")

    client: Client = Field(exclude=True)
    async_client: AsyncClient | None = Field(default=None, exclude=True)
    model: str = ""
    instruction: str | None = None
    top_n: int = 0
    truncation: Truncation = "error"
    priority: Priority | None = None

    @classmethod
    def class_name(cls) -> str:
        """What LlamaIndex writes into what it stores."""
        return "Qwen3Rerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        hits = reranked(self.client, _query(query_bundle), _contents(nodes), self._options())
        return _kept(nodes, hits)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        hits = await reranked_async(self.async_client, self.client, query, _contents(nodes), self._options())
        return _kept(nodes, hits)

    def _options(self) -> dict[str, Any]:
        return options_of(self, RERANK_OPTIONS)


def _query(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None:
        raise ValueError("nodes are reranked for a query: give query_bundle or query_str")
    return query_bundle.query_str


def _contents(nodes: Sequence[NodeWithScore]) -> list[str]:
    """As they were embedded: with the metadata that a node does not keep from embedding models."""
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def _kept(nodes: Sequence[NodeWithScore], hits: Sequence[RerankHit]) -> list[NodeWithScore]:
    return [NodeWithScore(node=nodes[hit.index].node, score=hit.score) for hit in hits]
