"""Decodes responses into what a caller gets. No I/O: the sync and the async client share it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3.inference.v1.embedding_pb2 import Embedding, EmbedResponse, VectorEncoding
from qwen3.inference.v1.model_pb2 import Model
from qwen3.inference.v1.rerank_pb2 import RerankRequest, RerankResponse
from qwen3.inference.v1.tokenizer_pb2 import CountTokensResponse, TokenizeResponse
from qwen3_client.errors import RevisionChangedError
from qwen3_client.options import ENCODINGS, MODEL_STATES, MODEL_TASKS, word_of
from qwen3_client.requests import Part


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbedResult:
    """Vectors of n texts, in the order of the texts.

    `vectors` is a float32 or float16 array (n, dimensions), as asked; for "int8" an int8 array (n, dimensions)
    to be multiplied with `scales[:, None]`; for "binary" a uint8 array (n, ceil(dimensions / 8)) of sign bits,
    most significant first, as numpy.unpackbits reads them. qwen3_client.scoring compares vectors of any encoding.
    """

    vectors: NDArray[Any]
    scales: NDArray[np.float32] | None  # (n,), for "int8" only
    dimensions: int
    token_counts: tuple[int, ...]
    truncated: tuple[bool, ...]
    model: str
    model_revision: str

    def as_float32(self) -> NDArray[np.float32]:
        """(n, dimensions) float32, whatever came over the wire. Raises ValueError for "binary", which has no values."""
        if self.vectors.dtype == np.uint8:
            raise ValueError("binary vectors have signs only: compare them with qwen3_client.scoring.hamming")
        vectors = self.vectors.astype(np.float32, copy=False)
        return vectors if self.scales is None else vectors * self.scales[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankHit:
    """One scored document: `index` is its position in the request."""

    index: int
    score: float
    document: str | None
    token_count: int
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """Tokens each text would be charged, template included."""

    token_counts: tuple[int, ...]
    total_tokens: int
    max_input_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequence:
    """Token ids of a text; token i stands for its code points `starts[i]` to `ends[i]`."""

    ids: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One served model. Widths are 0 and encodings empty for a reranker."""

    id: str
    task: str
    revision: str
    state: str
    native_dimensions: int
    min_dimensions: int
    max_input_tokens: int
    max_batch_inputs: int
    encodings: tuple[str, ...]
    default_instruction: str
    default_for_task: bool


class HealthStatus(StrEnum):
    """What the server says of itself or of one model."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"


def check_same_revision(first: EmbedResponse, other: EmbedResponse) -> None:
    """Raises RevisionChangedError if two models' vectors would be mixed."""
    if other.model_revision != first.model_revision:
        raise RevisionChangedError(
            f"{first.model} changed its revision during the call, so the vectors cannot be compared: embed again",
            code="ABORTED",
        )


def decode_embeddings(response: EmbedResponse) -> EmbedResult:
    """A response's vectors."""
    embeddings = response.embeddings
    is_int8 = response.encoding == ENCODINGS["int8"]
    return EmbedResult(
        vectors=_DECODERS[response.encoding](embeddings),
        scales=np.array([embedding.scale for embedding in embeddings], dtype=np.float32) if is_int8 else None,
        dimensions=response.dimensions,
        token_counts=tuple(embedding.token_count for embedding in embeddings),
        truncated=tuple(embedding.truncated for embedding in embeddings),
        model=response.model,
        model_revision=response.model_revision,
    )


def joined(parts: Sequence[EmbedResult]) -> EmbedResult:
    """One result of several of the same model, encoding and width."""
    first = parts[0]
    scales = [part.scales for part in parts if part.scales is not None]
    return replace(
        first,
        vectors=np.concatenate([part.vectors for part in parts]),
        scales=np.concatenate(scales) if scales else None,
        token_counts=tuple(chain.from_iterable(part.token_counts for part in parts)),
        truncated=tuple(chain.from_iterable(part.truncated for part in parts)),
    )


def decode_hits(
    parts: Sequence[Part[RerankRequest]], responses: Sequence[RerankResponse], *, top_n: int
) -> list[RerankHit]:
    """The scored documents of all parts, best first, ties by index."""
    hits = [
        RerankHit(
            index=part.first + result.index,
            score=result.score,
            document=None,
            token_count=result.token_count,
            truncated=result.truncated,
        )
        for part, response in zip(parts, responses, strict=True)
        for result in response.results
    ]
    hits.sort(key=lambda hit: (-hit.score, hit.index))
    return hits[: top_n or None]


def with_documents(hits: Sequence[RerankHit], documents: Sequence[str]) -> list[RerankHit]:
    """From the caller's own list: they need not come back over the wire."""
    return [replace(hit, document=documents[hit.index]) for hit in hits]


def decode_token_counts(responses: Sequence[CountTokensResponse]) -> TokenCounts:
    """The counts, in the order of the texts."""
    return TokenCounts(
        token_counts=tuple(chain.from_iterable(response.token_counts for response in responses)),
        total_tokens=sum(response.total_tokens for response in responses),
        max_input_tokens=responses[0].max_input_tokens,
    )


def decode_token_sequences(responses: Sequence[TokenizeResponse]) -> list[TokenSequence]:
    """The tokens, in the order of the texts."""
    return [
        TokenSequence(ids=tuple(sequence.ids), starts=tuple(sequence.starts), ends=tuple(sequence.ends))
        for response in responses
        for sequence in response.sequences
    ]


def decode_model(model: Model) -> ModelInfo:
    """A model with words in place of enum values."""
    return ModelInfo(
        id=model.id,
        task=word_of(model.task, MODEL_TASKS),
        revision=model.revision,
        state=word_of(model.state, MODEL_STATES),
        native_dimensions=model.native_dimensions,
        min_dimensions=model.min_dimensions,
        max_input_tokens=model.max_input_tokens,
        max_batch_inputs=model.max_batch_inputs,
        encodings=tuple(word_of(encoding, ENCODINGS) for encoding in model.encodings),
        default_instruction=model.default_instruction,
        default_for_task=model.default_for_task,
    )


def _unpack(dtype: str) -> Callable[[Sequence[Embedding]], NDArray[Any]]:
    """A decoder of packed vectors, (n, values per vector) of `dtype`."""

    def decode(embeddings: Sequence[Embedding]) -> NDArray[Any]:
        # A bytearray, since an array over bytes would be read-only.
        packed = bytearray().join(embedding.packed for embedding in embeddings)
        return np.frombuffer(packed, dtype=dtype).reshape(len(embeddings), -1)

    return decode


def _float_lists(embeddings: Sequence[Embedding]) -> NDArray[Any]:
    return np.array([embedding.values for embedding in embeddings], dtype=np.float32)


_DECODERS: dict[VectorEncoding.ValueType, Callable[[Sequence[Embedding]], NDArray[Any]]] = {
    ENCODINGS["float32"]: _unpack("<f4"),
    ENCODINGS["float16"]: _unpack("<f2"),
    ENCODINGS["int8"]: _unpack("i1"),
    ENCODINGS["binary"]: _unpack("u1"),
    ENCODINGS["float_list"]: _float_lists,
}
