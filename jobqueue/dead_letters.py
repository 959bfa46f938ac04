"""Dead letters: what a queue set aside, oldest first."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jobqueue.keys import QueueKeys
from jobqueue.lanes import Lane
from jobqueue.messages import DecodeError, Job, decode_job
from jobqueue.operator import Operator, OperatorError

_AT_ONCE = 50  # a payload may be more than 100 KiB
_LETTER_ID = re.compile(r"\d+-\d+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that failed its workers. `payload` holds its token ids, which are text; None where it was not kept."""

    letter_id: str
    reason: str
    lane: Lane
    entry_id: str
    deliveries: int
    request_id: str
    tenant: str
    tokens: int
    cost: int
    payload: bytes | None

    @property
    def died_ms(self) -> int:
        """Server time since the epoch."""
        return int(self.letter_id.partition("-")[0])

    def job(self) -> Job | None:
        """What was asked, or None where it was not kept. Raises OperatorError where this version cannot read it."""
        try:
            return None if self.payload is None else decode_job(self.payload)
        except DecodeError as error:
            raise OperatorError(f"dead letter {self.letter_id} cannot be read: {error}") from error


def read_letters(operator: Operator, queue: str, *, since_ms: int = 0) -> Iterator[DeadLetter]:
    """All letters, or those that are not older than a time of the server's."""
    first = str(since_ms)
    while page := _page(operator, queue, first=first, last="+"):
        yield from page
        first = f"({page[-1].letter_id}"


def read_letter(operator: Operator, queue: str, letter_id: str) -> DeadLetter:
    """Raises OperatorError where there is none."""
    check_letter_ids([letter_id])
    found = _page(operator, queue, first=letter_id, last=letter_id)
    if not found:
        raise OperatorError(no_letter(queue, letter_id))
    return found[0]


def purge(operator: Operator, queue: str, letter_ids: Sequence[str]) -> int:
    """Remove these letters, or all where none are named; how many there were."""
    stream = QueueKeys(queue).dead
    check_letter_ids(letter_ids)
    if not letter_ids:
        return operator.client.xtrim(stream, maxlen=0, approximate=False)
    return operator.client.xdel(stream, *letter_ids)


def check_letter_ids(letter_ids: Sequence[str]) -> None:
    """Raises OperatorError for what no letter's id looks like."""
    for letter_id in letter_ids:
        if not _LETTER_ID.fullmatch(letter_id):
            raise OperatorError(f"{letter_id!r} is no dead letter's id, which looks like 1764000000000-0")


def no_letter(queue: str, letter_id: str) -> str:
    return f"{queue} has no dead letter {letter_id}"


def _page(operator: Operator, queue: str, *, first: str, last: str) -> list[DeadLetter]:
    entries = operator.client.xrange(QueueKeys(queue).dead, min=first, max=last, count=_AT_ONCE)
    return [_letter(entry_id.decode(), fields) for entry_id, fields in cast(list[Any], entries)]


def _letter(letter_id: str, fields: Mapping[bytes, bytes]) -> DeadLetter:
    text = {name.decode(): value.decode(errors="replace") for name, value in fields.items() if name != b"payload"}
    return DeadLetter(
        letter_id=letter_id,
        reason=text["reason"],
        lane=Lane.from_key(text["lane"]),
        entry_id=text["entry_id"],
        deliveries=int(text["deliveries"]),
        request_id=text["request_id"],
        tenant=text.get("tenant", ""),
        tokens=int(text["tokens"]),
        cost=int(text["cost"]),
        payload=fields.get(b"payload"),
    )
