"""Errors of a call, named by whose fault they are; the one table from gRPC's statuses to them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

_DETAILS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "x-request-id"


class Qwen3Error(Exception):
    """A call that failed.

    `code` is the gRPC status name, `reason` the server's ErrorInfo reason, `field_violations` pairs of field path and
    description, `retry_after_s` the wait that the server asks for, `request_id` what to search the server's logs for.
    """

    # Every argument but the message has a default, so that errors survive pickling between processes.
    def __init__(
        self,
        message: str,
        *,
        code: str = "UNKNOWN",
        reason: str = "",
        field_violations: tuple[tuple[str, str], ...] = (),
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.field_violations = field_violations
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    def __str__(self) -> str:
        """One line: code, reason, message, bad fields and the request id, as far as they are known."""
        head = f"{self.code} ({self.reason})" if self.reason else self.code
        # A server's message often is the field's description: said once.
        fields = [f"{field}: {what}" for field, what in self.field_violations if what not in self.message]
        tail = f" [request {self.request_id}]" if self.request_id else ""
        return "; ".join([f"{head}: {self.message}", *fields]) + tail


class InvalidRequestError(Qwen3Error):
    """The caller's: `field_violations` names what to change."""


class ModelNotFoundError(Qwen3Error):
    """The caller's: no such model is served."""


class UnauthenticatedError(Qwen3Error):
    """The caller's: no credentials, or wrong ones."""


class NotAllowedError(Qwen3Error):
    """The caller's: these credentials do not reach so far."""


class ResourceExhaustedError(Qwen3Error):
    """The caller's: more than its quota, or than a message may hold; `retry_after_s` where waiting helps."""


class UnavailableError(Qwen3Error):
    """Nobody's for long: the server is away, full or without workers, after the built-in retries."""


class DeadlineExceededError(Qwen3Error):
    """No answer within the client's timeout."""


class RevisionChangedError(Qwen3Error):
    """Nobody's: the server took up a new revision between two calls of one long embed."""


class ServerFaultError(Qwen3Error):
    """The server's."""


_ERRORS: Mapping[grpc.StatusCode, type[Qwen3Error]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.INTERNAL: ServerFaultError,
    grpc.StatusCode.DATA_LOSS: ServerFaultError,
}


class FailedCall(Protocol):
    """What both grpc's and grpc.aio's call errors have."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def error_of(call: FailedCall) -> Qwen3Error:
    """The error of a failed call, with whatever the server said about it."""
    trailers = dict(call.trailing_metadata() or ())
    details = _details(trailers.get(_DETAILS_KEY, b""))
    return _ERRORS.get(call.code(), Qwen3Error)(
        call.details() or "",
        code=call.code().name,
        reason=details.reason,
        field_violations=details.field_violations,
        retry_after_s=details.retry_after_s,
        request_id=str(trailers.get(_REQUEST_ID_KEY, "")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    reason: str
    field_violations: tuple[tuple[str, str], ...]
    retry_after_s: float | None


def _details(encoded: str | bytes) -> _Details:
    try:
        status = Status.FromString(encoded)
    except (DecodeError, TypeError):
        # Written by a proxy, not by our server: the status code still says what happened.
        status = Status()
    reason, violations, retry_after_s = "", [], None
    for detail in status.details:
        if detail.Unpack(info := ErrorInfo()):
            reason = info.reason
        elif detail.Unpack(bad_request := BadRequest()):
            violations += [(violation.field, violation.description) for violation in bad_request.field_violations]
        elif detail.Unpack(retry := RetryInfo()):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return _Details(reason=reason, field_violations=tuple(violations), retry_after_s=retry_after_s)
