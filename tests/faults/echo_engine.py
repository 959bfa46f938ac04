"""An engine without a model: it takes as long as its speed says, and answers with a function of the token ids."""

import os
import signal
import threading
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from jobqueue.messages import Answer, Failure, Job, Operation, Result
from tests.faults.answers import logit, poison_ids, vector
from tests.faults.kill_points import KillPoint

HANG_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs that run for `compute_us` from `began_at`, in seconds of time.monotonic()."""

    jobs: Sequence[Job]
    began_at: float
    compute_us: int


class EchoEngine:
    """Runs `tokens_per_s`, what jobs share counted once; dies of a text with POISON in it, and may be told to hang."""

    def __init__(self, tokenizer_json: bytes, *, tokens_per_s: float, kill_point: KillPoint) -> None:
        self._tokens_per_s = tokens_per_s
        self._poison = poison_ids(tokenizer_json).tobytes()
        self._kill_point = kill_point
        self._ended_at = 0.0
        self._hanging = threading.Event()

    def hang(self) -> None:
        """Begin no batch any more, like an accelerator that has hung."""
        self._hanging.set()

    def check(self, job: Job) -> Failure | None:
        return None

    def prefix_cost(self, job: Job) -> int:
        return len(job.prefix)

    def start(self, jobs: Sequence[Job]) -> Batch:
        if self._hanging.is_set():
            time.sleep(HANG_S)
        if any(self._poison in tail.tobytes() for job in jobs for tail in job.tails):
            os.kill(os.getpid(), signal.SIGKILL)
        began_at = max(time.monotonic(), self._ended_at)
        seconds = _num_computed(jobs) / self._tokens_per_s
        self._ended_at = began_at + seconds
        return Batch(jobs=jobs, began_at=began_at, compute_us=int(seconds * 1e6))

    def wait(self, started: Batch) -> Batch:
        seconds = started.compute_us / 1e6
        time.sleep(max(started.began_at + seconds / 2 - time.monotonic(), 0))
        self._kill_point.passed("mid-batch")
        time.sleep(max(started.began_at + seconds - time.monotonic(), 0))
        return started

    def answers(self, computed: Batch, queue_us: Sequence[int]) -> list[Answer]:
        return [
            _answer(job, waited_us, computed.compute_us) for job, waited_us in zip(computed.jobs, queue_us, strict=True)
        ]


def _num_computed(jobs: Sequence[Job]) -> int:
    prefixes = {job.prefix.tobytes(): len(job.prefix) for job in jobs}
    return sum(prefixes.values()) + sum(len(tail) for job in jobs for tail in job.tails)


def _answer(job: Job, queue_us: int, compute_us: int) -> Result:
    sequences = [job.prefix + tail for tail in job.tails]
    if job.operation is Operation.RERANK:
        rows = array("f", [logit(ids) for ids in sequences]).tobytes()
    else:
        rows = b"".join(vector(ids).tobytes() for ids in sequences)
    computed = len(job.prefix) + sum(map(len, job.tails))
    return Result(
        rows=rows, num_rows=len(sequences), computed_tokens=computed, queue_us=queue_us, compute_us=compute_us
    )
