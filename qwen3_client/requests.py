"""Builds requests from what a caller says. No I/O: the sync and the async client share it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Generic, TypeVar

from grpc_health.v1.health_pb2 import HealthCheckRequest

from qwen3.inference.v1.embedding_pb2 import EmbedConfig, EmbedRequest
from qwen3.inference.v1.model_pb2 import ListModelsRequest, ListModelsResponse
from qwen3.inference.v1.rerank_pb2 import RerankRequest
from qwen3.inference.v1.tokenizer_pb2 import CountTokensRequest, TokenizeRequest
from qwen3_client.batches import MAX_DOCUMENTS, MAX_TOKENIZED_BYTES, BatchLimits, call_limits, texts_in_batches
from qwen3_client.options import (
    ENCODINGS,
    INPUT_TYPES,
    PRIORITIES,
    SCORE_TYPES,
    TRUNCATIONS,
    Encoding,
    InputType,
    Priority,
    ScoreType,
    Truncation,
    value_of,
)

MAX_CALLS_IN_FLIGHT = 4  # of one method call whose texts need several
_Request = TypeVar("_Request")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Generic[_Request]):
    """One message of a call that may need several; `first` is the place of its first text among all texts."""

    request: _Request
    first: int


def embed_config(
    *,
    model: str,
    input_type: InputType | None,
    instruction: str | None,
    dimensions: int,
    normalize: bool,
    encoding: Encoding,
    truncation: Truncation,
    priority: Priority | None,
) -> EmbedConfig:
    """How to embed. Raises ValueError for a word that no option has."""
    return EmbedConfig(
        model=model,
        input_type=value_of("input_type", input_type, INPUT_TYPES),
        instruction=instruction,
        dimensions=dimensions,
        normalize=normalize,
        encoding=value_of("encoding", encoding, ENCODINGS),
        truncation_policy=value_of("truncation", truncation, TRUNCATIONS),
        priority=value_of("priority", priority, PRIORITIES),
    )


def refuse_single_text(texts: object, name: str = "texts") -> None:
    """Raises TypeError for a text in place of a list: each of its characters would be a text."""
    if isinstance(texts, str):
        raise TypeError(f"{name} must be a list of texts, not one text")


def list_of_texts(texts: Iterable[str], name: str = "texts") -> list[str]:
    """Raises TypeError as refuse_single_text does."""
    refuse_single_text(texts, name)
    return list(texts)


def embed_request(texts: Sequence[str], *, config: EmbedConfig, request_id: str) -> EmbedRequest | None:
    """The one message for all texts; None where they need more. An empty list is the server's to refuse."""
    batches = list(islice(texts_in_batches(texts, call_limits(config)), 2))
    return EmbedRequest(config=config, inputs=texts, request_id=request_id) if len(batches) < 2 else None


def rerank_parts(
    query: str,
    documents: Sequence[str],
    *,
    model: str,
    instruction: str | None,
    top_n: int,
    truncation: Truncation,
    score_type: ScoreType,
    priority: Priority | None,
    request_id: str,
) -> list[Part[RerankRequest]]:
    """One query and all documents, in order. Raises ValueError for a word that no option has."""
    same = RerankRequest(
        model=model,
        query=query,
        instruction=instruction,
        top_n=top_n,
        truncation_policy=value_of("truncation", truncation, TRUNCATIONS),
        score_type=value_of("score_type", score_type, SCORE_TYPES),
        priority=value_of("priority", priority, PRIORITIES),
        request_id=request_id,
    )
    limits = BatchLimits(max_texts=MAX_DOCUMENTS)

    def with_batch(batch: list[str]) -> RerankRequest:
        request = RerankRequest(documents=batch)
        request.MergeFrom(same)
        return request

    return _parts(documents, limits, with_batch)


def count_tokens_parts(
    texts: Sequence[str], *, model: str, input_type: InputType | None, instruction: str | None, query: str
) -> list[Part[CountTokensRequest]]:
    """The texts to count, or a reranker's documents with its query."""
    same = CountTokensRequest(
        model=model, instruction=instruction, input_type=value_of("input_type", input_type, INPUT_TYPES), query=query
    )

    def with_batch(batch: list[str]) -> CountTokensRequest:
        request = CountTokensRequest(inputs=batch)
        request.MergeFrom(same)
        return request

    return _parts(texts, BatchLimits(max_texts=MAX_DOCUMENTS), with_batch)


def tokenize_parts(texts: Sequence[str], *, model: str, add_special_tokens: bool) -> list[Part[TokenizeRequest]]:
    """The texts to tokenise."""

    def with_batch(batch: list[str]) -> TokenizeRequest:
        return TokenizeRequest(model=model, inputs=batch, add_special_tokens=add_special_tokens)

    return _parts(texts, BatchLimits(max_texts=MAX_DOCUMENTS, max_bytes=MAX_TOKENIZED_BYTES), with_batch)


def next_page(page: ListModelsResponse | None) -> ListModelsRequest | None:
    """The request for the page after this one, for the first one after none; None after the last one."""
    if page is None:
        return ListModelsRequest()
    return ListModelsRequest(page_token=page.next_page_token) if page.next_page_token else None


def health_request(model: str) -> HealthCheckRequest:
    """Of one model, or of the service as a whole."""
    return HealthCheckRequest(service=f"model:{model}" if model else "")


def _parts(
    texts: Sequence[str], limits: BatchLimits, with_batch: Callable[[list[str]], _Request]
) -> list[Part[_Request]]:
    """At least one, since refusing an empty list is the server's job."""
    batches = list(texts_in_batches(texts, limits)) or [[]]
    firsts = accumulate(map(len, batches), initial=0)
    return [Part(request=with_batch(batch), first=first) for batch, first in zip(batches, firsts, strict=False)]
