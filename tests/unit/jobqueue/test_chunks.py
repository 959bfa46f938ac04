from array import array
from dataclasses import replace
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.chunks import merge, split
from jobqueue.cost import job_cost, sequence_cost, split_by_size
from jobqueue.messages import Job, Operation, Result, VectorEncoding

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def call_of(lengths, prefix=0):
    borders = [0, *accumulate(lengths)]
    return Job(
        operation=Operation.EMBED,
        prefix=array("i", range(prefix)),
        tails=tuple(array("i", range(start, start + n)) for start, n in zip(borders, lengths, strict=False)),
        dimensions=64,
        normalize=False,
        encoding=VectorEncoding.INT8,
    )


def result_of(rows, num_rows, *, scales=b"", tokens=0, queue_us=0, compute_us=0):
    return Result(
        rows=rows,
        num_rows=num_rows,
        scales=scales,
        computed_tokens=tokens,
        queue_us=queue_us,
        compute_us=compute_us,
    )


@given(LENGTHS, st.integers(0, 5), st.integers(1, 60))
def test_the_jobs_of_a_call_hold_its_sequences_in_order_and_nothing_else(lengths, prefix, max_tokens):
    call = call_of(lengths, prefix)
    jobs = split(call, max_tokens=max_tokens)
    assert tuple(tail for job in jobs for tail in job.tails) == call.tails
    assert all(replace(job, tails=call.tails) == call for job in jobs)


@given(LENGTHS, st.integers(0, 5), st.integers(1, 60))
def test_a_job_keeps_to_the_limit_unless_one_sequence_is_over_it(lengths, prefix, max_tokens):
    for job in split(call_of(lengths, prefix), max_tokens=max_tokens):
        assert job.tails
        assert sum(job.lengths) <= max_tokens or len(job.tails) == 1


def test_a_call_that_fits_is_one_job():
    call = call_of([3, 4], prefix=1)
    assert split(call, max_tokens=9) == [call]


def test_a_longer_sequence_is_a_job_alone():
    jobs = split(call_of([2, 50, 2, 2]), max_tokens=10)
    assert [job.lengths for job in jobs] == [[2], [50], [2, 2]]


@given(st.lists(st.integers(0, 30)), st.integers(0, 50))
def test_groups_cover_all_items_in_order_and_are_as_full_as_they_can_be(sizes, limit):
    groups = list(split_by_size(sizes, limit))
    assert [index for group in groups for index in group] == list(range(len(sizes)))
    for group, after in pairwise(groups):
        assert sum(sizes[i] for i in group) + sizes[after.start] > limit


def test_nothing_is_no_group():
    assert list(split_by_size([], 10)) == []


def test_merged_results_are_joined_in_order_with_the_times_of_the_last():
    first = result_of(b"aabb", 2, scales=b"AAAABBBB", tokens=10, queue_us=9, compute_us=8)
    second = result_of(b"cc", 1, scales=b"CCCC", tokens=5, queue_us=7, compute_us=6)
    merged = result_of(b"aabbcc", 3, scales=b"AAAABBBBCCCC", tokens=15, queue_us=9, compute_us=8)
    assert merge([first, second], last=first) == merged
    assert merge([first, second], last=second) == replace(merged, queue_us=7, compute_us=6)


def test_one_result_is_the_calls_result():
    only = result_of(b"aa", 1, tokens=3, queue_us=2, compute_us=1)
    assert merge([only], last=only) == only


@pytest.mark.parametrize(
    ("num_tokens", "attention_cost", "cost"),
    [(0, 0.5, 0), (1, 0.0, 1), (1, 0.5, 2), (100, 0.01, 200), (100, 0.0101, 201), (32768, 1e-5, 43506)],
)
def test_a_sequence_costs_its_tokens_and_their_square_times_the_attentions_share(num_tokens, attention_cost, cost):
    assert sequence_cost(num_tokens, attention_cost) == cost


@given(st.integers(1, 40_000), st.floats(0, 0.1))
def test_no_sequence_is_cheaper_than_its_tokens_or_than_a_shorter_one(num_tokens, attention_cost):
    assert sequence_cost(num_tokens, attention_cost) >= num_tokens
    assert sequence_cost(num_tokens, attention_cost) >= sequence_cost(num_tokens - 1, attention_cost)


def test_what_the_sequences_of_a_job_share_costs_once():
    own_linear, own_pairs = 3 * 10, 3 * (50**2 - 40**2)  # three tails of 10 tokens behind a prefix of 40
    assert job_cost([50, 50, 50], 40, 0.01) == 40 + own_linear + 0.01 * (40**2 + own_pairs)
    assert job_cost([50], 40, 0.01) == sequence_cost(50, 0.01)
    assert job_cost([50, 60], 0, 0.01) == sequence_cost(50, 0.01) + sequence_cost(60, 0.01)
