from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.consumer import TakenJob
from jobqueue.cost import sequence_cost
from jobqueue.lanes import Lane
from worker.batching import plan_batches
from worker.model.config import Qwen3Config


def taken(cost: int, *, deliveries: int = 1) -> TakenJob:
    return TakenJob(
        lane=next(iter(Lane)),
        entry_id=b"1-0",
        deliveries=deliveries,
        tokens=cost,
        cost=cost,
        job_id=b"j" * 16,
        gateway=b"g",
        request_id="r",
        payload=b"",
        waited_us=0,
        expires_at=0.0,
    )


jobs_and_budget = st.tuples(
    st.lists(
        st.builds(lambda cost, deliveries: taken(cost, deliveries=deliveries), st.integers(1, 50), st.integers(1, 2))
    ),
    st.integers(1, 60),
)


@given(jobs_and_budget)
def test_every_job_is_in_one_batch_and_first_deliveries_keep_their_order(case):
    jobs, budget = case
    planned = [job for batch in plan_batches(jobs, budget=budget) for job in batch]
    assert sorted(map(id, planned)) == sorted(map(id, jobs))
    assert [job for job in planned if not job.is_suspect] == [job for job in jobs if not job.is_suspect]


@given(jobs_and_budget)
def test_a_batch_stays_within_the_budget_unless_one_job_is_over_it(case):
    jobs, budget = case
    for batch in plan_batches(jobs, budget=budget):
        assert len(batch) == 1 or sum(job.cost for job in batch) <= budget


@given(jobs_and_budget)
def test_a_suspect_runs_alone(case):
    jobs, budget = case
    assert all(len(batch) == 1 for batch in plan_batches(jobs, budget=budget) if any(job.is_suspect for job in batch))


@given(jobs_and_budget)
def test_no_batch_could_have_taken_the_next_job(case):
    jobs, budget = case
    batches = [batch for batch in plan_batches(jobs, budget=budget) if not batch[0].is_suspect]
    for batch, following in pairwise(batches):
        assert sum(job.cost for job in batch) + following[0].cost > budget


def test_a_cost_counts_attentions_share_of_the_flops():
    config = Qwen3Config(
        vocab_size=151669,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=True,
        max_position_embeddings=32768,
    )
    linear_flops = 2 * (1024 * 4096 + 2048 * 1024 + 3 * 1024 * 3072)
    length = 1000
    attention_flops = sum(4 * 16 * 128 * keys for keys in range(1, length + 1))
    exact = length + attention_flops / linear_flops
    assert sequence_cost(length, config.attention_cost) == pytest.approx(exact, rel=1e-3)
