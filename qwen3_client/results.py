"""Decodes responses into what a caller gets. No I/O: the sync and the async client share it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3.inference.v1.embedding_pb2 import Embedding, EmbedResponse, VectorEncoding
from qwen3.inference.v1.model_pb2 import Model
from qwen3.inference.v1.rerank_pb2 import RerankResponse
from qwen3.inference.v1.tokenizer_pb2 import CountTokensResponse
from qwen3_client.errors import RevisionChangedError
from qwen3_client.options import ENCODINGS, MODEL_STATES, MODEL_TASKS, word_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbedResult:
    """Vectors of n texts, in the order of the texts.

    `vectors` is a float32 or float16 array (n, dimensions), as asked; for "int8" an int8 array (n, dimensions)
    to be multiplied with `scales[:, None]`; for "binary" a uint8 array (n, ceil(dimensions / 8)) of sign bits,
    most significant first, as numpy.unpackbits reads them.
    """

    vectors: NDArray[Any]
    scales: NDArray[np.float32] | None  # (n,), for "int8" only
    dimensions: int
    token_counts: tuple[int, ...]
    truncated: tuple[bool, ...]
    model: str
    model_revision: str


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


def decode_embeddings(responses: Sequence[EmbedResponse]) -> EmbedResult:
    """All vectors of one or more responses. Raises RevisionChangedError if two models' vectors would be mixed."""
    first = responses[0]
    if any(response.model_revision != first.model_revision for response in responses):
        raise RevisionChangedError(
            f"{first.model} changed its revision between two calls, so the vectors cannot be compared: embed again",
            code="ABORTED",
        )
    embeddings = [embedding for response in responses for embedding in response.embeddings]
    is_int8 = first.encoding == ENCODINGS["int8"]
    return EmbedResult(
        vectors=_DECODERS[first.encoding](embeddings),
        scales=np.array([embedding.scale for embedding in embeddings], dtype=np.float32) if is_int8 else None,
        dimensions=first.dimensions,
        token_counts=tuple(embedding.token_count for embedding in embeddings),
        truncated=tuple(embedding.truncated for embedding in embeddings),
        model=first.model,
        model_revision=first.model_revision,
    )


def decode_hits(response: RerankResponse) -> list[RerankHit]:
    """The scored documents, in the response's order."""
    return [
        RerankHit(
            index=result.index,
            score=result.score,
            document=result.document if result.HasField("document") else None,
            token_count=result.token_count,
            truncated=result.truncated,
        )
        for result in response.results
    ]


def decode_token_counts(response: CountTokensResponse) -> TokenCounts:
    """The counts, in the order of the texts."""
    return TokenCounts(
        token_counts=tuple(response.token_counts),
        total_tokens=response.total_tokens,
        max_input_tokens=response.max_input_tokens,
    )


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
