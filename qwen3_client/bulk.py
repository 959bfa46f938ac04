"""A bulk call, whatever carries it: what is sent, answered and handed out, and when a lost stream is begun again.

No I/O and no clock: the sync and the async client share it.

1. Texts come in chunks, each with an id of its own. A few chunks are under way: from when they are sent until the
   caller has their vectors, so that memory stays flat when the server or the caller is slow.
2. Answers come in any order, and are handed out in that of the texts.
3. A stream that is lost is begun again, with the chunks that were not answered and no others.
4. A chunk that is too much for the server is sent again in halves.
"""

import random
from collections.abc import Iterator, Sequence

from qwen3.inference.v1.embedding_pb2 import (
    EmbedChunk,
    EmbedConfig,
    EmbedResponse,
    EmbedStreamRequest,
    EmbedStreamResponse,
)
from qwen3_client.batches import Batch
from qwen3_client.errors import (
    CallCancelledError,
    DeadlineExceededError,
    Qwen3Error,
    ServerFaultError,
    UnavailableError,
    error_of_chunk,
)
from qwen3_client.results import EmbedResult, check_same_revision, decode_embeddings

MAX_CHUNKS = 16  # what a server takes in of one stream, unless it is set up otherwise
FIRST_WAIT_S = 0.1
MAX_WAIT_S = 5.0


class StreamEndedError(ServerFaultError):
    """The server's: it ended the stream in order, and owes answers."""

    def __init__(self) -> None:
        super().__init__("the stream ended before all of it was answered", code="INTERNAL")


class Bulk:
    """Chunks of one bulk call: those sent and not answered, and those answered and not handed out.

    `request_id` is the same for all of its streams.
    """

    def __init__(self, config: EmbedConfig, *, request_id: str) -> None:
        self.request_id = request_id
        self._config = EmbedStreamRequest(config=config)
        self._num_chunks = 0
        self._order: list[int] = []  # ids of those that are not handed out, in the order of their texts
        self._unanswered: dict[int, Batch] = {}
        self._answered: dict[int, EmbedResponse] = {}
        self._first: EmbedResponse | None = None

    @property
    def has_room(self) -> bool:
        """Whether another chunk may be sent."""
        return len(self._order) < MAX_CHUNKS

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is to come."""
        return bool(self._unanswered)

    def add(self, batch: Batch) -> EmbedStreamRequest:
        """The message that carries these texts, which come after all others."""
        [request] = self._put([batch], len(self._order))
        return request

    def opening(self) -> list[EmbedStreamRequest]:
        """What a new stream begins with: the config, and all that was added and not answered."""
        return [self._config, *(_chunk(chunk_id, batch) for chunk_id, batch in self._unanswered.items())]

    def accept(self, answer: EmbedStreamResponse) -> list[EmbedStreamRequest]:
        """What is to be sent because of it: halves of a chunk that was too much, else nothing.

        Raises Qwen3Error where the chunk has failed, or can be no part of the whole.
        """
        batch = self._unanswered.pop(answer.chunk_id, None)
        if batch is None:
            raise ServerFaultError(f"an answer to chunk {answer.chunk_id}, which was not asked", code="INTERNAL")
        if answer.HasField("error"):
            error = error_of_chunk(answer.error, first=batch.first, request_id=self.request_id)
            if not batch.is_refused_as_too_much(error):
                raise error
            place = self._order.index(answer.chunk_id)
            del self._order[place]
            return self._put(batch.halves(), place)
        self._first = self._first or answer.result
        check_same_revision(self._first, answer.result)
        self._answered[answer.chunk_id] = answer.result
        return []

    def results(self) -> Iterator[EmbedResult]:
        """Hand out, in order, what can be."""
        while self._order and (response := self._answered.pop(self._order[0], None)) is not None:
            del self._order[0]
            yield decode_embeddings(response)

    def _put(self, batches: Sequence[Batch], place: int) -> list[EmbedStreamRequest]:
        """As chunks of their own, to be handed out from this place on."""
        chunk_ids = range(self._num_chunks, self._num_chunks + len(batches))
        self._num_chunks += len(batches)
        self._order[place:place] = chunk_ids
        added = dict(zip(chunk_ids, batches, strict=True))
        self._unanswered |= added
        return [_chunk(chunk_id, batch) for chunk_id, batch in added.items()]


def _chunk(chunk_id: int, batch: Batch) -> EmbedStreamRequest:
    return EmbedStreamRequest(chunk=EmbedChunk(chunk_id=chunk_id, inputs=batch.texts))


class Patience:
    """How long a bulk call goes on without an answer, lost streams included. Times in s."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.renew()

    def renew(self) -> None:
        """There was an answer."""
        self.left_s = self._timeout_s
        self._num_losses = 0

    def spend(self, waited_s: float) -> None:
        """There was none for so long."""
        self.left_s -= waited_s

    def exhausted(self, request_id: str) -> DeadlineExceededError:
        """What is raised once none is left."""
        message = f"no answer within {self._timeout_s:g} s"
        return DeadlineExceededError(message, code="DEADLINE_EXCEEDED", request_id=request_id)

    def wait_s(self, error: Qwen3Error) -> float:
        """How long to wait before a stream that `error` ended is begun again. Raises `error` where it is not.

        CANCELLED is what grpc says of a stream that reaches a server in the moment in which it stops.
        """
        wait_s = self._backoff_s(error.retry_after_s)
        if not isinstance(error, (UnavailableError, CallCancelledError)) or wait_s >= self.left_s:
            raise error
        self._num_losses += 1
        self.left_s -= wait_s
        return wait_s

    def _backoff_s(self, asked_s: float | None) -> float:
        """At first what the server asks for; a server that asks for nothing again and again is not hurried."""
        if asked_s is not None and not self._num_losses:
            return asked_s
        backoff_s = min(FIRST_WAIT_S * 2.0 ** min(self._num_losses, 10), MAX_WAIT_S)
        spread = random.uniform(0.8, 1.2)  # noqa: S311 - so that clients do not come back in step
        return max(backoff_s * spread, asked_s or 0.0)
