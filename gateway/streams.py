"""EmbedStream: any number of chunks over one stream.

1. The first message is the config, which has to come soon. What is wrong with it ends the stream.
2. A chunk is read once there is room for it: a few are in flight, each from then until its answer is written.
3. Every chunk is a call of its own and is answered when it is done. An error ends the chunk, not the stream.
4. A chunk for which the queue has no room waits, and the intake with it: that is the client's back-pressure.
5. After the client's last chunk the stream ends with the last answer.
6. A stream that can stay no longer reads nothing more, answers what is in the queue, and ends with UNAVAILABLE: the
   client sends what was not answered to another gateway.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from gateway.calls import Call
from gateway.chunks import answer_chunk, validate_chunk
from gateway.errors import CallError, invalid_field, unavailable
from gateway.parts import Parts
from gateway.reasons import Reason
from qwen3.inference.v1.embedding_pb2 import (
    EmbedChunk,
    EmbedConfig,
    EmbedRequest,
    EmbedStreamRequest,
    EmbedStreamResponse,
)


async def answer_stream(
    requests: AsyncIterator[EmbedStreamRequest], call: Call, parts: Parts
) -> AsyncGenerator[EmbedStreamResponse]:
    """Raises CallError. Once it is closed, nothing of the stream goes on.

    The work is done in a task of its own: a task group may not be left open while a generator waits to be asked on.
    """
    departure = asyncio.create_task(_departure(parts))
    stream = _Stream(call, parts, departure)
    serving = asyncio.create_task(stream.serve(requests))
    try:
        while (answer := await stream.next_answer()) is not None:
            yield answer
            stream.make_room()
        await serving  # raises what ended the stream
    finally:
        departure.cancel()
        serving.cancel()
        await asyncio.gather(departure, serving, return_exceptions=True)


class _Stream:
    """`serve` reads chunks and sees to it that they are answered; who hands out an answer makes room for a chunk."""

    def __init__(self, call: Call, parts: Parts, departure: asyncio.Task[CallError]) -> None:
        self._call = call
        self._parts = parts
        self._departure = departure
        self._room = asyncio.Semaphore(parts.stream_limits.max_chunks)
        self._chunk_ids: set[int] = set()  # of those whose answers were not handed out
        self._num_unanswered = 0
        self._answers: asyncio.Queue[EmbedStreamResponse | None] = asyncio.Queue()

    async def next_answer(self) -> EmbedStreamResponse | None:
        """None after the last one."""
        answer = await self._answers.get()
        if answer is not None:
            self._chunk_ids.remove(answer.chunk_id)  # now, since who has the answer may use the id again
        return answer

    def make_room(self) -> None:
        self._room.release()

    async def serve(self, requests: AsyncIterator[EmbedStreamRequest]) -> None:
        """Raises CallError."""
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(requests, tasks))
                await asyncio.wait({reading, self._departure}, return_when=asyncio.FIRST_COMPLETED)
                has_read_all = reading.done()
                reading.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # chunks raise nothing, so it is what reading raised
        finally:
            self._answers.put_nowait(None)
        if self._num_unanswered or not has_read_all:
            raise self._departure.result()

    async def _read(self, requests: AsyncIterator[EmbedStreamRequest], tasks: asyncio.TaskGroup) -> None:
        """Start on chunks until the client has sent all. Raises CallError."""
        async with asyncio.timeout(self._parts.stream_limits.config_timeout_s):  # who never sends it may not stay
            config = _config_of(await anext(requests, None))
        self._check_config(config)
        await self._room.acquire()
        async for request in requests:
            tasks.create_task(self._answer(self._accept(request), config))
            await self._room.acquire()

    def _check_config(self, config: EmbedConfig) -> None:
        """Refuse what no chunk could pass; what may be otherwise in a moment is left to the chunks."""
        try:
            validate_chunk(EmbedRequest(config=config, inputs=["-"]), self._call, self._parts)
        except CallError as error:
            if error.retry_s is None:
                raise

    def _accept(self, request: EmbedStreamRequest) -> EmbedChunk:
        chunk = _chunk_of(request)
        if chunk.chunk_id in self._chunk_ids:
            raise invalid_field("chunk.chunk_id", f"{chunk.chunk_id} is in flight already")
        self._chunk_ids.add(chunk.chunk_id)
        self._num_unanswered += 1
        return chunk

    async def _answer(self, chunk: EmbedChunk, config: EmbedConfig) -> None:
        answer = await answer_chunk(chunk, config, self._call, self._parts, self._departure)
        self._num_unanswered -= 1
        self._answers.put_nowait(answer)


async def _departure(parts: Parts) -> CallError:
    """Comes back when a stream that begins now can stay no longer: what its client is told."""
    try:
        async with asyncio.timeout(parts.stream_limits.max_age_s):
            await parts.draining.wait()
    except TimeoutError:
        return unavailable(Reason.STREAM_AGED, "the stream is as old as a connection may be; open another", retry_s=0)
    return unavailable(Reason.DRAINING, "the gateway is stopping")


def _config_of(request: EmbedStreamRequest | None) -> EmbedConfig:
    if request is None or not request.HasField("config"):
        raise invalid_field("config", "must be the first message")
    return request.config


def _chunk_of(request: EmbedStreamRequest) -> EmbedChunk:
    if request.HasField("config"):
        raise invalid_field("config", "must be the first message, and no other")
    if not request.HasField("chunk"):
        raise invalid_field("chunk", "is missing")
    return request.chunk
