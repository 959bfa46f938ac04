"""Around every method: its deadline, its id, one log line, and the only place where errors become statuses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from gateway.calls import Call, current_call
from gateway.errors import CallError, explain, trailing_metadata, unavailable

HEALTH = "/grpc.health.v1."  # answered as long as there is somebody to ask

log = structlog.get_logger()

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


@dataclass(frozen=True, slots=True)
class _Malformed:
    """Stands for a request whose bytes do not parse, which gRPC would otherwise answer by itself, and badly."""

    reason: str


class CallInterceptor(grpc.aio.ServerInterceptor):
    """The outermost interceptor."""

    def __init__(self, *, default_timeout_s: float, max_in_flight: int) -> None:
        self._default_timeout_s = default_timeout_s
        self._max_in_flight = max_in_flight
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._is_draining = False

    async def drain(self, grace_s: float) -> None:
        """Refuse new calls and let those in flight finish; those that outlast the grace are sent elsewhere."""
        self._is_draining = True
        if self._in_flight:
            _, late = await asyncio.wait(self._in_flight, timeout=grace_s)
            for call in late:
                call.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:  # an unknown method, which gRPC answers with UNIMPLEMENTED
            return handler
        method = handler_call_details.method
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary, method),
                request_deserializer=_tolerant(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _well_formed(handler.unary_stream),
                request_deserializer=_tolerant(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        return handler

    def _unary(self, behavior: Any, method: str) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            call = Call.begin(request, context, default_timeout_s=self._default_timeout_s)
            current_call.set(call)
            with self._counted():
                return await self._answer(behavior, request, context, call, method)

        return handle

    async def _answer(self, behavior: Any, request: Any, context: Context, call: Call, method: str) -> Any:
        try:
            response, error = await self._attempt(behavior, request, context, call, method)
        except asyncio.CancelledError:
            _log_call(method, call, "CANCELLED")
            raise
        _log_call(method, call, error.code.name if error else "OK", error.reason if error else None)
        trailers = [("x-request-id", call.request_id)]
        if error is not None:
            await _abort(context, error, trailers)
        context.set_trailing_metadata(trailers)
        return response

    async def _attempt(
        self, behavior: Any, request: Any, context: Context, call: Call, method: str
    ) -> tuple[Any, CallError | None]:
        """The response, or why there is none. A cancellation by the client leaves as the exception that it is."""
        try:
            if not method.startswith(HEALTH):
                self._check_serving()
            _check_parsed(request)
            async with asyncio.timeout_at(call.deadline):
                return await behavior(request, context), None
        except asyncio.CancelledError:
            if self._is_draining:
                return None, _draining()
            raise
        except Exception as error:  # the one border where anything may arrive
            explained = explain(error, request_id=call.request_id, inputs_field=_inputs_field(request))
            if explained.reason == "BUG":
                log.exception("bug", request_id=call.request_id)
            return None, explained

    def _check_serving(self) -> None:
        if self._is_draining:
            raise _draining()
        if len(self._in_flight) > self._max_in_flight:
            raise unavailable("OVERLOADED", f"more than {self._max_in_flight} calls are in flight")

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        task = cast("asyncio.Task[Any]", asyncio.current_task())  # handlers run in tasks
        self._in_flight.add(task)
        try:
            yield
        finally:
            self._in_flight.discard(task)


async def _abort(context: Context, error: CallError, trailers: Sequence[tuple[str, str]]) -> None:
    try:
        await context.abort(error.code, error.message, (*trailers, *trailing_metadata(error)))
    except grpc.aio.InternalError as gone:  # the client hung up, most often at this very deadline
        raise asyncio.CancelledError from gone


def _draining() -> CallError:
    return unavailable("DRAINING", "the gateway is stopping")


def _inputs_field(request: Any) -> str:
    return "documents" if hasattr(request, "documents") else "inputs"


def _log_call(method: str, call: Call, code: str, reason: str | None = None) -> None:
    log.info(
        "call",
        method=method,
        code=code,
        reason=reason,
        request_id=call.request_id,
        duration_us=call.elapsed_us,
    )


def _tolerant(deserialize: Any) -> Any:
    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Malformed(str(error))

    return parse


def _check_parsed(request: Any) -> None:
    if isinstance(request, _Malformed):
        raise CallError(
            code=grpc.StatusCode.INVALID_ARGUMENT,
            reason="MALFORMED_REQUEST",
            message="the request's bytes do not parse as its message",
        )


def _well_formed(behavior: Any) -> Any:
    async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            _check_parsed(request)
        except CallError as error:
            await context.abort(error.code, error.message, tuple(trailing_metadata(error)))
        async for response in behavior(request, context):
            yield response

    return handle
