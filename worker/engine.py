"""A loaded model, and the step that turns jobs into answers."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from jobqueue.cost import sequence_cost
from jobqueue.messages import Answer, Failure, FailureReason, Job, Operation, Result, TokenIds
from worker.heads import EncodedRows, embed_rows, score_rows
from worker.model.checkpoint import Checkpoint, ModelTask
from worker.model.weights import load_yes_minus_no
from worker.runner import ModelRunner
from worker.splitting import Rows, WaitingRows, start_fitting

OPERATIONS = {ModelTask.EMBED: Operation.EMBED, ModelTask.RERANK: Operation.RERANK}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Jobs whose batch has begun, at `started_at` in seconds of time.monotonic()."""

    jobs: Sequence[Job]
    wait: WaitingRows
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """Jobs and the pooled hidden states of all their sequences, in order.

    The model began with them at `began_at`, in seconds of time.monotonic(), and took `compute_us`.
    """

    jobs: Sequence[Job]
    rows: Rows
    began_at: float
    compute_us: int


class Engine:
    """One model on one device. `start` may run in one thread, `wait` and `answers` in another."""

    def __init__(self, checkpoint: Checkpoint, runner: ModelRunner, *, max_input_tokens: int) -> None:
        """Raises CheckpointError where a reranker has no head."""
        self._runner = runner
        self._config = checkpoint.config
        self._operation = OPERATIONS[checkpoint.task]
        self._max_input_tokens = max_input_tokens
        self._ended_at = 0.0
        self._yes_minus_no = (
            None
            if checkpoint.yes_no is None
            else load_yes_minus_no(checkpoint.weight_files, checkpoint.config, checkpoint.yes_no)
        )

    def check(self, job: Job) -> Failure | None:
        """Why this model cannot run the job, which only a gateway that disagrees with it could have sent."""
        ids = [job.prefix, *job.tails]
        if job.operation is not self._operation:
            return _invalid(f"a job for {job.operation.name} in the queue of a model for {self._operation.name}")
        if max(job.lengths) > self._max_input_tokens:
            return _invalid(f"{max(job.lengths)} tokens, the worker takes {self._max_input_tokens}")
        if any(part and not 0 <= min(part) <= max(part) < self._config.vocab_size for part in ids):
            return _invalid("a token id outside of the vocabulary")
        if job.operation is Operation.EMBED and not 1 <= job.dimensions <= self._config.hidden_size:
            return _invalid(f"{job.dimensions} dimensions of {self._config.hidden_size}")
        return None

    def prefix_cost(self, job: Job) -> int:
        """What the job's prefix costs, and another job with the same one saves beside it."""
        return sequence_cost(len(job.prefix), self._config.attention_cost)

    def start(self, jobs: Sequence[Job]) -> Started:
        """Begin one forward pass over all sequences of all jobs."""
        started_at = time.monotonic()
        sequences = [sequence for job in jobs for sequence in _sequences(job)]
        wait = start_fitting(self._runner, sequences, [job.prefix for job in jobs])
        return Started(jobs=jobs, wait=wait, started_at=started_at)

    def wait(self, started: Started) -> Computed:
        """Wait for the end of a batch, in the order of starts: one that was enqueued began when the last ended."""
        rows = started.wait()
        began_at, ended_at = max(started.started_at, self._ended_at), time.monotonic()
        self._ended_at = ended_at
        return Computed(jobs=started.jobs, rows=rows, began_at=began_at, compute_us=int((ended_at - began_at) * 1e6))

    def answers(self, computed: Computed, queue_us: Sequence[int]) -> list[Answer]:
        """One answer per job, in order; one without a usable row fails and leaves the others unharmed."""
        borders = accumulate((len(job.tails) for job in computed.jobs), initial=0)
        return [
            self._answer(job, computed.rows[begin:end], computed.compute_us, waited_us)
            for job, (begin, end), waited_us in zip(computed.jobs, pairwise(borders), queue_us, strict=True)
        ]

    def _answer(self, job: Job, rows: Sequence[Tensor | None], compute_us: int, queue_us: int) -> Answer:
        fitting = [row for row in rows if row is not None]
        if len(fitting) < len(rows):
            too_large = next(place for place, row in enumerate(rows) if row is None)
            return _failed(FailureReason.OUT_OF_MEMORY, "it does not fit in the worker's memory", too_large)
        encoded = self._head(job, torch.stack(fitting))
        if not all(encoded.finite):
            return _failed(
                FailureReason.NON_FINITE_RESULT, "the model's result is not finite", encoded.finite.index(False)
            )
        return Result(
            rows=encoded.rows,
            num_rows=len(job.tails),
            scales=encoded.scales,
            computed_tokens=self._runner.count_computed(list(_sequences(job))),
            queue_us=queue_us,
            compute_us=compute_us,
        )

    def _head(self, job: Job, hidden: Tensor) -> EncodedRows:
        if self._yes_minus_no is not None:
            return score_rows(hidden, self._yes_minus_no)
        return embed_rows(hidden, job.dimensions, normalize=job.normalize, encoding=job.encoding)


def _sequences(job: Job) -> Iterator[TokenIds]:
    return (job.prefix + tail for tail in job.tails)


def _failed(reason: FailureReason, message: str, sequence: int) -> Failure:
    return Failure(reason=reason, message=message, sequence=sequence)


def _invalid(message: str) -> Failure:
    return Failure(reason=FailureReason.INVALID_JOB, message=message)
