"""Named moments at which an echo worker kills itself, and a ledger of what it has ended."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jobqueue.consumer import MAX_DELIVERIES, Consumer, Take, TakenJob
from jobqueue.messages import Answer

VARIABLE = "FAULTS_KILL_POINT"  # NAME:N - at every Nth passing of one of POINTS
POINTS = ("after-take", "mid-batch", "before-finish", "after-finish")


class KillPoint:
    """SIGKILL to this process at every `every`th passing of the point `name`; at none where that is empty.

    Jobs on their last delivery are spared: one that three deaths have met counts as poison, and rightly so.
    """

    def __init__(self, name: str = "", every: int = 1) -> None:
        self._name, self._every = name, every
        self._num_passed = 0
        self._is_spared = False

    @classmethod
    def from_environment(cls) -> "KillPoint":
        name, _, every = os.environ.get(VARIABLE, "").partition(":")
        if name and name not in POINTS:
            raise ValueError(f"{VARIABLE} names {name!r}, which is none of {POINTS}")
        return cls(name, int(every or 1))

    def holding(self, jobs: Iterable[TakenJob]) -> None:
        """What is in this worker's hands from now on; a job that was delivered before is there alone."""
        self._is_spared = any(job.deliveries >= MAX_DELIVERIES for job in jobs)

    def passed(self, name: str) -> None:
        if name != self._name or self._is_spared:
            return
        self._num_passed += 1
        if self._num_passed % self._every == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Ledger:
    """One line per finish of any worker: how many jobs it ended, and the ids of those it was called with."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, num_ended: int, jobs: Iterable[TakenJob]) -> None:
        ids = b" ".join(job.job_id.hex().encode() for job in jobs)
        os.write(self._file, b"%d %s\n" % (num_ended, ids))


def count_ended_twice(path: Path) -> int:
    """How often a job was ended with an answer that had been ended before."""
    num_ended, ids = 0, set[str]()
    for line in path.read_text().splitlines() if path.exists() else []:
        ended, *jobs = line.split()
        num_ended += int(ended)
        ids.update(jobs)
    return max(num_ended - len(ids), 0)


class MortalConsumer(Consumer):
    """The real consumer; around what it does with Redis stand the kill points."""

    def __init__(self, *arguments: Any, kill_point: KillPoint, ledger: Ledger, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._kill_point = kill_point
        self._ledger = ledger

    def take(self, *, budget: int, num_held: int) -> Take:
        taken = super().take(budget=budget, num_held=num_held)
        if taken.jobs:
            self._kill_point.holding(taken.jobs)
            self._kill_point.passed("after-take")
        return taken

    def finish(self, answers: Iterable[tuple[TakenJob, Answer]]) -> int:
        pairs = list(answers)
        self._kill_point.passed("before-finish")
        num_ended = super().finish(pairs)
        self._ledger.note(num_ended, (job for job, _ in pairs))
        self._kill_point.passed("after-finish")
        return num_ended
