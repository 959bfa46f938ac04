"""What came of a case, and whether a gateway may answer so."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from qwen3.inference.v1 import embedding_pb2
from tests.fuzz.cases import Case

LIMIT_S = 60.0
_DETAILS = "grpc-status-details-bin"

# What grpc.aio's client says of a call that has ended before all of it was sent, in place of what it ended with. The
# gateway's own count of INTERNAL errors, which has to be 0, is looked at after all calls.
_SENT_TOO_LATE = "Internal error from Core"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`reason` is an ErrorInfo's, empty where there is none. `seconds` from the begin to the end."""

    case: Case
    code: grpc.StatusCode
    message: str
    reason: str
    responses: Sequence[bytes]
    seconds: float


def reason_of(trailers: Sequence[tuple[str, str | bytes]]) -> str:
    found = dict(trailers).get(_DETAILS)
    return _reason(status_pb2.Status.FromString(found).details) if isinstance(found, bytes) else ""


def fault_of(outcome: Outcome) -> str | None:
    """What is wrong with it, or None."""
    if outcome.seconds >= LIMIT_S:
        return "it hung"
    if fault := _fault_of_status(outcome):
        return fault
    try:
        responses = [outcome.case.rpc.response.FromString(response) for response in outcome.responses]
    except DecodeError:
        return "a response does not parse"
    chunks = [each.error for each in responses if isinstance(each, embedding_pb2.EmbedStreamResponse)]
    return next((fault for chunk in chunks if (fault := _fault_of_chunk(chunk))), None)


def _fault_of_status(outcome: Outcome) -> str | None:
    case, code = outcome.case, outcome.code
    if code is grpc.StatusCode.OK or _is_the_clients_doing(case, outcome):
        return None
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return "a bug"
    return None if outcome.reason else "it says no reason"


def _is_the_clients_doing(case: Case, outcome: Outcome) -> bool:
    if outcome.message == _SENT_TOO_LATE:
        return True
    if outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return case.timeout_s is not None
    hangs_up = case.hangs_up or case.rpc.is_endless or case.timeout_s is not None  # which the client may put either way
    return outcome.code is grpc.StatusCode.CANCELLED and hangs_up


def _fault_of_chunk(error: embedding_pb2.ChunkError) -> str | None:
    if not error.code:
        return None
    if error.code in (grpc.StatusCode.INTERNAL.value[0], grpc.StatusCode.UNKNOWN.value[0]):
        return "a chunk's bug"
    return None if _reason(error.details) else "a chunk's error says no reason"


def _reason(details: Sequence[Any]) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in details if detail.Unpack(info)), "")
