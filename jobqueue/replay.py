"""Running a dead letter's job once more, alone, and waiting for what becomes of it.

The operator stands in for a gateway: it has a reply stream of its own, which it keeps alive while it waits.
"""

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import redis

from jobqueue.dead_letters import check_letter_ids, no_letter, read_letters
from jobqueue.keys import REPLIES_TTL_S, QueueKeys
from jobqueue.messages import Answer, DecodeError, Failure, FailureReason, decode_answer
from jobqueue.operator import Operator, OperatorError

BLOCK_MS = 1000  # also how often the reply stream's lifetime is refreshed
_SPARE_TTL_MS = 5000  # the one who waits gives up first, so that the job does not end as another dead letter

_NO_LETTER, _NO_PAYLOAD, _PAUSED = 0, -1, -2  # what replay.lua says in place of 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replay:
    queue: str
    letter_id: str
    gateway: str
    entry_id: bytes
    lane: bytes
    tokens: bytes


def replay(operator: Operator, queue: str, letter_id: str, *, timeout_s: float) -> Answer:
    """The job's answer now; its letter is removed where that is a result.

    Raises OperatorError where it cannot be replayed, or has no answer in time. Then it leaves the queue.
    """
    check_letter_ids([letter_id])
    with _admitted(operator, queue, letter_id, timeout_s) as job:
        answer = _wait(operator, job, time.monotonic() + timeout_s)
    if answer is None:
        num_live = operator.status(queue).num_live
        raise OperatorError(f"no answer in {timeout_s:g} s; the job has left the queue again; live workers: {num_live}")
    _update_letters(operator, job, answer)
    return answer


def _admit(operator: Operator, queue: str, letter_id: str, timeout_s: float) -> _Replay:
    gateway = f"operator-{secrets.token_hex(8)}"
    arguments = [letter_id, gateway, os.urandom(16), int(timeout_s * 1000) + _SPARE_TTL_MS, REPLIES_TTL_S]
    verdict, *admitted = operator.run(queue, "replay", arguments, gateway=gateway)
    if verdict == _NO_LETTER:
        raise OperatorError(no_letter(queue, letter_id))
    if verdict == _NO_PAYLOAD:
        raise OperatorError(f"dead letter {letter_id} has no payload: its worker ran with --dead-letters metadata")
    if verdict == _PAUSED:
        raise OperatorError(f"{queue} is paused, so nobody would run the job: resume it first")
    entry_id, lane, tokens = admitted
    return _Replay(queue=queue, letter_id=letter_id, gateway=gateway, entry_id=entry_id, lane=lane, tokens=tokens)


@contextlib.contextmanager
def _admitted(operator: Operator, queue: str, letter_id: str, timeout_s: float) -> Iterator[_Replay]:
    """The job in the queue. However the block ends, nothing of it stays; where Redis is away, its time to live ends it.

    SIGINT waits while the job goes in: between its admission and our knowing of it, nobody could withdraw it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        job = _admit(operator, queue, letter_id, timeout_s)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield job
        finally:
            _withdraw(operator, job)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _withdraw(operator: Operator, job: _Replay) -> None:
    with contextlib.suppress(redis.RedisError, OSError):
        operator.run(job.queue, "finish", [job.lane, job.entry_id, job.tokens, "", "", ""], gateway=job.gateway)
        operator.client.delete(QueueKeys(job.queue).replies(job.gateway))


def _wait(operator: Operator, job: _Replay, until: float) -> Answer | None:
    stream = QueueKeys(job.queue).replies(job.gateway)
    while (left_ms := int((until - time.monotonic()) * 1000)) > 0:
        if not operator.client.expire(stream, REPLIES_TTL_S):
            raise OperatorError("the server has lost the job: its data is gone")
        replies = cast(Any, operator.client.xread({stream: "0-0"}, count=1, block=min(left_ms, BLOCK_MS)))
        if replies:
            return _decode(replies[0][1][0][1])
    return None


def _decode(fields: dict[bytes, bytes]) -> Answer:
    try:
        return decode_answer(next(iter(fields.values())))
    except DecodeError as error:
        raise OperatorError(f"the answer cannot be read: {error}") from error


def _update_letters(operator: Operator, job: _Replay, answer: Answer) -> None:
    """A job that was answered needs no letter. One that failed again keeps the one it had, under the same id."""
    stream = QueueKeys(job.queue).dead
    if not isinstance(answer, Failure):
        operator.client.xdel(stream, job.letter_id)
    elif answer.reason is FailureReason.POISON_INPUT:
        entry_id = job.entry_id.decode()
        since = read_letters(operator, job.queue, since_ms=int(entry_id.partition("-")[0]))
        for letter_id in [letter.letter_id for letter in since if letter.entry_id == entry_id]:
            operator.client.xdel(stream, letter_id)
