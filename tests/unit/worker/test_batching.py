from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.consumer import TakenJob
from jobqueue.cost import sequence_cost
from jobqueue.lanes import Lane
from jobqueue.messages import Job, Operation
from worker.batching import MOST_TOKENS_PER_COST, Work, cost_saved, plan_batches
from worker.model.config import Qwen3Config


def work(cost: int, *, prefix: int = 0, prefix_cost: int = 0, deliveries: int = 1) -> Work:
    """A job of `cost`, of which `prefix_cost` is for the prefix number `prefix`; 0 is none."""
    taken = TakenJob(
        lane=next(iter(Lane)),
        entry_id=b"1-0",
        deliveries=deliveries,
        tokens=cost,
        cost=cost,
        job_id=b"j" * 16,
        gateway=b"g",
        tenant="",
        request_id="r",
        payload=b"",
        must_run_alone=False,
        waited_us=0,
        expires_at=0.0,
    )
    job = Job(operation=Operation.EMBED, prefix=array("i", [prefix] * bool(prefix)), tails=(array("i", [1]),))
    return Work(taken=taken, job=job, prefix_cost=prefix_cost if prefix else 0, taken_at=0.0)


def cost_together(batch) -> int:
    """By the definition: every job's own part, and each prefix once."""
    prefixes = {tuple(item.job.prefix): item.prefix_cost for item in batch}
    return sum(item.taken.cost - item.prefix_cost for item in batch) + sum(prefixes.values())


# A prefix costs the same in every job that has it, and no more than the job.
works = st.builds(
    lambda own, prefix, deliveries: work(
        own + 7 * prefix, prefix=prefix, prefix_cost=7 * prefix, deliveries=deliveries
    ),
    st.integers(1, 50),
    st.integers(0, 3),
    st.integers(1, 2),
)
work_and_budget = st.tuples(st.lists(works), st.integers(1, 90))


@given(work_and_budget)
def test_every_job_is_in_one_batch_and_first_deliveries_keep_their_order(case):
    taken, budget = case
    planned = [item for batch in plan_batches(taken, budget=budget) for item in batch]
    assert sorted(map(id, planned)) == sorted(map(id, taken))
    assert [item for item in planned if not item.taken.is_suspect] == [
        item for item in taken if not item.taken.is_suspect
    ]


@given(work_and_budget)
def test_a_batch_stays_within_the_budget_unless_one_job_is_over_it(case):
    taken, budget = case
    for batch in plan_batches(taken, budget=budget):
        assert len(batch) == 1 or cost_together(batch) <= budget
        assert len(batch) == 1 or sum(item.taken.tokens for item in batch) <= MOST_TOKENS_PER_COST * budget


@given(work_and_budget)
def test_a_suspect_runs_alone(case):
    taken, budget = case
    batches = plan_batches(taken, budget=budget)
    assert all(len(batch) == 1 for batch in batches if any(item.taken.is_suspect for item in batch))


@given(work_and_budget)
def test_no_batch_could_have_taken_the_next_job(case):
    taken, budget = case
    batches = [batch for batch in plan_batches(taken, budget=budget) if not batch[0].taken.is_suspect]
    for batch, following in pairwise(batches):
        together = [*batch, following[0]]
        num_tokens = sum(item.taken.tokens for item in together)
        assert cost_together(together) > budget or num_tokens > MOST_TOKENS_PER_COST * budget


@given(st.lists(works))
def test_what_is_saved_is_the_difference_between_apart_and_together(taken):
    assert cost_saved(taken) == sum(item.taken.cost for item in taken) - cost_together(taken)


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
