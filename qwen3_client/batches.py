"""How many texts go into one message. No I/O: the sync and the async client share it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from qwen3.inference.v1.embedding_pb2 import EmbedConfig, VectorEncoding
from qwen3_client.options import ENCODINGS

MAX_CALL_TEXTS = 250  # a server takes 256, unless it is set up otherwise, but 251 of the widest model
MAX_CHUNK_TEXTS = 64  # of a stream: what is sent again after a lost connection, and shared out to workers
MAX_DOCUMENTS = 1000
# A server takes 1,000,000 tokens in one message, and a byte is a token at most. The rest is for the templates.
MAX_BATCH_BYTES = 900_000
MAX_TOKENIZED_BYTES = 250_000  # a token's id and place come back in up to 12 bytes
# What every gRPC client receives by default, less room for metadata.
_MAX_REPLY_BYTES = 4 * 1024 * 1024 - 64 * 1024
_VECTOR_OVERHEAD_BYTES = 32
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


def call_limits(config: EmbedConfig) -> BatchLimits:
    """Of a unary Embed."""
    return BatchLimits(max_texts=min(MAX_CALL_TEXTS, num_that_fit(config)))


def chunk_limits(config: EmbedConfig) -> BatchLimits:
    """Of a chunk of EmbedStream."""
    return BatchLimits(max_texts=min(MAX_CHUNK_TEXTS, num_that_fit(config)))


def num_that_fit(config: EmbedConfig) -> int:
    """How many vectors fit into one reply."""
    vector_bytes = -(-(config.dimensions or _WIDEST) * _VALUE_BITS[config.encoding] // 8)
    return max(1, _MAX_REPLY_BYTES // (vector_bytes + _VECTOR_OVERHEAD_BYTES))


def texts_in_batches(texts: Iterable[str], limits: BatchLimits) -> Iterator[list[str]]:
    """All texts, in order."""
    batcher = Batcher(limits)
    for text in texts:
        if full := batcher.add(text):
            yield full
    if rest := batcher.rest():
        yield rest


class Batcher:
    """Makes batches of texts that come one by one."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._texts: list[str] = []
        self._num_bytes = 0

    def add(self, text: str) -> list[str]:
        """The batch that has no room for `text` any more, if so; else nothing."""
        num_bytes = _num_bytes(text)
        full = self.rest() if self._texts and not self._has_room(num_bytes) else []
        self._texts.append(text)
        self._num_bytes += num_bytes
        return full

    def rest(self) -> list[str]:
        """What is not in a batch yet."""
        texts, self._texts, self._num_bytes = self._texts, [], 0
        return texts

    def _has_room(self, num_bytes: int) -> bool:
        return len(self._texts) < self._limits.max_texts and self._num_bytes + num_bytes <= self._limits.max_bytes


def _num_bytes(text: str) -> int:
    if not isinstance(text, str):
        raise TypeError(f"texts must be of type str, not {type(text).__name__}")
    return len(text.encode())
