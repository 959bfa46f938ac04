"""Builds requests from what a caller says. No I/O: the sync and the async client share it."""

from collections.abc import Sequence

from qwen3.inference.v1.embedding_pb2 import EmbedConfig, EmbedRequest
from qwen3.inference.v1.rerank_pb2 import RerankRequest
from qwen3.inference.v1.tokenizer_pb2 import CountTokensRequest
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

# One unary call of 64 texts stays under every reply limit: 1 MiB at the widest model's 4096 float32 values.
MAX_TEXTS_PER_CALL = 64


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


def embed_requests(texts: Sequence[str], *, config: EmbedConfig, request_id: str) -> list[EmbedRequest]:
    """One request per 64 texts, in order; one empty request for no texts, since refusing is the server's job."""
    _refuse_single_text("texts", texts)
    starts = range(0, max(len(texts), 1), MAX_TEXTS_PER_CALL)
    return [
        EmbedRequest(config=config, inputs=texts[start : start + MAX_TEXTS_PER_CALL], request_id=request_id)
        for start in starts
    ]


def rerank_request(
    query: str,
    documents: Sequence[str],
    *,
    model: str,
    instruction: str | None,
    top_n: int,
    return_documents: bool,
    truncation: Truncation,
    score_type: ScoreType,
    priority: Priority | None,
    request_id: str,
) -> RerankRequest:
    """One query and its documents. Raises ValueError for a word that no option has."""
    _refuse_single_text("documents", documents)
    return RerankRequest(
        model=model,
        query=query,
        documents=documents,
        instruction=instruction,
        top_n=top_n,
        return_documents=return_documents,
        truncation_policy=value_of("truncation", truncation, TRUNCATIONS),
        score_type=value_of("score_type", score_type, SCORE_TYPES),
        priority=value_of("priority", priority, PRIORITIES),
        request_id=request_id,
    )


def count_tokens_request(
    texts: Sequence[str], *, model: str, input_type: InputType | None, instruction: str | None, query: str
) -> CountTokensRequest:
    """The texts to count, or a reranker's documents with its query."""
    _refuse_single_text("texts", texts)
    return CountTokensRequest(
        model=model,
        inputs=texts,
        instruction=instruction,
        input_type=value_of("input_type", input_type, INPUT_TYPES),
        query=query,
    )


def _refuse_single_text(name: str, texts: Sequence[str]) -> None:
    # A str is a sequence of str: without this, every character would be embedded on its own.
    if isinstance(texts, str):
        raise TypeError(f"{name} must be a list of texts, not one text: [{name!s}]")
