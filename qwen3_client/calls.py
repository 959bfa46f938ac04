"""Carries unary calls, for the sync client: one message, or as many as the texts of a call need."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar, cast

import grpc

from qwen3_client.batches import Batch
from qwen3_client.errors import FailedCall, Qwen3Error, error_of
from qwen3_client.requests import MAX_CALLS_IN_FLIGHT, CallOptions, ToRequest

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")

Options: TypeAlias = Callable[[], CallOptions]


def call(method: "grpc.UnaryUnaryMultiCallable[_Request, _Reply]", request: _Request, options: Options) -> _Reply:
    """The reply. Raises Qwen3Error."""
    return _reply(partial(method, request, **options()))


def call_all(
    method: "grpc.UnaryUnaryMultiCallable[_Request, _Reply]",
    to_request: ToRequest[_Request],
    batches: Sequence[Batch],
    options: Options,
) -> list[tuple[Batch, _Reply]]:
    """The replies, in order; a few calls are in flight at a time, and none once one has failed. Raises Qwen3Error.

    A batch that is too much for the server is sent again in halves.
    """
    again = partial(call_all, method, to_request, options=options)
    if len(batches) == 1:  # a future would cost more
        return _answers(batches[0], partial(call, method, to_request(batches[0].texts), options), again)
    in_flight: deque[tuple[Batch, grpc.Future[_Reply]]] = deque()
    answers: list[tuple[Batch, _Reply]] = []

    def take_first() -> None:
        batch, future = in_flight[0]
        answers.extend(_answers(batch, partial(_reply, future.result, first=batch.first), again))
        in_flight.popleft()

    try:
        for batch in batches:
            if len(in_flight) == MAX_CALLS_IN_FLIGHT:
                take_first()
            in_flight.append((batch, method.future(to_request(batch.texts), **options())))
        while in_flight:
            take_first()
    finally:
        for _, future in in_flight:
            future.cancel()
    return answers


def _answers(
    batch: Batch, wait: Callable[[], _Reply], again: Callable[[Sequence[Batch]], list[tuple[Batch, _Reply]]]
) -> list[tuple[Batch, _Reply]]:
    try:
        return [(batch, wait())]
    except Qwen3Error as error:
        if not batch.is_refused_as_too_much(error):
            raise
    return again(batch.halves())


def _reply(wait: Callable[[], _Reply], *, first: int = 0) -> _Reply:
    try:
        return wait()
    except grpc.RpcError as error:
        raise error_of(cast("FailedCall", error), first=first) from error
