"""Around every method: its deadline, its id, who calls, and the only place where errors become statuses."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from gateway.access import OURS, Identify, check_method
from gateway.calls import Call, current_call
from gateway.errors import CallError, explain, trailing_metadata, unavailable
from gateway.observers import CallObserver, note_end

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


@dataclass(frozen=True, slots=True)
class _Malformed:
    """Stands for a request whose bytes do not parse, which gRPC would otherwise answer by itself, and badly."""

    reason: str


class CallInterceptor(grpc.aio.ServerInterceptor):
    """The only interceptor, since each costs what a small method costs."""

    def __init__(
        self,
        *,
        default_timeout_s: float,
        max_in_flight: int,
        identify: Identify,
        observers: Sequence[CallObserver],
        draining: asyncio.Event,
    ) -> None:
        self._default_timeout_s = default_timeout_s
        self._max_in_flight = max_in_flight
        self._identify = identify
        self._observers = observers
        self._draining = draining
        self._in_flight: set[asyncio.Task[Any]] = set()

    async def drain(self, grace_s: float) -> None:
        """Let calls in flight finish, once the server takes no new ones; those that outlast the grace go elsewhere."""
        self._draining.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._in_flight:
                    await asyncio.wait(self._in_flight)
        late = tuple(self._in_flight)
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
        codec = {
            "request_deserializer": _tolerant(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, method), **codec)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream, method), **codec)
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(self._streaming(handler.stream_stream, method), **codec)
        raise NotImplementedError(f"{method} streams requests only")

    def _unary(self, behavior: Any, method: str) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            call = Call.begin(method, request, context, default_timeout_s=self._default_timeout_s)
            response = error = None
            try:
                self._begin(call, request, context)
                async with asyncio.timeout_at(call.deadline):
                    response = await behavior(request, context)
            except asyncio.CancelledError:
                error = self._explain_cancellation(call)
                if error is None:
                    raise
            except Exception as raised:  # noqa: BLE001 - the border where anything may arrive
                error = explain(raised, request_id=call.request_id, inputs_field=_inputs_field(request))
            self._end(call, error)
            await _finish(context, call, error)
            return response

        return handle

    def _streaming(self, behavior: Any, method: str) -> Any:
        """For methods that are async generators; without a deadline of their own where the client sets none.

        A generator that gRPC itself reads would not be closed when the call ends, only some time later.
        """

        async def handle(request: Any, context: Context) -> None:
            call = Call.begin(method, request, context, default_timeout_s=math.inf)
            error = None
            try:
                self._begin(call, request, context)
                async with (
                    asyncio.timeout_at(call.deadline),
                    contextlib.aclosing(behavior(_checked(request), context)) as responses,
                ):
                    async for response in responses:
                        await _write(context, response)
            except asyncio.CancelledError:
                error = self._explain_cancellation(call)
                if error is None:
                    raise
            except Exception as raised:  # noqa: BLE001 - as above
                error = explain(raised, request_id=call.request_id, inputs_field="inputs")
            self._end(call, error)
            await _finish(context, call, error)

        return handle

    def _begin(self, call: Call, request: Any, context: Context) -> None:
        """Raises CallError where the call may not go on."""
        current_call.set(call)
        metadata = cast("Sequence[tuple[str, str | bytes]]", context.invocation_metadata() or ())
        for observer in self._observers:
            observer.began(call, metadata)
        if call.method.startswith(OURS):  # other services, health first, answer as long as there is somebody to ask
            self._check_room()
            self._in_flight.add(cast("asyncio.Task[Any]", asyncio.current_task()))  # handlers run in tasks
        call.caller = self._identify(call.method, metadata, context)
        check_method(call.caller, call.method)
        _check_parsed(request)

    def _explain_cancellation(self, call: Call) -> CallError | None:
        """None where the client hung up: then the exception goes on. Otherwise it was `drain`."""
        if self._draining.is_set():
            return _draining()
        self._end(call, None, code="CANCELLED")
        return None

    def _end(self, call: Call, error: CallError | None, *, code: str = "OK") -> None:
        self._in_flight.discard(cast("asyncio.Task[Any]", asyncio.current_task()))
        note_end(self._observers, call, error, code=code)

    def _check_room(self) -> None:
        if len(self._in_flight) >= self._max_in_flight:
            raise unavailable("OVERLOADED", f"{self._max_in_flight} calls are in flight already")


async def _write(context: Context, response: Any) -> None:
    """Comes back once the client has room for more."""
    try:
        await context.write(response)
    except grpc.aio.InternalError as gone:
        raise asyncio.CancelledError from gone


async def _finish(context: Context, call: Call, error: CallError | None) -> None:
    """Send the trailers, and the status of what went wrong."""
    trailers = [("x-request-id", call.request_id)]
    if error is None:
        context.set_trailing_metadata(trailers)
        return
    try:
        await context.abort(error.code, error.message, (*trailers, *trailing_metadata(error)))
    except grpc.aio.InternalError as gone:  # the client hung up, most often at this very deadline
        raise asyncio.CancelledError from gone


def _draining() -> CallError:
    return unavailable("DRAINING", "the gateway is stopping")


def _inputs_field(request: Any) -> str:
    return "documents" if hasattr(request, "documents") else "inputs"


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


def _checked(request: Any) -> Any:
    """The same request; of a stream, an iterator that raises CallError at one that does not parse."""
    return _each_checked(request) if isinstance(request, AsyncIterator) else request


async def _each_checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        _check_parsed(request)
        yield request
