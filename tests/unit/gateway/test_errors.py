"""From what went wrong to what the caller is told: code, reason, details, trailers."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from gateway.errors import DOMAIN, CallError, explain, invalid_field, trailing_metadata, unavailable
from gateway.reasons import Reason
from jobqueue.errors import CallTooLargeError, DrainingError, JobFailedError, QueueAwayError, QueueFullError
from jobqueue.messages import Failure, FailureReason

SECRET = "text of another caller"


def told(error: BaseException, inputs_field: str = "inputs") -> CallError:
    return explain(error, request_id="r-1", inputs_field=inputs_field)


def details(error: CallError) -> dict[str, object]:
    """The details on the wire, by kind."""
    trailers = dict(trailing_metadata(error))
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code.value[0]
    assert status.message == error.message
    found = {}
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if packed.Unpack(message):
                found[kind.__name__] = message
    assert len(found) == len(status.details)
    return found


def failed(reason: FailureReason, message: str = "why", sequence: int = -1) -> JobFailedError:
    return JobFailedError(Failure(reason=reason, message=message, sequence=sequence))


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (TimeoutError(), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
        (QueueFullError("x", retry_s=1), "UNAVAILABLE", "QUEUE_FULL"),
        (DrainingError("x"), "UNAVAILABLE", "DRAINING"),
        (QueueAwayError("x"), "UNAVAILABLE", "QUEUE_AWAY"),
        (CallTooLargeError("x"), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (failed(FailureReason.POISON_INPUT), "INTERNAL", "POISON_INPUT"),
        (failed(FailureReason.NON_FINITE_RESULT), "INTERNAL", "NON_FINITE_RESULT"),
        (failed(FailureReason.INVALID_JOB), "INTERNAL", "INVALID_JOB"),
        (failed(FailureReason.OUT_OF_MEMORY), "INTERNAL", "OUT_OF_MEMORY"),
        (ValueError(SECRET), "INTERNAL", "BUG"),
        (KeyError(SECRET), "INTERNAL", "BUG"),
        (invalid_field("query", "is empty"), "INVALID_ARGUMENT", "INVALID_FIELD"),
        (unavailable(Reason.NO_WORKER, "none"), "UNAVAILABLE", "NO_WORKER"),
    ],
)
def test_every_error_has_its_code_and_an_error_info(error, code, reason):
    found = told(error)
    info = details(found)["ErrorInfo"]
    assert found.code is grpc.StatusCode[code]
    assert (info.reason, info.domain) == (reason, DOMAIN)
    assert SECRET not in found.message


def test_every_failure_of_a_job_is_explained():
    for reason in FailureReason:
        assert told(failed(reason)).reason == reason.name


def test_a_bug_tells_the_request_id_and_nothing_else():
    assert told(ValueError(SECRET)).message == "internal error; request id r-1"
    assert set(details(told(ValueError(SECRET)))) == {"ErrorInfo"}


def test_what_ends_a_call_already_is_told_as_it_is():
    error = invalid_field("query", "is empty")
    assert told(error) is error


def test_a_wrong_field_is_in_the_message_and_in_a_bad_request():
    found = told(invalid_field("inputs[3]", "is empty"))
    assert found.message == "inputs[3]: is empty"
    [violation] = details(found)["BadRequest"].field_violations
    assert (violation.field, violation.description) == ("inputs[3]", "is empty")
    assert "RetryInfo" not in details(found)


@pytest.mark.parametrize("field", ["inputs", "documents"])
def test_a_call_larger_than_the_queue_names_the_texts(field):
    [violation] = details(told(CallTooLargeError("9 tokens"), field))["BadRequest"].field_violations
    assert (violation.field, violation.description) == (field, "9 tokens")


@pytest.mark.parametrize("error", [DrainingError("x"), QueueAwayError("x"), unavailable(Reason.NO_WORKER, "none")])
def test_what_may_be_tried_again_says_when(error):
    found = told(error)
    delay = details(found)["RetryInfo"].retry_delay
    pushback_ms = int(dict(trailing_metadata(found))["grpc-retry-pushback-ms"])
    assert pushback_ms == delay.seconds * 1000 + delay.nanos // 1_000_000 == 1000


def test_a_delay_may_be_a_part_of_a_second():
    error = unavailable(Reason.NO_WORKER, "x", retry_s=2.25)
    delay = details(error)["RetryInfo"].retry_delay
    assert (delay.seconds, delay.nanos) == (2, 250_000_000)
    assert dict(trailing_metadata(error))["grpc-retry-pushback-ms"] == "2250"


@pytest.mark.parametrize("error", [TimeoutError(), ValueError("x"), failed(FailureReason.POISON_INPUT)])
def test_what_may_not_be_tried_again_has_no_pushback(error):
    assert set(dict(trailing_metadata(told(error)))) == {"grpc-status-details-bin"}


def test_a_non_finite_result_names_the_text_at_fault():
    error = failed(FailureReason.NON_FINITE_RESULT, "not finite", sequence=4)
    assert told(error, "documents").message == "documents[4]: not finite"
    assert told(failed(FailureReason.NON_FINITE_RESULT, "not finite")).message == "not finite"


def test_metadata_is_in_the_error_info():
    error = CallError(reason=Reason.MODEL_NOT_FOUND, message="x", metadata={"served": "a,b"})
    assert dict(details(error)["ErrorInfo"].metadata) == {"served": "a,b"}


def test_a_full_queue_says_when_there_will_be_room():
    found = told(QueueFullError("x", retry_s=2.75))
    delay = details(found)["RetryInfo"].retry_delay
    assert (delay.seconds, delay.nanos) == (2, 750_000_000)
    assert ("grpc-retry-pushback-ms", "2750") in trailing_metadata(found)
