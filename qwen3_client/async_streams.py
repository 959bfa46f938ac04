"""Carries a bulk call over EmbedStream, for the async client: streams.py in asyncio's terms."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Self, TypeAlias, TypeVar, cast

import grpc.aio

from qwen3.inference.v1.embedding_pb2 import EmbedStreamRequest, EmbedStreamResponse
from qwen3_client.batches import Batch
from qwen3_client.bulk import Bulk, StreamEndedError
from qwen3_client.errors import Qwen3Error, UnavailableError, closed, error_of
from qwen3_client.patience import Patience
from qwen3_client.results import EmbedResult

_Call: TypeAlias = "grpc.aio.StreamStreamCall[EmbedStreamRequest, EmbedStreamResponse]"
Open: TypeAlias = Callable[[AsyncIterator[EmbedStreamRequest]], Awaitable[_Call]]

_Value = TypeVar("_Value")

LAST_WORD_S = 1.0
_UNKNOWN_ENDING = "Internal error from Core"  # grpc's words


async def embed_in_bulk(
    batches: AsyncIterable[Batch], bulk: Bulk, open_stream: Open, *, timeout_s: float
) -> AsyncGenerator[EmbedResult, None]:
    """The vectors of each batch, in order. Closing the generator cancels the stream."""
    async with _Link(bulk, open_stream, Patience(timeout_s)) as link:
        async for batch in batches:
            await link.send(bulk.add(batch))
            while link.has_news:
                await link.receive()
            for result in bulk.results():
                yield result
            while not bulk.has_room:
                await link.receive()
                for result in bulk.results():
                    yield result
        while bulk.is_waiting:
            await link.receive()
            for result in bulk.results():
                yield result


class _Link:
    """The stream of a bulk call, begun again where it is lost."""

    def __init__(self, bulk: Bulk, open_stream: Open, patience: Patience) -> None:
        self._bulk = bulk
        self._open_stream = open_stream
        self._patience = patience
        self._stream: _Stream | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            await self._stream.close(in_order=kind is None)

    async def send(self, request: EmbedStreamRequest) -> None:
        """A message that the bulk call knows of already."""
        if self._stream is None:
            await self._open()
        else:
            self._stream.send(request)

    @property
    def has_news(self) -> bool:
        """Whether the next answer need not be waited for."""
        return self._stream is not None and self._stream.has_news

    async def receive(self) -> None:
        """Take in the next answer. Raises Qwen3Error where none is to come, or it is one."""
        for request in self._bulk.accept(await self._next_answer()):
            await self.send(request)

    async def _next_answer(self) -> EmbedStreamResponse:
        while True:
            started = time.monotonic()
            try:
                answer = await cast("_Stream", self._stream).receive(self._patience.left_s)
            except TimeoutError:
                raise self._patience.exhausted(self._bulk.request_id) from None
            except Qwen3Error as error:
                self._patience.spend(time.monotonic() - started)
                await self._begin_again(error)
            else:
                self._patience.renew()
                return answer

    async def _begin_again(self, error: Qwen3Error) -> None:
        """Raises `error` where that would not help."""
        wait_s = self._patience.wait_s(error)
        await cast("_Stream", self._stream).close(in_order=False)
        self._stream = None
        await asyncio.sleep(wait_s)
        await self._open()

    async def _open(self) -> None:
        outbox = _Outbox(self._bulk.opening())
        self._stream = _Stream(await self._open_stream(aiter(outbox)), outbox)


class _Outbox:
    """Messages on their way to grpc, which writes them while answers are read: else both sides could wait."""

    def __init__(self, opening: Sequence[EmbedStreamRequest]) -> None:
        self._messages: asyncio.Queue[EmbedStreamRequest | None] = asyncio.Queue()
        for request in opening:
            self.put(request)

    def put(self, request: EmbedStreamRequest | None) -> None:
        """None ends it."""
        self._messages.put_nowait(request)

    async def __aiter__(self) -> AsyncIterator[EmbedStreamRequest]:
        while (request := await self._messages.get()) is not None:
            yield request


class _Stream:
    """One EmbedStream. A task reads it, since to stop waiting for a message would end grpc's call."""

    def __init__(self, call: _Call, outbox: _Outbox) -> None:
        self._call = call
        self._outbox = outbox
        self._inbox: asyncio.Queue[EmbedStreamResponse | Qwen3Error] = asyncio.Queue()
        self._ending: Qwen3Error | None = None
        call.add_done_callback(self._note_ending)
        self._reader = asyncio.create_task(self._read())

    @property
    def has_news(self) -> bool:
        return not self._inbox.empty()

    def send(self, request: EmbedStreamRequest) -> None:
        self._outbox.put(request)

    async def receive(self, timeout_s: float) -> EmbedStreamResponse:
        """Raises TimeoutError after `timeout_s`, Qwen3Error once the stream has ended."""
        async with asyncio.timeout(timeout_s):
            news = await self._inbox.get()
        if isinstance(news, Qwen3Error):
            raise news
        return news

    async def close(self, *, in_order: bool) -> None:
        """Leave nothing behind. In order: all is answered, and the server has a moment to say that this was all."""
        self._outbox.put(None)
        try:
            if in_order:
                await asyncio.wait({self._reader}, timeout=LAST_WORD_S)
        finally:
            self._call.cancel()
            self._reader.cancel()
            await asyncio.wait({self._reader})

    async def _read(self) -> None:
        try:
            async for answer in self._call:
                self._inbox.put_nowait(answer)
        except grpc.aio.AioRpcError as error:
            self._inbox.put_nowait(self._ending or error_of(error))
        except asyncio.CancelledError:  # as grpc says that the client was closed, too
            self._inbox.put_nowait(closed())
            raise
        else:
            self._inbox.put_nowait(StreamEndedError())

    def _note_ending(self, call: _Call) -> None:
        """What the server said of the end, which grpc may forget when a message is on its way (grpc/grpc#36066)."""
        code, details, trailers = _now(call.code()), _now(call.details()), _now(call.trailing_metadata())
        if details == _UNKNOWN_ENDING:  # if it has not heard the server, a new stream does
            lost = UnavailableError("the stream was lost while a message was sent", code="UNAVAILABLE")
            self._ending = self._ending or lost
        else:
            self._ending = error_of(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details))


def _now(coroutine: Coroutine[object, object, _Value]) -> _Value:
    """What a coroutine returns that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        return cast("_Value", returned.value)
    raise RuntimeError("grpc does not know the status of a call that has ended")
