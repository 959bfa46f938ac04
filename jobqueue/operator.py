"""What an operator does to queues: look, pause, drain, resume, forget. Blocking; nothing is printed here."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis

from jobqueue.connection import SyncRedis, connect, probe, redis_border
from jobqueue.errors import QueueError
from jobqueue.evaluate import evaluate
from jobqueue.keys import MODELS, QueueKeys, check_queue_name
from jobqueue.status import QueueStatus, read_status

DRAIN_POLL_S = 0.5
_HAS_JOBS, _HAS_WORKERS = 0, -1  # what forget.lua says in place of 1


class OperatorError(QueueError):
    """What was asked cannot be done; the message says why, and names a way where there is one."""


@dataclass(frozen=True, slots=True)
class Operator:
    """All queues of one server."""

    client: SyncRedis

    def queues(self) -> list[str]:
        """The announced queues, in order."""
        names = cast(list[bytes], self.client.hkeys(MODELS))
        return sorted(name.decode(errors="replace") for name in names)

    def resolve(self, name: str) -> str:
        """The queue meant by MODEL@REVISION, or by MODEL where one revision is announced. Raises OperatorError.

        A queue that is not announced any more is found by its full name while something of it is left.
        """
        announced = self.queues()
        if name in announced or ("@" in name and self._has_keys(name)):
            return name
        revisions = [queue for queue in announced if queue.rpartition("@")[0] == name]
        if not revisions:
            raise OperatorError(f"no queue {name!r}; there are: {', '.join(announced) or 'none'}")
        if len(revisions) > 1:
            raise OperatorError(f"{name} has several revisions, name one of: {', '.join(revisions)}")
        return revisions[0]

    def status(self, queue: str) -> QueueStatus:
        return read_status(queue, self.run(queue, "status", []))

    def pause(self, queue: str) -> None:
        """Let workers take nothing; calls are admitted and wait."""
        self.run(queue, "set_control", ["paused"])

    def drain(self, queue: str) -> None:
        """Let nothing new in; workers go on."""
        self.run(queue, "set_control", ["draining"])

    def resume(self, queue: str) -> bool:
        """End pausing and draining; whether there was any."""
        return bool(self.client.hdel(QueueKeys(queue).control, "paused", "draining"))

    def until_empty(self, queue: str) -> Iterator[QueueStatus]:
        """What is left whenever that has changed, until nothing is."""
        before = None
        while (status := self.status(queue)).jobs:
            left = (status.tokens, status.jobs, status.paused, status.num_live)
            if left != before:
                yield status
            before = left
            time.sleep(DRAIN_POLL_S)

    def forget(self, queue: str, *, force: bool) -> None:
        """Remove the queue and its announcement. Raises OperatorError while it has workers or, unforced, jobs."""
        verdict, *numbers = self.run(queue, "forget", [int(force)])
        if verdict == _HAS_WORKERS:
            raise OperatorError(
                f"{queue} has workers ({numbers[0]} live, {numbers[1]} loading), which would announce it again: "
                "stop them first"
            )
        if verdict == _HAS_JOBS:
            raise OperatorError(f"{queue} holds jobs ({numbers[0]}): drain it first, or pass --force to drop them")
        self.client.hdel(MODELS, queue)

    def run(self, queue: str, script: str, arguments: Sequence[Any], *, gateway: str | None = None) -> Any:
        """The script's reply."""
        return evaluate(self.client, script, QueueKeys(queue).of_script(gateway), arguments)

    def _has_keys(self, queue: str) -> bool:
        try:
            check_queue_name(queue)
        except ValueError as error:
            raise OperatorError(str(error)) from error
        return bool(self.client.exists(*QueueKeys(queue).of_script()))


@contextlib.contextmanager
def operating(url: str) -> Iterator[Operator]:
    """An operator at the server of `url`. Whatever goes wrong inside is a QueueError, and none tells the password."""
    with _border(), contextlib.closing(connect(url)) as client:
        probe(client)
        yield Operator(client)


@contextlib.contextmanager
def _border() -> Iterator[None]:
    try:
        with redis_border():
            yield
    except redis.RedisError as error:
        raise OperatorError(f"the Redis server refuses: {error}") from error
