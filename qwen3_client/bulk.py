"""A bulk call, whatever carries it: what is sent, answered and handed out.

No I/O and no clock: the sync and the async client share it.

1. Texts come in chunks, each with an id of its own. A few chunks are under way: from when they are sent until the
   caller has their vectors, so that memory stays flat when the server or the caller is slow.
2. Answers come in any order, and are handed out in that of the texts.
3. A stream that is lost is begun again, with the chunks that were not answered and no others.
4. A chunk that is too much for the server is sent again in halves.
"""

from collections.abc import Iterator, Sequence

from qwen3.inference.v1.embedding_pb2 import (
    EmbedChunk,
    EmbedConfig,
    EmbedResponse,
    EmbedStreamRequest,
    EmbedStreamResponse,
)
from qwen3_client.batches import Batch
from qwen3_client.errors import ServerFaultError, error_of_chunk
from qwen3_client.results import EmbedResult, check_same_revision, decode_embeddings

MAX_CHUNKS = 16  # what a server takes in of one stream, unless it is set up otherwise


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
