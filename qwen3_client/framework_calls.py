"""Calls as LangChain and LlamaIndex make them: empty lists are answered here, vectors are lists of floats."""

import asyncio
from collections.abc import Sequence
from typing import Any

from qwen3_client.async_client import AsyncClient
from qwen3_client.client import Client
from qwen3_client.results import EmbedResult, RerankHit

EMBED_OPTIONS = ("dimensions", "truncation", "priority")
RERANK_OPTIONS = ("model", "instruction", "top_n", "truncation", "priority")


def options_of(adapter: object, names: Sequence[str]) -> dict[str, Any]:
    """Those of an adapter's attributes that are options of the client's method, by name."""
    return {name: getattr(adapter, name) for name in names}


def embedded(client: Client, texts: Sequence[str], options: dict[str, Any]) -> list[list[float]]:
    """A vector for each text; `options` are those of Client.embed."""
    return _lists(client.embed(texts, **options)) if texts else []


async def embedded_async(
    async_client: AsyncClient | None, client: Client, texts: Sequence[str], options: dict[str, Any]
) -> list[list[float]]:
    """The same; without an `async_client` by the other one, in a thread."""
    if async_client is None:
        return await asyncio.to_thread(embedded, client, texts, options)
    return _lists(await async_client.embed(texts, **options)) if texts else []


def reranked(client: Client, query: str, documents: Sequence[str], options: dict[str, Any]) -> list[RerankHit]:
    """Best first; `options` are those of Client.rerank."""
    return client.rerank(query, documents, **options) if documents else []


async def reranked_async(
    async_client: AsyncClient | None, client: Client, query: str, documents: Sequence[str], options: dict[str, Any]
) -> list[RerankHit]:
    """The same; without an `async_client` by the other one, in a thread."""
    if async_client is None:
        return await asyncio.to_thread(reranked, client, query, documents, options)
    return await async_client.rerank(query, documents, **options) if documents else []


def _lists(result: EmbedResult) -> list[list[float]]:
    lists: list[list[float]] = result.vectors.tolist()
    return lists
