"""Decodes responses into what a caller gets. No I/O: the sync and the async client share it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import merge
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3.inference.v1.embedding_pb2 import Embedding, EmbedResponse, VectorEncoding
from qwen3.inference.v1.model_pb2 import Model
from qwen3.inference.v1.rerank_pb2 import RerankResponse, RerankResult
from qwen3.inference.v1.tokenizer_pb2 import CountTokensResponse, TokenizeResponse
from qwen3_client.batches import Batch
from qwen3_client.errors import RevisionChangedError
from qwen3_client.options import ENCODINGS, MODEL_ENCODINGS, MODEL_STATES, MODEL_TASKS, word_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbedResult:
    """Vectors of n texts, in the order of the texts.

    `vectors` is a float32 or float16 array (n, dimensions), as asked; for "int8" an int8 array (n, dimensions)
    to be multiplied with `scales[:, None]`; for "binary" a uint8 array (n, ceil(dimensions / 8)) of sign bits,
    most significant first, as numpy.unpackbits reads them. qwen3_client.scoring compares vectors of any encoding,
    where `model`, `model_revision` and `dimensions` are the same.
    """

    vectors: NDArray[Any]
    scales: NDArray[np.float32] | None  # (n,), for "int8" only
    dimensions: int
    token_counts: tuple[int, ...]  # of each text after truncation, instruction included
    truncated: tuple[bool, ...]  # whether each text was cut
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
    """One scored document: `index` is its place in the caller's list, `document` its text where that was asked for."""

    index: int
    score: float  # 0 to 1, or a logit, as asked
    document: str | None
    token_count: int  # of the whole prompt: instruction, query and what is left of the document
    truncated: bool
    model: str
    model_revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """Tokens each text would be charged, template included and uncut."""

    token_counts: tuple[int, ...]
    total_tokens: int
    max_input_tokens: int  # the most that the model takes for one text


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequence:
    """Token ids of a text; token i stands for `text[starts[i] : ends[i]]`, one that was added for nothing."""

    ids: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One served model. Widths are 0 and encodings empty for a reranker."""

    id: str
    task: str  # "embedding", "rerank"; "unknown" for what a newer server may add, here and below
    revision: str
    state: str  # "loading", "ready", "unavailable"
    native_dimensions: int
    min_dimensions: int
    max_input_tokens: int  # of one text, template included
    max_batch_inputs: int  # texts or documents of one message; the client splits what is more
    encodings: tuple[str, ...]
    default_instruction: str
    default_for_task: bool  # whether an empty name means it


class HealthStatus(StrEnum):
    """What the server says of itself or of one model; SERVICE_UNKNOWN of a model that it does not know."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"


def check_same_revision(first: EmbedResponse | RerankResponse, other: EmbedResponse | RerankResponse) -> None:
    """Raises RevisionChangedError if two models' vectors or scores would be mixed."""
    if other.model_revision != first.model_revision:
        raise RevisionChangedError(
            f"{first.model} changed its revision during the call, whose parts cannot be compared: call again",
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


def decode_all_embeddings(answers: Sequence[tuple[Batch, EmbedResponse]]) -> EmbedResult:
    """The vectors, in the order of the texts. Raises RevisionChangedError."""
    for _, response in answers:
        check_same_revision(answers[0][1], response)
    return joined([decode_embeddings(response) for _, response in answers])


def joined(parts: Sequence[EmbedResult]) -> EmbedResult:
    """One result of several of the same model, encoding and width."""
    first = parts[0]
    if len(parts) == 1:
        return first
    scales = [part.scales for part in parts if part.scales is not None]
    return replace(
        first,
        vectors=np.concatenate([part.vectors for part in parts]),
        scales=np.concatenate(scales) if scales else None,
        token_counts=tuple(chain.from_iterable(part.token_counts for part in parts)),
        truncated=tuple(chain.from_iterable(part.truncated for part in parts)),
    )


def decode_hits(
    answers: Sequence[tuple[Batch, RerankResponse]], documents: Sequence[str] | None, *, top_n: int
) -> list[RerankHit]:
    """The scored documents of all answers, best first, ties by index; with their texts where `documents` has them.

    Each answer is in this order already, and knows more of ties than its rounded scores tell. Raises
    RevisionChangedError.
    """
    for _, response in answers:
        check_same_revision(answers[0][1], response)
    ranked = ([_hit(batch, result, response, documents) for result in response.results] for batch, response in answers)
    return list(islice(merge(*ranked, key=lambda hit: -hit.score), top_n or None))


def _hit(batch: Batch, result: RerankResult, response: RerankResponse, documents: Sequence[str] | None) -> RerankHit:
    index = batch.first + result.index
    return RerankHit(
        index=index,
        score=result.score,
        document=None if documents is None else documents[index],
        token_count=result.token_count,
        truncated=result.truncated,
        model=response.model,
        model_revision=response.model_revision,
    )


def decode_token_counts(answers: Sequence[tuple[Batch, CountTokensResponse]]) -> TokenCounts:
    """The counts, in the order of the texts."""
    return TokenCounts(
        token_counts=tuple(chain.from_iterable(response.token_counts for _, response in answers)),
        total_tokens=sum(response.total_tokens for _, response in answers),
        max_input_tokens=answers[0][1].max_input_tokens,
    )


def decode_token_sequences(answers: Sequence[tuple[Batch, TokenizeResponse]]) -> list[TokenSequence]:
    """The tokens, in the order of the texts."""
    return [
        TokenSequence(ids=tuple(sequence.ids), starts=tuple(sequence.starts), ends=tuple(sequence.ends))
        for _, response in answers
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
        encodings=tuple(word_of(encoding, MODEL_ENCODINGS) for encoding in model.encodings),
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


_DECODERS: dict[VectorEncoding.ValueType, Callable[[Sequence[Embedding]], NDArray[Any]]] = {
    ENCODINGS["float32"]: _unpack("<f4"),
    ENCODINGS["float16"]: _unpack("<f2"),
    ENCODINGS["int8"]: _unpack("i1"),
    ENCODINGS["binary"]: _unpack("u1"),
}
