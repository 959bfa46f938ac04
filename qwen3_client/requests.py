"""Builds requests from what a caller says. No I/O: the sync and the async client share it."""

import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, TypedDict, TypeVar

from grpc_health.v1.health_pb2 import HealthCheckRequest

from qwen3.inference.v1.embedding_pb2 import EmbedConfig, EmbedRequest
from qwen3.inference.v1.model_pb2 import ListModelsRequest, ListModelsResponse
from qwen3.inference.v1.rerank_pb2 import RerankRequest
from qwen3.inference.v1.tokenizer_pb2 import CountTokensRequest, TokenizeRequest
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
_MAX_TIMEOUT_S = 1e8  # three years: beyond, clocks overflow
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,128}")

_Request = TypeVar("_Request")
ToRequest: TypeAlias = Callable[[Sequence[str]], _Request]
"""The message for some of a call's texts, which may need several."""


class CallOptions(TypedDict):
    """What grpc is told of a message, each anew: seconds, and headers with the token of the moment."""

    timeout: float
    metadata: tuple[tuple[str, str], ...]


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


def known_request_id(request_id: str) -> str:
    """The same, or one of our own for none. Raises ValueError for what no server takes."""
    if request_id and not _REQUEST_ID.fullmatch(request_id):
        raise ValueError("request_id must be at most 128 printable ASCII characters")
    return request_id or secrets.token_hex(16)


def known_timeout_s(timeout_s: float) -> float:
    """The same, in s. Raises ValueError for one that no clock counts: infinity, or no number."""
    if not timeout_s <= _MAX_TIMEOUT_S:
        raise ValueError(f"timeout_s must be at most {_MAX_TIMEOUT_S:.0f} seconds, not {timeout_s}")
    return timeout_s


def embed_request(config: EmbedConfig, *, request_id: str) -> ToRequest[EmbedRequest]:
    """Texts to embed."""
    return lambda texts: EmbedRequest(config=config, inputs=texts, request_id=request_id)


def rerank_request(
    query: str,
    *,
    model: str,
    instruction: str | None,
    top_n: int,
    truncation: Truncation,
    score_type: ScoreType,
    priority: Priority | None,
    request_id: str,
) -> ToRequest[RerankRequest]:
    """Documents to score. Raises ValueError for a word that no option has."""
    truncation_value = value_of("truncation", truncation, TRUNCATIONS)
    score_type_value = value_of("score_type", score_type, SCORE_TYPES)
    priority_value = value_of("priority", priority, PRIORITIES)
    return lambda documents: RerankRequest(
        model=model,
        query=query,
        documents=documents,
        instruction=instruction,
        top_n=top_n,
        truncation_policy=truncation_value,
        score_type=score_type_value,
        priority=priority_value,
        request_id=request_id,
    )


def count_tokens_request(
    *, model: str, input_type: InputType | None, instruction: str | None, query: str
) -> ToRequest[CountTokensRequest]:
    """Texts to count, or a reranker's documents with its query. Raises ValueError for a word that no option has."""
    input_type_value = value_of("input_type", input_type, INPUT_TYPES)
    return lambda texts: CountTokensRequest(
        model=model, inputs=texts, instruction=instruction, input_type=input_type_value, query=query
    )


def tokenize_request(*, model: str, add_special_tokens: bool) -> ToRequest[TokenizeRequest]:
    """Texts to tokenise."""
    return lambda texts: TokenizeRequest(model=model, inputs=texts, add_special_tokens=add_special_tokens)


def next_page(page: ListModelsResponse | None) -> ListModelsRequest | None:
    """The request for the page after this one, for the first one after none; None after the last one."""
    if page is None:
        return ListModelsRequest()
    return ListModelsRequest(page_token=page.next_page_token) if page.next_page_token else None


def health_request(model: str) -> HealthCheckRequest:
    """Of one model, or of the service as a whole."""
    return HealthCheckRequest(service=f"model:{model}" if model else "")
