"""Errors of a call, named by whose fault they are; the one table from gRPC's statuses to them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from qwen3.inference.v1.embedding_pb2 import ChunkError

_DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"


class Qwen3Error(Exception):
    """A call that failed.

    `code` is the gRPC status name, `reason` the server's ErrorInfo reason and `metadata` what belongs to it,
    `field_violations` pairs of field path and description, `quota_violations` pairs of subject and description,
    `retry_after_s` the wait that the server asks for, `request_id` what to search the server's logs for. Where a
    long call was sent in parts, paths such as `inputs[70]` count from the start of the whole.
    """

    # Every argument but the message has a default, so that errors survive pickling between processes.
    def __init__(
        self,
        message: str,
        *,
        code: str = "UNKNOWN",
        reason: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        field_violations: tuple[tuple[str, str], ...] = (),
        quota_violations: tuple[tuple[str, str], ...] = (),
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata)
        self.field_violations = field_violations
        self.quota_violations = quota_violations
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
    """The caller's: no such model is served; `metadata` has the ids of those that are."""


class UnauthenticatedError(Qwen3Error):
    """The caller's: no credentials, or wrong ones."""


class NotAllowedError(Qwen3Error):
    """The caller's: these credentials do not reach so far."""


class ResourceExhaustedError(Qwen3Error):
    """The caller's: more than its quota, or than a message may hold.

    `quota_violations` says which quota, `retry_after_s` when there is room again, where waiting helps.
    """


class UnavailableError(Qwen3Error):
    """Nobody's for long: the server is away, full or without workers, after the built-in retries."""


class DeadlineExceededError(Qwen3Error):
    """No answer within the client's timeout."""


class CallCancelledError(Qwen3Error):
    """The caller's: it closed the client while the call was under way."""


class RevisionChangedError(Qwen3Error):
    """Nobody's: the server took up a new revision of the model between two parts of one call."""


class ServerFaultError(Qwen3Error):
    """The server's: `request_id` finds it in its log."""


class PoisonInputError(ServerFaultError):
    """The server's: these texts ended their worker three times. The server keeps them for its operator."""


class NonFiniteResultError(ServerFaultError):
    """The server's: the model's result was not a number."""


_ERRORS: Mapping[grpc.StatusCode, type[Qwen3Error]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.INTERNAL: ServerFaultError,
    grpc.StatusCode.DATA_LOSS: ServerFaultError,
}
_ERRORS_BY_REASON: Mapping[str, type[Qwen3Error]] = {
    "POISON_INPUT": PoisonInputError,
    "NON_FINITE_RESULT": NonFiniteResultError,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_PLACE = re.compile(r"(?<=^inputs\[)\d+(?=\])|(?<=^documents\[)\d+(?=\])")


class FailedCall(Protocol):
    """What both grpc's and grpc.aio's call errors have."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def error_of(call: FailedCall, *, first: int = 0) -> Qwen3Error:
    """The error of a failed call, with whatever the server said about it.

    `first` is the place of the call's first text among all that the caller gave.
    """
    # By pairs: older grpc.aio's are no mapping, though they look like one.
    trailers = dict(iter(call.trailing_metadata() or ()))
    return _error(
        call.code(),
        call.details() or "",
        _status(trailers.get(_DETAILS_KEY, b"")),
        first=first,
        request_id=str(trailers.get(REQUEST_ID_KEY, "")),
    )


def error_of_chunk(error: ChunkError, *, first: int, request_id: str) -> Qwen3Error:
    """The same for a chunk of the stream that goes by `request_id`."""
    status = Status(code=error.code, message=error.message, details=error.details)
    return _error(
        _CODES.get(error.code, grpc.StatusCode.UNKNOWN), error.message, status, first=first, request_id=request_id
    )


def closed() -> CallCancelledError:
    """What calls on a closed client end with."""
    return CallCancelledError("the client is closed", code="CANCELLED")


def _error(code: grpc.StatusCode, message: str, status: Status, *, first: int, request_id: str) -> Qwen3Error:
    details = _details(status, first)
    kind = _ERRORS_BY_REASON.get(details.reason) or _ERRORS.get(code, Qwen3Error)
    return kind(_moved(message, first), code=code.name, request_id=request_id, **asdict(details))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    """Those of Qwen3Error that google.rpc.Status has."""

    reason: str
    metadata: dict[str, str]
    field_violations: tuple[tuple[str, str], ...]
    quota_violations: tuple[tuple[str, str], ...]
    retry_after_s: float | None


def _status(encoded: str | bytes) -> Status:
    try:
        return Status.FromString(encoded)
    except (DecodeError, TypeError):
        # Written by a proxy, not by our server: the status code still says what happened.
        return Status()


def _details(status: Status, first: int) -> _Details:
    info, bad_request, quota, retry = ErrorInfo(), BadRequest(), QuotaFailure(), RetryInfo()
    unpacked = {
        type(into) for detail in status.details for into in (info, bad_request, quota, retry) if detail.Unpack(into)
    }
    return _Details(
        reason=info.reason,
        metadata=dict(info.metadata),
        field_violations=tuple((_moved(bad.field, first), bad.description) for bad in bad_request.field_violations),
        quota_violations=tuple((over.subject, over.description) for over in quota.violations),
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if RetryInfo in unpacked else None,
    )


def _moved(path: str, first: int) -> str:
    """`inputs[3]: ...` of a part that begins at 64 is `inputs[67]: ...` of the whole."""
    return _PLACE.sub(lambda place: str(int(place[0]) + first), path)
