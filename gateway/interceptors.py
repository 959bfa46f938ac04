"""Around every method: its deadline, its id, who calls, and the only place where errors become statuses."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from gateway.calls import REQUEST_ID_KEY, Call, Context, Metadata, current_call
from gateway.errors import CallError, explain, trailing_metadata, unavailable
from gateway.identity.access import OURS, Identify, find_caller
from gateway.observing.observers import CallObserver, note_end
from gateway.reasons import Reason

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


# Stands for a request whose bytes do not parse, which gRPC would otherwise answer by itself, and badly.
_MALFORMED = object()


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
        self._handlers: dict[str, Handler] = {}  # gRPC asks anew for each call
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._others: set[asyncio.Task[Any]] = set()  # of services that are not ours

    async def drain(self, grace_s: float) -> None:
        """Let calls in flight finish, once the server takes no new ones; those that outlast the grace go elsewhere.

        So do at once those of other services, such as watches of health, which have no end of their own.
        """
        self._draining.set()
        for call in self._others:
            call.cancel()
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
        method = handler_call_details.method
        if method not in self._handlers:
            handler = await continuation(handler_call_details)
            if handler is None:  # an unknown method, which gRPC answers with UNIMPLEMENTED
                return None
            self._handlers[method] = self._around(handler, method)
        return self._handlers[method]

    def _around(self, handler: Any, method: str) -> Handler:
        codec = {
            "request_deserializer": _tolerant(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        # As if all clients sent streams: where gRPC reads a call's only message, it does so before it asks us anything,
        # of clients that nobody knows, and waits for the rest of it for ever.
        if handler.unary_unary:
            return grpc.stream_unary_rpc_method_handler(self._unary(handler.unary_unary, method), **codec)
        if handler.unary_stream:
            behavior = _after_reading(handler.unary_stream, timeout_s=self._default_timeout_s)
            return grpc.stream_stream_rpc_method_handler(self._streaming(behavior, method), **codec)
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(self._streaming(handler.stream_stream, method), **codec)
        # None of our services has one, nor health, reflection and channelz: a new one shows at its first call.
        raise NotImplementedError(f"{method} streams requests only")

    def _unary(self, behavior: Any, method: str) -> Any:
        async def handle(_: Any, context: Context) -> Any:
            call = Call.begin(method, context, default_timeout_s=self._default_timeout_s)
            request = response = error = None
            try:
                self._begin(call, context)
                async with asyncio.timeout_at(self._message_due(call)) as timeout:
                    request = await _read(context)
                    timeout.reschedule(call.deadline)
                    call.take_id(getattr(request, "request_id", ""))
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

        async def handle(requests: Any, context: Context) -> None:
            call = Call.begin(method, context, default_timeout_s=math.inf)
            error = None
            try:
                self._begin(call, context)
                async with (
                    asyncio.timeout_at(call.deadline),
                    contextlib.aclosing(behavior(_each_checked(requests), context)) as responses,
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

    def _message_due(self, call: Call) -> float:
        """Clients may wait for long, but not keep others waiting: a call takes room before its message is there."""
        return min(call.deadline, asyncio.get_running_loop().time() + self._default_timeout_s)

    def _begin(self, call: Call, context: Context) -> None:
        """Raises CallError where the call may not go on."""
        current_call.set(call)
        metadata = cast("Metadata", context.invocation_metadata() or ())
        call.take_id(dict(metadata).get(REQUEST_ID_KEY))  # a stream's messages have none, and proxies send it
        for observer in self._observers:
            observer.began(call, metadata)
        task = cast("asyncio.Task[Any]", asyncio.current_task())  # handlers run in tasks
        if call.method.startswith(OURS):
            self._check_room()
            self._in_flight.add(task)
        elif self._draining.is_set():
            raise _draining()
        else:  # health first, they answer as long as there is somebody to ask
            self._others.add(task)
        call.identify = partial(self._identify, call.method, metadata, context)
        find_caller(call)

    def _explain_cancellation(self, call: Call) -> CallError | None:
        """None where the client hung up: then the exception goes on. Otherwise it was `drain`."""
        if self._draining.is_set():
            return _draining()
        self._end(call, None, code="CANCELLED")
        return None

    def _end(self, call: Call, error: CallError | None, *, code: str = "OK") -> None:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._in_flight.discard(task)
        self._others.discard(task)
        note_end(self._observers, call, error, code=code)

    def _check_room(self) -> None:
        if len(self._in_flight) >= self._max_in_flight:
            raise unavailable(Reason.OVERLOADED, f"{self._max_in_flight} calls are in flight already")


async def _write(context: Context, response: Any) -> None:
    """Comes back once the client has room for more."""
    try:
        await context.write(response)
    except grpc.aio.InternalError as gone:
        raise asyncio.CancelledError from gone


async def _finish(context: Context, call: Call, error: CallError | None) -> None:
    """Send the trailers, and the status of what went wrong."""
    trailers = [(REQUEST_ID_KEY, call.request_id)]
    if error is None:
        context.set_trailing_metadata(trailers)
        return
    try:
        await context.abort(error.code, error.message, (*trailers, *trailing_metadata(error)))
    except grpc.aio.InternalError as gone:  # the client hung up, most often at this very deadline
        raise asyncio.CancelledError from gone


def _draining() -> CallError:
    return unavailable(Reason.DRAINING, "the gateway is stopping")


def _inputs_field(request: Any) -> str:
    return "documents" if hasattr(request, "documents") else "inputs"


def _tolerant(deserialize: Any) -> Any:
    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _MALFORMED

    return parse


async def _read(context: Context) -> Any:
    """A call's only message. Raises CallError where there is none, or it does not parse."""
    request = await context.read()
    if request is grpc.aio.EOF:
        raise _malformed("the call came without its message")
    return _parsed(request)


def _after_reading(behavior: Any, *, timeout_s: float) -> Any:
    """The same for a client's stream, of which it gets the only message, or TimeoutError."""

    async def answer(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async with asyncio.timeout(timeout_s):
            request = await anext(requests, None)
        if request is None:
            raise _malformed("the call came without its message")
        async with contextlib.aclosing(behavior(request, context)) as responses:
            async for response in responses:
                yield response

    return answer


async def _each_checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _parsed(request)


def _parsed(request: Any) -> Any:
    if request is _MALFORMED:
        raise _malformed("the request's bytes do not parse as its message")
    return request


def _malformed(message: str) -> CallError:
    return CallError(reason=Reason.MALFORMED_REQUEST, message=message)
