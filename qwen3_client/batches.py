"""How many texts go into one message. No I/O: the sync and the async client share it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from qwen3.inference.v1.embedding_pb2 import EmbedConfig, VectorEncoding
from qwen3_client.errors import Qwen3Error
from qwen3_client.options import ENCODINGS

MAX_CALL_TEXTS = 250  # a server takes 256, unless it is set up otherwise, but 251 of the widest model
MAX_CHUNK_TEXTS = 64  # of a stream: what is sent again after a lost connection, and shared out to workers
MAX_DOCUMENTS = 1000
# A server takes 1,000,000 tokens in one message, and a byte is a token at most. The rest is for the templates.
MAX_BATCH_BYTES = 900_000
# Of texts to embed: some 60,000 tokens of English, so that a server without a GPU answers within a timeout.
MAX_EMBED_BYTES = 256 * 1024
MAX_TOKENIZED_BYTES = 250_000  # a token's id and place come back in up to 12 bytes
# What every gRPC client receives by default, less room for metadata.
_MAX_REPLY_BYTES = 4 * 1024 * 1024 - 64 * 1024
_VECTOR_OVERHEAD_BYTES = 32
_LISTS = ("inputs", "documents")  # what a server finds too large; of a bad text it gives the place, as inputs[3]
_WIDEST = 4096  # values of the widest published model, meant by "native" as long as nothing is known of the model
_VALUE_BITS: Mapping[VectorEncoding.ValueType, int] = {
    ENCODINGS["float32"]: 32,
    ENCODINGS["float16"]: 16,
    ENCODINGS["int8"]: 8,
    ENCODINGS["binary"]: 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """The most that goes into one message; a text beyond `max_bytes` (UTF-8) goes alone."""

    max_texts: int
    max_bytes: int = MAX_BATCH_BYTES


RERANK_LIMITS = BatchLimits(max_texts=MAX_DOCUMENTS)
COUNT_LIMITS = RERANK_LIMITS
TOKENIZE_LIMITS = BatchLimits(max_texts=MAX_DOCUMENTS, max_bytes=MAX_TOKENIZED_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The texts of one message; `first` is the place of the first one among all that the caller gave."""

    texts: Sequence[str]
    first: int

    def is_refused_as_too_much(self, error: Qwen3Error) -> bool:
        """Whether halves of it may pass: servers may take less than usual."""
        return len(self.texts) > 1 and any(field in _LISTS for field, _ in error.field_violations)

    def halves(self) -> tuple[Self, Self]:
        """Of at least two texts."""
        middle = len(self.texts) // 2
        rest = replace(self, texts=self.texts[middle:], first=self.first + middle)
        return replace(self, texts=self.texts[:middle]), rest


def call_limits(config: EmbedConfig) -> BatchLimits:
    """Of a unary Embed."""
    return BatchLimits(max_texts=min(MAX_CALL_TEXTS, num_that_fit(config)), max_bytes=MAX_EMBED_BYTES)


def chunk_limits(config: EmbedConfig) -> BatchLimits:
    """Of a chunk of EmbedStream."""
    return BatchLimits(max_texts=min(MAX_CHUNK_TEXTS, num_that_fit(config)), max_bytes=MAX_EMBED_BYTES)


def num_that_fit(config: EmbedConfig) -> int:
    """How many vectors fit into one reply."""
    vector_bytes = -(-(config.dimensions or _WIDEST) * _VALUE_BITS[config.encoding] // 8)
    return max(1, _MAX_REPLY_BYTES // (vector_bytes + _VECTOR_OVERHEAD_BYTES))


def in_batches(texts: Iterable[str], limits: BatchLimits) -> Iterator[Batch]:
    """All texts, in order."""
    batcher = Batcher(limits)
    for text in texts:
        if (full := batcher.add(text)) is not None:
            yield full
    if (rest := batcher.rest()) is not None:
        yield rest


def all_in_batches(texts: Sequence[str], limits: BatchLimits) -> list[Batch]:
    """At least one, since refusing an empty list is the server's job."""
    return list(in_batches(texts, limits)) or [Batch(texts=[], first=0)]


def fit_one_call(texts: Sequence[str], config: EmbedConfig) -> bool:
    """Whether a unary Embed takes all of them."""
    return len(list(islice(in_batches(texts, call_limits(config)), 2))) < 2


class Batcher:
    """Makes batches of texts that come one by one."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._texts: list[str] = []
        self._num_bytes = 0
        self._first = 0

    def add(self, text: str) -> Batch | None:
        """The batch that has no room for `text` any more, where there is one. Raises TypeError for what is no text."""
        num_bytes = _num_bytes(text)
        full = None if self._has_room(num_bytes) else self.rest()
        self._texts.append(text)
        self._num_bytes += num_bytes
        return full

    def rest(self) -> Batch | None:
        """What is not in a batch yet."""
        if not self._texts:
            return None
        batch = Batch(texts=self._texts, first=self._first)
        self._first += len(self._texts)
        self._texts, self._num_bytes = [], 0
        return batch

    def _has_room(self, num_bytes: int) -> bool:
        return len(self._texts) < self._limits.max_texts and self._num_bytes + num_bytes <= self._limits.max_bytes


def _num_bytes(text: str) -> int:
    if not isinstance(text, str):
        raise TypeError(f"texts must be of type str, not {type(text).__name__}")
    return len(text.encode())
