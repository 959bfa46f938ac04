"""The packed engine as a worker runs it, its prefix cache filling and letting go while batches come."""

import random
from array import array

import pytest
import torch
from torch.nn.functional import cosine_similarity

from worker.model.checkpoint import resolve_checkpoint
from worker.packed_runner import PackedRunner
from worker.placement import Placement

LEAST_COSINE = 0.999999
TOKEN_BYTES = 2 * 4 * 2 * 64 * 4  # keys and values, layers, kv heads, head_dim, float32


@pytest.fixture(scope="module")
def runner_of(embedding_checkpoint):
    checkpoint = resolve_checkpoint(str(embedding_checkpoint), task=None, name=None, revision="x")

    def make(cached_tokens: int) -> PackedRunner:
        return PackedRunner(
            checkpoint, Placement.choose("cpu", "float32"), prefix_cache_bytes=cached_tokens * TOKEN_BYTES
        )

    return make


def test_batches_over_a_cache_that_is_always_full_have_the_vectors_they_have_without_one(runner_of):
    with_cache, without = runner_of(100), runner_of(0)
    chance = random.Random(11)
    system = [chance.randrange(1000) for _ in range(12)]
    prefixes = [
        array("i", (system if number % 2 else []) + chance.choices(range(1000), k=chance.randrange(1, 40)))
        for number in range(9)
    ]
    for _ in range(60):
        used = chance.sample(prefixes, chance.randrange(1, 4))
        sequences = [
            prefix + array("i", chance.choices(range(1000), k=chance.randrange(0, 12)))
            for prefix in used
            for _ in range(chance.randrange(1, 4))
        ]
        ours, plain = with_cache.start(sequences, used)(), without.start(sequences)()
        assert float(cosine_similarity(ours.double(), plain.double()).min()) >= LEAST_COSINE
        assert with_cache.stats().prefix_cache.num_bytes <= 100 * TOKEN_BYTES
    stats = with_cache.stats()
    assert min(stats.prefix_cache.num_hits, stats.prefix_cache.num_evicted) > 0
    assert stats.num_computed_tokens < without.stats().num_computed_tokens < stats.num_input_tokens


def test_what_is_let_go_for_memory_is_computed_again(runner_of):
    runner = runner_of(1000)
    prefix, sequence = array("i", range(30)), array("i", range(35))
    first = [runner.start([sequence], [prefix])() for _ in range(3)][-1]
    assert runner.stats().prefix_cache.num_bytes == 30 * TOKEN_BYTES
    runner.release_memory()
    assert runner.stats().prefix_cache.num_bytes == 0
    assert torch.allclose(runner.start([sequence], [prefix])(), first, atol=1e-5)
