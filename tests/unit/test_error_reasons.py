"""Every reason that a gateway gives comes to the caller as an exception of its kind, with all that was said."""

from pathlib import Path

import pytest

from gateway.errors import CallError, rich_status, trailing_metadata
from gateway.reasons import Reason
from qwen3.inference.v1.embedding_pb2 import ChunkError
from qwen3_client import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    NonFiniteResultError,
    NotAllowedError,
    PoisonInputError,
    Qwen3Error,
    ResourceExhaustedError,
    ServerFaultError,
    UnauthenticatedError,
    UnavailableError,
)
from qwen3_client.errors import error_of, error_of_chunk

KINDS = {
    Reason.INVALID_FIELD: InvalidRequestError,
    Reason.MALFORMED_REQUEST: InvalidRequestError,
    Reason.WRONG_TASK: InvalidRequestError,
    Reason.MODEL_NOT_FOUND: ModelNotFoundError,
    Reason.UNKNOWN_SERVICE: ModelNotFoundError,
    Reason.UNAUTHENTICATED: UnauthenticatedError,
    Reason.METHOD_NOT_ALLOWED: NotAllowedError,
    Reason.MODEL_NOT_ALLOWED: NotAllowedError,
    Reason.PRIORITY_NOT_ALLOWED: NotAllowedError,
    Reason.QUOTA_REQUESTS: ResourceExhaustedError,
    Reason.QUOTA_TOKENS: ResourceExhaustedError,
    Reason.QUOTA_IN_FLIGHT: ResourceExhaustedError,
    Reason.QUEUE_FULL: UnavailableError,
    Reason.QUEUE_AWAY: UnavailableError,
    Reason.NO_WORKER: UnavailableError,
    Reason.OVERLOADED: UnavailableError,
    Reason.DRAINING: UnavailableError,
    Reason.STREAM_AGED: UnavailableError,
    Reason.DEADLINE_EXCEEDED: DeadlineExceededError,
    Reason.POISON_INPUT: PoisonInputError,
    Reason.NON_FINITE_RESULT: NonFiniteResultError,
    Reason.OUT_OF_MEMORY: ServerFaultError,
    Reason.INVALID_JOB: ServerFaultError,
    Reason.BUG: ServerFaultError,
}


class Refused:
    """What grpc raises where the gateway ends a call with `error`."""

    def __init__(self, error: CallError) -> None:
        self._error = error

    def code(self):
        return self._error.code

    def details(self):
        return self._error.message

    def trailing_metadata(self):
        return (*trailing_metadata(self._error), ("x-request-id", "r-1"))


def as_call(error: CallError) -> Qwen3Error:
    return error_of(Refused(error), first=64)


def as_chunk(error: CallError) -> Qwen3Error:
    status = rich_status(error)
    sent = ChunkError(code=status.code, message=status.message, details=status.details)
    return error_of_chunk(sent, first=64, request_id="r-1")


@pytest.mark.parametrize("received", [as_call, as_chunk])
@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_a_reason_is_an_exception_of_its_kind_with_its_details(reason, received):
    error = received(
        CallError(
            reason=reason,
            message="inputs[3]: why",
            field="inputs[3]",
            quota_subject="acme",
            retry_s=1.5,
            metadata={"served": "a,b"},
        )
    )
    assert type(error) is KINDS[reason]
    assert (error.code, error.reason, error.message) == (reason.code.name, reason.name, "inputs[67]: why")
    assert error.field_violations == (("inputs[67]", "why"),)
    assert error.quota_violations == (("acme", "inputs[3]: why"),)
    assert (error.retry_after_s, error.metadata, error.request_id) == (1.5, {"served": "a,b"}, "r-1")


def test_what_is_not_said_is_empty():
    error = as_call(CallError(reason=Reason.BUG, message="why"))
    assert (error.field_violations, error.quota_violations, error.retry_after_s, error.metadata) == ((), (), None, {})


def test_every_reason_is_in_the_clients_page():
    rows = [f"| `{reason.name}` | {reason.code.name} | {reason.meaning} |" for reason in Reason]
    page = Path("docs/clients.md").read_text()
    assert "\n".join(rows) in page
