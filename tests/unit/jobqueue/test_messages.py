import struct
from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobqueue.messages import (
    ANSWER_VERSION,
    JOB_VERSION,
    DecodeError,
    Failure,
    FailureReason,
    Job,
    Operation,
    Result,
    VectorEncoding,
    decode_answer,
    decode_job,
    encode_answer,
    encode_job,
)

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)


def token_ids(min_size=0):
    return st.lists(INT32, min_size=min_size, max_size=8).map(lambda ids: array("i", ids))


JOBS = st.builds(
    Job,
    operation=st.sampled_from(Operation),
    prefix=token_ids(),
    tails=st.lists(token_ids(min_size=1), min_size=1, max_size=5).map(tuple),
    dimensions=INT32,
    normalize=st.booleans(),
    encoding=st.sampled_from(VectorEncoding),
)


@st.composite
def results(draw):
    num_rows = draw(st.integers(1, 6))
    row_bytes = draw(st.integers(1, 12))
    num_scale_bytes = draw(st.sampled_from([0, 4 * num_rows]))
    return Result(
        rows=draw(st.binary(min_size=num_rows * row_bytes, max_size=num_rows * row_bytes)),
        num_rows=num_rows,
        scales=draw(st.binary(min_size=num_scale_bytes, max_size=num_scale_bytes)),
        computed_tokens=draw(INT64),
        queue_us=draw(INT64),
        compute_us=draw(INT64),
    )


FAILURES = st.builds(Failure, reason=st.sampled_from(FailureReason), message=st.text(), sequence=INT32)
ANSWERS = results() | FAILURES

JOB = Job(operation=Operation.EMBED, prefix=array("i", [7]), tails=(array("i", [8, 9]), array("i", [10])))
RESULT = Result(rows=b"12345678", num_rows=2, scales=b"abcdefgh", computed_tokens=3, queue_us=4, compute_us=5)
FAILURE = Failure(reason=FailureReason.INVALID_JOB, message="wörds", sequence=1)


@given(JOBS)
def test_a_job_comes_back_as_it_was_sent(job):
    assert decode_job(encode_job(job)) == job


@given(ANSWERS)
def test_an_answer_comes_back_as_it_was_sent(answer):
    assert decode_answer(encode_answer(answer)) == answer


def test_integers_travel_little_endian():
    payload = encode_job(JOB)
    assert payload == struct.pack("<4B3i6i", 1, 1, 1, 1, 0, 1, 2, 2, 1, 7, 8, 9, 10)


def test_lengths_count_the_shared_prefix():
    assert JOB.lengths == [3, 2]


def test_a_row_is_an_even_share_of_the_bytes():
    assert RESULT.row_bytes == 4


@given(st.binary() | st.binary().map(lambda rest: bytes([JOB_VERSION]) + rest))
def test_any_bytes_are_a_job_or_a_decode_error(payload):
    try:
        job = decode_job(payload)
    except DecodeError:
        return
    assert encode_job(job) == payload


@given(st.binary() | st.binary().map(lambda rest: bytes([ANSWER_VERSION]) + rest))
@example(bytes([ANSWER_VERSION, 2]) + encode_answer(RESULT)[2:])
def test_any_bytes_are_an_answer_or_a_decode_error(payload):
    try:
        answer = decode_answer(payload)
    except DecodeError:
        return
    assert encode_answer(answer) == payload


@given(JOBS, st.data())
def test_a_job_with_changed_bytes_is_another_job_or_a_decode_error(job, data):
    payload = bytearray(encode_job(job))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255]))
    try:
        decoded = decode_job(bytes(payload))
    except DecodeError:
        return
    assert encode_job(decoded) == payload


@given(ANSWERS, st.data())
def test_an_answer_with_changed_bytes_is_another_answer_or_a_decode_error(answer, data):
    payload = bytearray(encode_answer(answer))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255]))
    try:
        decoded = decode_answer(bytes(payload))
    except DecodeError:
        return
    assert encode_answer(decoded) == payload


@given(JOBS)
def test_no_part_of_a_job_is_a_job(job):
    payload = encode_job(job)
    for length in range(len(payload)):
        with pytest.raises(DecodeError):
            decode_job(payload[:length])
    for more in (b"\x00", b"\x00" * 4):
        with pytest.raises(DecodeError):
            decode_job(payload + more)


def test_a_result_is_refused_where_it_ends_within_a_row_or_its_head():
    payload = encode_answer(RESULT)
    for length in [*range(len(payload) - 8), *range(len(payload) - 7, len(payload), 2)]:
        with pytest.raises(DecodeError):
            decode_answer(payload[:length])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_named(version):
    foreign = bytes([version])
    with pytest.raises(DecodeError, match=f"message version {version}, this process reads {JOB_VERSION}"):
        decode_job(foreign + encode_job(JOB)[1:])
    with pytest.raises(DecodeError, match=f"message version {version}, this process reads {ANSWER_VERSION}"):
        decode_answer(foreign + encode_answer(FAILURE)[1:])


@pytest.mark.parametrize("decode", [decode_job, decode_answer])
def test_nothing_is_no_message(decode):
    with pytest.raises(DecodeError, match="message version nothing"):
        decode(b"")


@pytest.mark.parametrize(
    ("offset", "wrong"),
    [
        (1, b"\x00"),  # operation
        (1, b"\x03"),
        (2, b"\x00"),  # encoding
        (2, b"\x06"),
        (3, b"\x02"),  # normalize
        (8, struct.pack("<i", -1)),  # tokens of the prefix
        (8, struct.pack("<i", 2)),
        (8, struct.pack("<i", 2**31 - 1)),
        (12, struct.pack("<i", 0)),  # tails
        (12, struct.pack("<i", -1)),
        (12, struct.pack("<i", 2**31 - 1)),
        (16, struct.pack("<i", 0)),  # length of the first tail
        (16, struct.pack("<i", -2)),
        (16, struct.pack("<i", 2**31 - 1)),
    ],
)
def test_a_job_that_contradicts_itself_is_refused(offset, wrong):
    payload = encode_job(JOB)
    with pytest.raises(DecodeError, match="not a job"):
        decode_job(payload[:offset] + wrong + payload[offset + len(wrong) :])


def test_a_negative_number_of_tails_is_refused_where_the_rest_would_fit():
    with pytest.raises(DecodeError, match="not a job"):
        decode_job(struct.pack("<4B3i2i", JOB_VERSION, 1, 1, 1, 0, 0, -1, 1, 42))


@pytest.mark.parametrize(
    ("offset", "wrong"),
    [
        (1, b"\x02"),  # kind
        (2, struct.pack("<i", 0)),  # rows
        (2, struct.pack("<i", -2)),
        (2, struct.pack("<i", 3)),
        (6, struct.pack("<i", 4)),  # bytes of scales
        (6, struct.pack("<i", -8)),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(offset, wrong):
    payload = encode_answer(RESULT)
    with pytest.raises(DecodeError, match="not an answer"):
        decode_answer(payload[:offset] + wrong + payload[offset + len(wrong) :])


@pytest.mark.parametrize(("offset", "wrong"), [(2, b"\x00"), (2, b"\x63"), (8, b"\xff")])
def test_a_failure_of_unknown_reason_or_broken_words_is_refused(offset, wrong):
    payload = encode_answer(FAILURE)
    with pytest.raises(DecodeError, match="not an answer"):
        decode_answer(payload[:offset] + wrong + payload[offset + len(wrong) :])
