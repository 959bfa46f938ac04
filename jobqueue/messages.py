"""What travels through the queue: jobs one way, answers the other. Both start with a version byte.

Integers are little-endian. Token ids are int32. Nothing here knows Redis.
"""

import struct
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import TypeAlias

JOB_VERSION = 1
ANSWER_VERSION = 1

TokenIds: TypeAlias = "array[int]"  # of typecode "i": int32


class DecodeError(Exception):
    """Bytes that are not a message of a version this process reads; the other side is at fault."""


class Operation(IntEnum):
    EMBED = 1
    RERANK = 2


class VectorEncoding(IntEnum):
    """Values equal the public contract's; a test holds them together."""

    FLOAT32 = 1
    FLOAT16 = 2
    INT8 = 3
    BINARY = 4
    FLOAT_LIST = 5


class FailureReason(IntEnum):
    """Why a job has no result. Each is an answer, never a retry."""

    POISON_INPUT = 1
    NON_FINITE_RESULT = 2
    INVALID_JOB = 3
    OUT_OF_MEMORY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Token sequences that run together: sequence i is `prefix + tails[i]`, and no sequence is empty.

    `dimensions` (1 to the model's width), `normalize` and `encoding` matter for EMBED only.
    """

    operation: Operation
    prefix: TokenIds
    tails: tuple[TokenIds, ...]
    dimensions: int = 0
    normalize: bool = True
    encoding: VectorEncoding = VectorEncoding.FLOAT32

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence, prefix included."""
        return [len(self.prefix) + len(tail) for tail in self.tails]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row per sequence of the job.

    EMBED: `rows` are vectors in the asked encoding (FLOAT_LIST as float32), INT8 with one float32 scale a row in
    `scales`. RERANK: `rows` are float32 logit_yes - logit_no. `computed_tokens` are the tokens that were computed.
    """

    rows: bytes
    num_rows: int
    scales: bytes = b""
    computed_tokens: int
    queue_us: int
    compute_us: int

    @property
    def row_bytes(self) -> int:
        return len(self.rows) // self.num_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the job has no result, and the sequence at fault where one is (-1: the whole job)."""

    reason: FailureReason
    message: str
    sequence: int = -1


Answer = Result | Failure

_JOB_HEADER = struct.Struct("<BBBBiii")  # version, operation, encoding, normalize, dimensions, prefix, tails
_RESULT_HEADER = struct.Struct("<BBiiqqq")  # version, kind, rows, scale bytes, computed tokens, queue, compute us
_FAILURE_HEADER = struct.Struct("<BBBi")  # version, kind, reason, sequence
_RESULT, _FAILURE = 0, 1


def vector_bytes(dimensions: int, encoding: VectorEncoding) -> int:
    """The bytes of one vector, without its scale."""
    if encoding is VectorEncoding.BINARY:
        return -(-dimensions // 8)
    return dimensions * {VectorEncoding.INT8: 1, VectorEncoding.FLOAT16: 2}.get(encoding, 4)


def encode_job(job: Job) -> bytes:
    header = _JOB_HEADER.pack(
        JOB_VERSION,
        job.operation,
        job.encoding,
        job.normalize,
        job.dimensions,
        len(job.prefix),
        len(job.tails),
    )
    lengths = array("i", [len(tail) for tail in job.tails])
    return header + b"".join(_to_little_endian([lengths, job.prefix, *job.tails]))


def decode_job(payload: bytes) -> Job:
    """Raises DecodeError unless `payload` is one whole job of a known version."""
    _check_version(payload, JOB_VERSION)
    try:
        _, operation, encoding, normalize, dimensions, num_prefix, num_tails = _JOB_HEADER.unpack_from(payload)
        _check_header(num_tails=num_tails, normalize=normalize)
        integers = _from_little_endian(payload[_JOB_HEADER.size :])
        lengths, ids = integers[:num_tails], integers[num_tails:]
        return Job(
            operation=Operation(operation),
            prefix=ids[:num_prefix],
            tails=_cut(ids, start=num_prefix, lengths=lengths),
            dimensions=dimensions,
            normalize=bool(normalize),
            encoding=VectorEncoding(encoding),
        )
    except (struct.error, ValueError) as error:
        raise DecodeError(f"not a job: {error}") from error


def encode_answer(answer: Answer) -> bytes:
    if isinstance(answer, Failure):
        header = _FAILURE_HEADER.pack(ANSWER_VERSION, _FAILURE, answer.reason, answer.sequence)
        return header + answer.message.encode()
    header = _RESULT_HEADER.pack(
        ANSWER_VERSION,
        _RESULT,
        answer.num_rows,
        len(answer.scales),
        answer.computed_tokens,
        answer.queue_us,
        answer.compute_us,
    )
    return header + answer.scales + answer.rows


def decode_answer(payload: bytes) -> Answer:
    """Raises DecodeError unless `payload` is one whole answer of a known version."""
    _check_version(payload, ANSWER_VERSION)
    try:
        return _DECODERS[payload[1]](payload)
    except (struct.error, ValueError, LookupError) as error:
        raise DecodeError(f"not an answer: {error}") from error


def _decode_failure(payload: bytes) -> Failure:
    _, _, reason, sequence = _FAILURE_HEADER.unpack_from(payload)
    message = payload[_FAILURE_HEADER.size :].decode()
    return Failure(reason=FailureReason(reason), message=message, sequence=sequence)


def _decode_result(payload: bytes) -> Result:
    _, _, num_rows, num_scale_bytes, computed, queue_us, compute_us = _RESULT_HEADER.unpack_from(payload)
    body = payload[_RESULT_HEADER.size :]
    rows = body[num_scale_bytes:]
    if num_rows < 1 or num_scale_bytes not in (0, 4 * num_rows) or not rows or len(rows) % num_rows:
        raise ValueError(f"{len(rows)} bytes for {num_rows} rows, {num_scale_bytes} bytes of scales")
    return Result(
        rows=rows,
        num_rows=num_rows,
        scales=body[:num_scale_bytes],
        computed_tokens=computed,
        queue_us=queue_us,
        compute_us=compute_us,
    )


_DECODERS: dict[int, Callable[[bytes], Answer]] = {_RESULT: _decode_result, _FAILURE: _decode_failure}


def _check_version(payload: bytes, expected: int) -> None:
    if not payload or payload[0] != expected:
        found = payload[0] if payload else "nothing"
        raise DecodeError(f"message version {found}, this process reads {expected}")


def _check_header(*, num_tails: int, normalize: int) -> None:
    if num_tails < 1 or normalize > 1:
        raise ValueError(f"{num_tails} tails, normalize {normalize}")


def _cut(ids: TokenIds, *, start: int, lengths: TokenIds) -> tuple[TokenIds, ...]:
    if not lengths or min(lengths) < 1 or start < 0 or start + sum(lengths) != len(ids):
        raise ValueError(f"{len(ids)} token ids where the lengths say {start + sum(lengths)}")
    borders = list(accumulate(lengths, initial=start))
    return tuple(ids[begin:end] for begin, end in pairwise(borders))


def _to_little_endian(arrays: list[TokenIds]) -> list[bytes]:
    return [_swapped(values).tobytes() for values in arrays]


def _from_little_endian(data: bytes) -> TokenIds:
    values = array("i")
    values.frombytes(data)
    return _swapped(values)


def _swapped(values: TokenIds) -> TokenIds:
    if sys.byteorder == "little":
        return values
    swapped = array("i", values)
    swapped.byteswap()
    return swapped
