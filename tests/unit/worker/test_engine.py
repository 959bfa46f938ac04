"""Jobs to answers over a runner that fails for some texts: the others of the batch are unharmed."""

from array import array

import numpy as np
import pytest
import torch

from jobqueue.messages import FailureReason, Job, Operation, Result
from worker.engine import Engine
from worker.model.checkpoint import resolve_checkpoint
from worker.runner import RunnerStats

TOO_LONG, NOT_A_NUMBER = 900, 666
WIDTH = 128


class Runner:
    """An accelerator with room for 1,000 tokens, whose vector of a text is full of its first token."""

    engine = attention = kernels = "stand-in"

    def __init__(self):
        self.started = []

    def start(self, sequences, prefixes=()):
        self.started.append((len(sequences), [prefix.tolist() for prefix in prefixes]))
        if sum(map(len, sequences)) > 1000:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        rows = [torch.full((WIDTH,), float("nan") if NOT_A_NUMBER in ids else float(ids[0])) for ids in sequences]
        return lambda: torch.stack(rows)

    def release_memory(self):
        pass

    def count_computed(self, sequences):
        return 7

    def stats(self):
        return RunnerStats(num_input_tokens=0, num_computed_tokens=0)


@pytest.fixture
def engine(embedding_checkpoint):
    checkpoint = resolve_checkpoint(str(embedding_checkpoint), task=None, name=None, revision="x")
    return Engine(checkpoint, Runner(), max_input_tokens=5000)


def job(*tails, prefix=()):
    tails = tuple(array("i", tail) for tail in tails)
    return Job(operation=Operation.EMBED, prefix=array("i", prefix), tails=tails, dimensions=WIDTH, normalize=False)


def answers(engine, *jobs):
    return engine.answers(engine.wait(engine.start(jobs)), [0] * len(jobs))


def first_values(result: Result) -> list[float]:
    return np.frombuffer(result.rows, "<f4").reshape(-1, WIDTH)[:, 0].tolist()


def test_a_batch_has_an_answer_for_every_job_in_order(engine):
    first, second = answers(engine, job([1], [2, 2]), job([3]))
    assert (first_values(first), first_values(second)) == ([1.0, 2.0], [3.0])
    assert first.computed_tokens == 7


def test_a_text_that_does_not_fit_in_memory_fails_its_job_by_its_number_and_no_other(engine):
    small, broken, other = answers(engine, job([1], [2]), job([3], [4] * 1001, [5]), job([6] * TOO_LONG))
    assert (first_values(small), first_values(other)) == ([1.0, 2.0], [6.0])
    assert (broken.reason, broken.sequence) == (FailureReason.OUT_OF_MEMORY, 1)
    assert "does not fit in the worker's memory" in broken.message


def test_a_text_without_a_finite_result_fails_its_job_by_its_number_and_no_other(engine):
    fine, broken = answers(engine, job([1]), job([2], [3], [NOT_A_NUMBER]))
    assert first_values(fine) == [1.0]
    assert (broken.reason, broken.sequence) == (FailureReason.NON_FINITE_RESULT, 2)


def test_the_runner_is_told_what_jobs_begin_with(engine):
    answers(engine, job([1], [2], prefix=[8, 9]), job([3]))
    assert engine._runner.started == [(3, [[8, 9], []])]
