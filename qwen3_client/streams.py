"""Carries a bulk call over EmbedStream, for the sync client. What is to be done is decided in bulk.py."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeAlias, cast

import grpc

from qwen3.inference.v1.embedding_pb2 import EmbedStreamRequest, EmbedStreamResponse
from qwen3_client.batches import Batch
from qwen3_client.bulk import Bulk, StreamEndedError
from qwen3_client.errors import FailedCall, Qwen3Error, error_of
from qwen3_client.patience import Patience
from qwen3_client.results import EmbedResult

LAST_WORD_S = 1.0


class Answers(Protocol):
    """What grpc's call of EmbedStream is to its caller."""

    def __iter__(self) -> Iterator[EmbedStreamResponse]: ...
    def cancel(self) -> bool: ...


Open: TypeAlias = Callable[[Iterator[EmbedStreamRequest]], Answers]


def embed_in_bulk(
    batches: Iterable[Batch], bulk: Bulk, open_stream: Open, *, timeout_s: float
) -> Generator[EmbedResult, None, None]:
    """The vectors of each batch, in order. Closing the generator cancels the stream."""
    with _Link(bulk, open_stream, Patience(timeout_s)) as link:
        for batch in batches:
            link.send(bulk.add(batch))
            while link.has_news:
                link.receive()
            yield from bulk.results()
            while not bulk.has_room:
                link.receive()
                yield from bulk.results()
        while bulk.is_waiting:
            link.receive()
            yield from bulk.results()


class _Link:
    """The stream of a bulk call, begun again where it is lost."""

    def __init__(self, bulk: Bulk, open_stream: Open, patience: Patience) -> None:
        self._bulk = bulk
        self._open_stream = open_stream
        self._patience = patience
        self._stream: _Stream | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close(in_order=kind is None)

    def send(self, request: EmbedStreamRequest) -> None:
        """A message that the bulk call knows of already."""
        if self._stream is None:
            self._open()
        else:
            self._stream.send(request)

    @property
    def has_news(self) -> bool:
        """Whether the next answer need not be waited for."""
        return self._stream is not None and self._stream.has_news

    def receive(self) -> None:
        """Take in the next answer. Raises Qwen3Error where none is to come, or it is one."""
        for request in self._bulk.accept(self._next_answer()):
            self.send(request)

    def _next_answer(self) -> EmbedStreamResponse:
        while True:
            started = time.monotonic()
            try:
                answer = cast("_Stream", self._stream).receive(self._patience.left_s)
            except queue.Empty:
                raise self._patience.exhausted(self._bulk.request_id) from None
            except Qwen3Error as error:
                self._patience.spend(time.monotonic() - started)
                self._begin_again(error)
            else:
                self._patience.renew()
                return answer

    def _begin_again(self, error: Qwen3Error) -> None:
        """Raises `error` where that would not help."""
        wait_s = self._patience.wait_s(error)
        cast("_Stream", self._stream).close(in_order=False)
        self._stream = None
        time.sleep(wait_s)
        self._open()

    def _open(self) -> None:
        self._stream = _Stream(self._open_stream, self._bulk.opening())


class _Stream:
    """One EmbedStream. A thread reads it, since grpc has no way to wait for a message for so long and no longer."""

    def __init__(self, open_stream: Open, opening: Sequence[EmbedStreamRequest]) -> None:
        self._outbox: queue.SimpleQueue[EmbedStreamRequest | None] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[EmbedStreamResponse | Qwen3Error] = queue.SimpleQueue()
        for request in opening:
            self._outbox.put(request)
        self._call = open_stream(iter(self._outbox.get, None))
        self._reader = threading.Thread(target=self._read, name="qwen3-embed-stream", daemon=True)
        self._reader.start()

    @property
    def has_news(self) -> bool:
        return not self._inbox.empty()

    def send(self, request: EmbedStreamRequest) -> None:
        self._outbox.put(request)

    def receive(self, timeout_s: float) -> EmbedStreamResponse:
        """Raises queue.Empty after `timeout_s`, Qwen3Error once the stream has ended."""
        news = self._inbox.get(timeout=max(timeout_s, 0.0))
        if isinstance(news, Qwen3Error):
            raise news
        return news

    def close(self, *, in_order: bool) -> None:
        """Leave nothing behind. In order: all is answered, and the server has a moment to say that this was all."""
        self._outbox.put(None)
        if in_order:
            self._reader.join(LAST_WORD_S)
        self._call.cancel()
        self._reader.join()

    def _read(self) -> None:
        try:
            for answer in self._call:
                self._inbox.put(answer)
        except grpc.RpcError as error:
            self._inbox.put(error_of(cast("FailedCall", error)))
        else:
            self._inbox.put(StreamEndedError())
