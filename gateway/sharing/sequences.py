"""One sequence of a call by itself: what it is known by, and what answers it. Pure."""

import hashlib
import json
from collections.abc import Sequence

from jobqueue.announcements import Announcement
from jobqueue.messages import Job, Operation, Result, VectorEncoding, vector_bytes

KEY_BYTES = 32
SCALE_BYTES = 4

_VERSION = 1  # of what an answer's bytes mean


def sequence_keys(job: Job, announcement: Announcement, *, owner: str | None) -> list[bytes]:
    """Of each sequence a digest of all that its answer depends on, and of the tenant who owns it; None: all do.

    It is the whole sequence that counts, wherever the call's shared prefix ends.
    """
    about = [_VERSION, owner, announcement.queue, announcement.engine, announcement.dtype]
    about += [job.operation, job.dimensions, job.normalize, job.encoding]
    head = hashlib.blake2b(json.dumps(about).encode() + b"\0", digest_size=KEY_BYTES)
    head.update(job.prefix)
    keys = []
    for tail in job.tails:
        whole = head.copy()
        whole.update(tail)
        keys.append(whole.digest())
    return keys


def answer_bytes(job: Job) -> int:
    """The bytes that answer one of the job's sequences: its row, behind its scale where it has one."""
    if job.operation is Operation.RERANK:
        return vector_bytes(1, VectorEncoding.FLOAT32)
    return _scale_bytes(job) + vector_bytes(job.dimensions, job.encoding)


def cut(result: Result) -> list[bytes]:
    """The answer of each sequence."""
    num_rows, size, scale_size = result.num_rows, result.row_bytes, len(result.scales) // result.num_rows
    return [
        result.scales[index * scale_size : (index + 1) * scale_size] + result.rows[index * size : (index + 1) * size]
        for index in range(num_rows)
    ]


def join(job: Job, answers: Sequence[bytes], computed: Sequence[Result]) -> Result:
    """The job's result from its sequences' answers. Tokens and times are those of the results `computed` for it."""
    scale_size = _scale_bytes(job)
    return Result(
        rows=b"".join([answer[scale_size:] for answer in answers]),
        num_rows=len(answers),
        scales=b"".join([answer[:scale_size] for answer in answers]),
        computed_tokens=sum(result.computed_tokens for result in computed),
        queue_us=computed[-1].queue_us if computed else 0,
        compute_us=computed[-1].compute_us if computed else 0,
    )


def _scale_bytes(job: Job) -> int:
    return SCALE_BYTES if job.operation is Operation.EMBED and job.encoding is VectorEncoding.INT8 else 0
