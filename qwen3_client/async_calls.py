"""Carries unary calls, for the async client: calls.py in asyncio's terms."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import grpc.aio

from qwen3_client.batches import Batch
from qwen3_client.errors import Qwen3Error, closed, error_of
from qwen3_client.requests import MAX_CALLS_IN_FLIGHT, CallOptions, ToRequest

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")

AsyncOptions: TypeAlias = Callable[[], Awaitable[CallOptions]]


async def call(
    method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Reply]", request: _Request, options: AsyncOptions
) -> _Reply:
    """The reply. Raises Qwen3Error."""
    return await _reply(method(request, **await options()), first=0)


async def call_all(
    method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Reply]",
    to_request: ToRequest[_Request],
    batches: Sequence[Batch],
    options: AsyncOptions,
) -> list[tuple[Batch, _Reply]]:
    """The replies, in order; a few calls are in flight at a time, and none once one has failed. Raises Qwen3Error.

    A batch that is too much for the server is sent again in halves.
    """
    again = partial(call_all, method, to_request, options=options)
    in_flight: deque[tuple[Batch, grpc.aio.UnaryUnaryCall[_Request, _Reply]]] = deque()
    answers: list[tuple[Batch, _Reply]] = []

    async def take_first() -> None:
        answers.extend(await _answers(*in_flight[0], again))
        in_flight.popleft()

    try:
        for batch in batches:
            if len(in_flight) == MAX_CALLS_IN_FLIGHT:
                await take_first()
            in_flight.append((batch, method(to_request(batch.texts), **await options())))
        while in_flight:
            await take_first()
    finally:
        for _, begun in in_flight:
            begun.cancel()
    return answers


async def _answers(
    batch: Batch,
    begun: "grpc.aio.UnaryUnaryCall[_Request, _Reply]",
    again: Callable[[Sequence[Batch]], Awaitable[list[tuple[Batch, _Reply]]]],
) -> list[tuple[Batch, _Reply]]:
    try:
        return [(batch, await _reply(begun, first=batch.first))]
    except Qwen3Error as error:
        if not batch.is_refused_as_too_much(error):
            raise
    return await again(batch.halves())


async def _reply(begun: "grpc.aio.UnaryUnaryCall[_Request, _Reply]", *, first: int) -> _Reply:
    try:
        return await begun
    except grpc.aio.AioRpcError as error:
        raise error_of(error, first=first) from error
    except asyncio.CancelledError:  # as grpc says that the client was closed, too
        if cast("asyncio.Task[Any]", asyncio.current_task()).cancelling():
            raise
        raise closed() from None
