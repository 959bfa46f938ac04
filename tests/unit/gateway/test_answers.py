"""A call taken apart into its sequences, and put together again."""

from array import array
from dataclasses import replace

import numpy as np
import pytest
import torch

from gateway.sharing.questions import Question, Sources
from gateway.sharing.sequences import answer_bytes, cut, join, sequence_keys
from jobqueue.errors import JobFailedError, QueueFullError
from jobqueue.messages import Failure, FailureReason, Job, Operation, Result, VectorEncoding
from tests.support.echo import announcement
from worker.heads import embed_rows, score_rows

MODEL = announcement("org/model", Operation.EMBED)


def job_of(*tails, prefix=(), **fields) -> Job:
    fields = {"operation": Operation.EMBED, "dimensions": 2, "encoding": VectorEncoding.BINARY} | fields
    return Job(prefix=array("i", prefix), tails=tuple(array("i", tail) for tail in tails), **fields)


def keys_of(job, model=MODEL, owner: str | None = "tenant") -> list[bytes]:
    return sequence_keys(job, model, owner=owner)


def answer_of(tail) -> bytes:
    return bytes([tail[0]])


class Computer:
    """Answers each sequence with the first id of its tail, in 7 tokens; remembers the jobs."""

    def __init__(self, error: Exception | None = None) -> None:
        self.jobs: list[Job] = []
        self.error = error

    async def __call__(self, job: Job) -> Result:
        self.jobs.append(job)
        if self.error is not None:
            raise self.error
        rows = b"".join(map(answer_of, job.tails))
        return Result(rows=rows, num_rows=len(job.tails), computed_tokens=7, queue_us=len(self.jobs), compute_us=5)


def question_of(job: Job, computer: Computer) -> tuple[Question, list[bytes]]:
    keys = keys_of(job)
    return Question(job, keys, computer), keys


class TestKeys:
    def test_the_same_sequence_has_the_same_key_wherever_its_prefix_ends(self):
        whole = keys_of(job_of([1, 2, 3, 4]))
        assert keys_of(job_of([4], [3, 4], prefix=[1, 2, 3]))[0] == whole[0]
        assert keys_of(job_of([3, 4], [9], prefix=[1, 2]))[0] == whole[0]
        assert len(whole[0]) == 32

    def test_sequences_that_differ_have_keys_that_differ(self):
        assert len(set(keys_of(job_of([1], [2], [1, 2], [12], [2, 1], [1, 1], [0x0101])))) == 7

    @pytest.mark.parametrize(
        "other",
        [
            {"dimensions": 3},
            {"normalize": False},
            {"encoding": VectorEncoding.INT8},
            {"encoding": VectorEncoding.FLOAT_LIST},
            {"operation": Operation.RERANK},
        ],
    )
    def test_what_is_asked_of_a_sequence_is_in_its_key(self, other):
        job = job_of([1, 2], encoding=VectorEncoding.FLOAT32)
        assert keys_of(replace(job, **other)) != keys_of(job)

    @pytest.mark.parametrize(
        "other",
        [
            {"revision": "r2"},
            {"model_id": "org/other"},
            {"dtype": "bfloat16"},
            {"engine": "other"},
        ],
    )
    def test_who_answers_is_in_the_key(self, other):
        assert keys_of(job_of([1, 2]), replace(MODEL, **other)) != keys_of(job_of([1, 2]))

    def test_who_owns_the_answer_is_in_the_key(self):
        owners = ["a", "b", "", None, "null", 'a", "b', "a\0"]
        assert len({keys_of(job_of([1]), owner=owner)[0] for owner in owners}) == len(owners)


@pytest.mark.parametrize("encoding", VectorEncoding)
@pytest.mark.parametrize("dimensions", [32, 33])
def test_rows_of_a_worker_are_cut_and_joined_bit_by_bit(encoding, dimensions):
    head = embed_rows(torch.randn(5, 64), dimensions, normalize=True, encoding=encoding)
    job = job_of([1], [2], [3], [4], [5], encoding=encoding, dimensions=dimensions)
    result = Result(rows=head.rows, scales=head.scales, num_rows=5, computed_tokens=11, queue_us=12, compute_us=13)
    answers = cut(result)
    assert [len(answer) for answer in answers] == [answer_bytes(job)] * 5
    assert join(job, answers, [result]) == result
    turned = join(job, answers[::-1], [])
    assert (turned.computed_tokens, turned.queue_us, turned.compute_us) == (0, 0, 0)
    rows = np.frombuffer(head.rows, "u1").reshape(5, -1)
    assert turned.rows == rows[::-1].tobytes()
    assert turned.scales == np.frombuffer(head.scales, "<f4")[::-1].tobytes()


def test_scores_of_a_worker_are_cut_and_joined_bit_by_bit():
    head = score_rows(torch.randn(3, 64), torch.randn(64))
    job = Job(operation=Operation.RERANK, prefix=array("i", [1]), tails=(array("i", [2]),) * 3)
    result = Result(rows=head.rows, num_rows=3, computed_tokens=1, queue_us=2, compute_us=3)
    answers = cut(result)
    assert [len(answer) for answer in answers] == [answer_bytes(job)] * 3
    assert join(job, answers, [result]) == result


class TestQuestion:
    async def test_only_what_is_missing_is_computed_behind_the_same_prefix(self):
        computer = Computer()
        question, keys = question_of(job_of([1], [2], [3], [4], prefix=[9, 9]), computer)
        assert question.missing == keys
        assert question.add_kept({keys[1]: b"\2"}) == {keys[1]: b"\2"}
        question.add_shared(keys[3], b"\4")
        assert question.missing == [keys[0], keys[2]]
        assert await question.compute(question.missing) == {keys[0]: b"\1", keys[2]: b"\3"}
        assert computer.jobs == [job_of([1], [3], prefix=[9, 9])]
        answered = question.answered()
        assert answered.result == Result(rows=b"\1\2\3\4", num_rows=4, computed_tokens=7, queue_us=1, compute_us=5)
        assert answered.sources == Sources(hits=1, misses=2, shared=1)

    async def test_the_same_sequence_is_computed_once_and_answered_wherever_it_stands(self):
        computer = Computer()
        question, _ = question_of(job_of([1], [2], [1], [1], [2]), computer)
        await question.compute(question.missing)
        assert computer.jobs == [job_of([1], [2])]
        assert question.answered().result.rows == b"\1\2\1\1\2"
        assert question.answered().sources == Sources(hits=0, misses=2, shared=3)

    async def test_a_full_hit_costs_nothing(self):
        question, keys = question_of(job_of([1], [2]), Computer())
        question.add_kept({keys[0]: b"\1", keys[1]: b"\2"})
        assert question.missing == []
        result = question.answered().result
        assert result == Result(rows=b"\1\2", num_rows=2, computed_tokens=0, queue_us=0, compute_us=0)

    async def test_what_is_computed_in_two_rounds_is_added_up(self):
        question, keys = question_of(job_of([1], [2], [3]), Computer())
        await question.compute([keys[2]])
        await question.compute([keys[0], keys[1]])
        answered = question.answered()
        assert answered.result == Result(rows=b"\1\2\3", num_rows=3, computed_tokens=14, queue_us=2, compute_us=5)
        assert answered.sources == Sources(hits=0, misses=3, shared=0)

    @pytest.mark.parametrize("odd", [b"", b"\1\1", b"\1" * 100])
    def test_what_cannot_be_an_answer_is_missing(self, odd):
        question, keys = question_of(job_of([1], [2]), Computer())
        assert question.add_kept({keys[0]: odd}) == {}
        assert question.missing == keys

    @pytest.mark.parametrize(("failed", "place"), [(0, 1), (1, 4), (-1, -1)])
    async def test_a_failure_names_the_sequence_as_the_call_counts(self, failed, place):
        failure = Failure(reason=FailureReason.NON_FINITE_RESULT, message="not a number", sequence=failed)
        question, keys = question_of(job_of([1], [2], [2], [1], [3], [3]), Computer(JobFailedError(failure)))
        question.add_kept({keys[0]: b"\1"})
        with pytest.raises(JobFailedError) as caught:
            await question.compute(question.missing)
        assert caught.value.failure == replace(failure, sequence=place)

    async def test_other_errors_pass_as_they_are(self):
        error = QueueFullError("full", retry_s=3)
        question, keys = question_of(job_of([1]), Computer(error))
        with pytest.raises(QueueFullError) as caught:
            await question.compute(keys)
        assert caught.value is error
