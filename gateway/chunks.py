"""A chunk of a stream: a call of its own, which waits where another call would be refused for the moment."""

import asyncio
import time
from dataclasses import replace

from gateway.calls import Call
from gateway.errors import CallError, explain, rich_status, unavailable
from gateway.identity.access import find_caller
from gateway.observing.observers import note_end
from gateway.parts import Parts
from gateway.reasons import Reason
from gateway.validation import EmbedTask, validate_embed
from gateway.work import embed
from jobqueue.errors import QueueError
from jobqueue.lanes import Lane
from qwen3.inference.v1.embedding_pb2 import (
    ChunkError,
    EmbedChunk,
    EmbedConfig,
    EmbedRequest,
    EmbedResponse,
    EmbedStreamResponse,
)


def validate_chunk(request: EmbedRequest, call: Call, parts: Parts) -> EmbedTask:
    """By what is served now: models and their revisions come and go during a stream. Raises CallError."""
    return validate_embed(request, parts.registry.catalog, parts.limits, caller=call.caller, usual_lane=Lane.BULK)


async def answer_chunk(
    chunk: EmbedChunk, config: EmbedConfig, stream: Call, parts: Parts, departure: "asyncio.Future[CallError]"
) -> EmbedStreamResponse:
    """Its vectors, or why there are none.

    Raises only CancelledError, also where the chunk waits when `departure` comes, and is left to another gateway.
    """
    call = _begin(chunk.chunk_id, stream, parts)
    answer = EmbedStreamResponse(chunk_id=chunk.chunk_id)
    error = None
    try:
        async with asyncio.timeout_at(call.deadline):
            request = EmbedRequest(config=config, inputs=chunk.inputs)
            answer.result.CopyFrom(await _embed_patiently(request, call, parts, departure))
    except asyncio.CancelledError:
        note_end(parts.observers, call, None, code="CANCELLED")
        raise
    except Exception as raised:  # noqa: BLE001 - whatever ends a chunk does not end the stream
        error = explain(raised, request_id=call.request_id, inputs_field="inputs")
        answer.error.CopyFrom(_chunk_error(error))
    note_end(parts.observers, call, error)
    return answer


async def _embed_patiently(
    request: EmbedRequest, call: Call, parts: Parts, departure: "asyncio.Future[CallError]"
) -> EmbedResponse:
    """Come back when told to, as often as there is time for it."""
    while True:
        try:
            return await _embed(request, call, parts)
        except (CallError, QueueError) as raised:
            error = explain(raised, request_id=call.request_id, inputs_field="inputs")
            remaining_s = call.deadline - asyncio.get_running_loop().time()
            if error.retry_s is None or error.retry_s >= remaining_s:
                raise error from None
        await asyncio.wait({departure}, timeout=error.retry_s)
        if departure.done():
            raise asyncio.CancelledError
        call.is_retry = True


async def _embed(request: EmbedRequest, call: Call, parts: Parts) -> EmbedResponse:
    find_caller(call)  # what a tenant may do, or whether it is one, can have changed since the stream began
    if not parts.registry.catalog.reachable:  # before anything is tokenised: thousands of chunks may wait for Redis
        raise unavailable(Reason.QUEUE_AWAY, "the queue cannot be reached")
    return await embed(validate_chunk(request, call, parts), call, parts)


def _begin(chunk_id: int, stream: Call, parts: Parts) -> Call:
    deadline = asyncio.get_running_loop().time() + parts.stream_limits.chunk_timeout_s
    call = replace(
        stream,
        chunk_id=chunk_id,
        started=time.perf_counter(),
        deadline=min(deadline, stream.deadline),
        is_retry=False,
    )
    for observer in parts.observers:
        observer.began(call, ())
    return call


def _chunk_error(error: CallError) -> ChunkError:
    status = rich_status(error)
    return ChunkError(code=status.code, message=status.message, details=status.details)
