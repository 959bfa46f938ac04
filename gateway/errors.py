"""What a client is told when its call fails: one exception, and one table from what went wrong to it.

Every error carries a google.rpc.ErrorInfo, and never a traceback or anything of another caller's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import structlog
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from gateway.reasons import Reason
from jobqueue.errors import (
    CallTooLargeError,
    DrainingError,
    JobFailedError,
    NoWorkerError,
    QueueAwayError,
    QueueFullError,
)
from jobqueue.messages import Failure

DOMAIN = "qwen3.inference"
RETRY_S = 1.0

log = structlog.get_logger()


class CallError(Exception):
    """Ends a call with a reason, and the status that goes with it.

    `field` adds BadRequest, `quota_subject` QuotaFailure, `retry_s` RetryInfo; `metadata` is ErrorInfo's.
    """

    def __init__(
        self,
        *,
        reason: Reason,
        message: str,
        field: str = "",
        quota_subject: str = "",
        retry_s: float | None = None,
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.code = reason.code
        self.reason = reason.name
        self.message = message
        self.field = field
        self.quota_subject = quota_subject
        self.retry_s = retry_s
        self.metadata = metadata


def invalid_field(name: str, description: str) -> CallError:
    """The caller's mistake, in the named field of the request."""
    return CallError(reason=Reason.INVALID_FIELD, message=f"{name}: {description}", field=name)


def unavailable(reason: Reason, message: str, *, retry_s: float = RETRY_S) -> CallError:
    """Nobody's mistake: worth another try."""
    return CallError(reason=reason, message=message, retry_s=retry_s)


def explain(error: BaseException, *, request_id: str, inputs_field: str) -> CallError:
    """What the caller is told of `error`. An unknown one is a bug of ours: it is logged, and says no more."""
    if isinstance(error, CallError):
        return error
    if isinstance(error, CallTooLargeError):
        return invalid_field(inputs_field, str(error))
    if isinstance(error, JobFailedError):
        return _explain_failure(error.failure, inputs_field)
    if isinstance(error, QueueFullError):
        return unavailable(Reason.QUEUE_FULL, "the model's queue is full", retry_s=error.retry_s)
    for kind, build in _TABLE.items():
        if isinstance(error, kind):
            return build()
    log.error("bug", request_id=request_id, exc_info=error)
    return CallError(reason=Reason.BUG, message=f"internal error; request id {request_id}")


_TABLE: Mapping[type[BaseException], Callable[[], CallError]] = {
    TimeoutError: lambda: CallError(reason=Reason.DEADLINE_EXCEEDED, message="the deadline has passed"),
    DrainingError: lambda: unavailable(Reason.DRAINING, "the model is being drained"),
    NoWorkerError: lambda: unavailable(Reason.NO_WORKER, "no worker serves the model now"),
    QueueAwayError: lambda: unavailable(Reason.QUEUE_AWAY, "the queue cannot be reached"),
}


def _explain_failure(failure: Failure, inputs_field: str) -> CallError:
    where = f"{inputs_field}[{failure.sequence}]: " if failure.sequence >= 0 else ""
    return CallError(reason=Reason[failure.reason.name], message=f"{where}{failure.message}")


def trailing_metadata(error: CallError) -> Sequence[tuple[str, str | bytes]]:
    """The rich status, and for what may be tried again the pushback that clients' retry policies obey."""
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", rich_status(error).SerializeToString())]
    if error.retry_s is not None:
        trailers.append(("grpc-retry-pushback-ms", str(round(error.retry_s * 1000))))
    return trailers


def rich_status(error: CallError) -> status_pb2.Status:
    """All that is known of it, as google.rpc.Status."""
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    for detail in _details(error):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _details(error: CallError) -> Iterator[Message]:
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata))
    if error.field:
        description = error.message.removeprefix(f"{error.field}: ")
        bad = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=description)
        yield error_details_pb2.BadRequest(field_violations=[bad])
    if error.quota_subject:
        over = error_details_pb2.QuotaFailure.Violation(subject=error.quota_subject, description=error.message)
        yield error_details_pb2.QuotaFailure(violations=[over])
    if error.retry_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_s * 1000))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
