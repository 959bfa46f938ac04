"""Sharing changes nothing: every plan gives the vectors of transformers, and a wrong plan is seen."""

import dataclasses
from array import array

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM

from worker.heads import score_rows
from worker.packing import pack
from worker.prefix_cache import PrefixRecorder

LEAST_COSINE = 0.999999
LARGEST_SCORE_DIFFERENCE = 2e-6
NO, YES = 2152, 9693
CPU = torch.device("cpu")
INSTRUCTION = [*range(100, 130)]  # any tokens will do
NESTED = [*INSTRUCTION, *range(500, 540)]

MIXES = {
    "one instruction": [[*INSTRUCTION, 1000 + number, 7, 8] for number in range(12)],
    "nested": [[*INSTRUCTION, 1, 2], [*NESTED, 3], [*NESTED, 4, 5, 6], NESTED, INSTRUCTION, [9, 9, 9]],
    "one a prefix of the other": [NESTED[:20], NESTED[:40], NESTED],
    "duplicates": [NESTED, [5, 6, 7], NESTED, NESTED, [5, 6, 7]],
    "two families": [[*INSTRUCTION, 1], [*range(900, 950), 1], [*INSTRUCTION, 2], [*range(900, 950), 2]],
    "nothing shared": [[number, *range(number, number + 20)] for number in range(0, 400, 50)],
}


def packed(sequences, **options):
    return pack([array("i", ids) for ids in sequences], CPU, **options)


def least_cosine(ours, theirs) -> float:
    return float(cosine_similarity(ours.double(), theirs.double()).min())


@pytest.mark.parametrize("min_shared", [1, 8, 10**6])
@pytest.mark.parametrize("mix", MIXES)
def test_every_plan_has_the_vectors_of_transformers(mix, min_shared, embedding_model, transformers_embed):
    sequences = MIXES[mix]
    ours = embedding_model.forward(packed(sequences, min_shared=min_shared))
    theirs = torch.cat([transformers_embed([ids]) for ids in sequences])
    assert ours.shape == theirs.shape
    assert least_cosine(ours, theirs) >= LEAST_COSINE


def with_layout(batch, **changes):
    return dataclasses.replace(batch, every_token=dataclasses.replace(batch.every_token, **changes))


def without_ancestors(batch):
    """Every segment attends to itself only."""
    layout = batch.every_token
    return with_layout(batch, cu_seqlens_k=layout.cu_seqlens_q, max_seqlen_k=layout.max_seqlen_q, key_rows=None)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(
            lambda batch: dataclasses.replace(batch, positions=batch.positions.clamp(max=29)), id="wrong positions"
        ),
        pytest.param(
            lambda batch: with_layout(batch, key_rows=batch.every_token.key_rows.roll(1)), id="wrong gather rows"
        ),
        pytest.param(without_ancestors, id="a leaf without its ancestors"),
        pytest.param(
            lambda batch: dataclasses.replace(batch, last_rows=batch.last_rows.roll(1)), id="another sequence's row"
        ),
    ],
)
def test_a_wrong_plan_falls_below_the_bar(wrong, embedding_model, transformers_embed):
    sequences = MIXES["nested"]
    theirs = torch.cat([transformers_embed([ids]) for ids in sequences])
    assert least_cosine(embedding_model.forward(wrong(packed(sequences))), theirs) < LEAST_COSINE


QUERIES = [[*INSTRUCTION, 1000 + number, 7, 8] for number in range(4)]
CACHED_MIXES = {
    "one cached prefix": (QUERIES, [INSTRUCTION]),
    "two, one the beginning of the other": ([*QUERIES, [*NESTED, 3], [*NESTED, 4, 5]], [INSTRUCTION, NESTED]),
    "one that two texts go beyond together": ([[*NESTED, 3], [*NESTED, 4]], [INSTRUCTION]),
    "a text alone": (QUERIES[:1], [INSTRUCTION]),
    "beside texts that lack it": ([QUERIES[0], [9, 9, 9], QUERIES[1], [8, 8]], [INSTRUCTION]),
    "a text that is the prefix": ([INSTRUCTION, QUERIES[0]], [INSTRUCTION]),
    "a text that ends within it": ([INSTRUCTION[:20], QUERIES[0]], [INSTRUCTION]),
    "duplicates": ([QUERIES[0], QUERIES[1], QUERIES[0]], [INSTRUCTION]),
    "one that no text has": ([[9, 9, 9]], [INSTRUCTION]),
    "two of a few tokens' difference": (QUERIES, [INSTRUCTION, [*INSTRUCTION, 1000]]),
}


def keys_values(model, prefixes):
    """What a batch before would have left in the cache."""
    prefixes = [array("i", prefix) for prefix in prefixes]
    batch = pack(prefixes, CPU, kept=prefixes)
    recorder = PrefixRecorder(prefixes, batch.kept_rows, num_layers=4)
    model.forward(batch, recorder.record)
    return list(recorder.recorded())


@pytest.mark.parametrize("mix", CACHED_MIXES)
def test_every_cached_plan_has_the_vectors_of_transformers(mix, embedding_model, transformers_embed):
    sequences, prefixes = CACHED_MIXES[mix]
    ours = embedding_model.forward(packed(sequences, cached=keys_values(embedding_model, prefixes)))
    theirs = torch.cat([transformers_embed([ids]) for ids in sequences])
    assert least_cosine(ours, theirs) >= LEAST_COSINE


def test_cached_tokens_are_not_computed(embedding_model):
    cached = keys_values(embedding_model, [INSTRUCTION])
    assert packed(QUERIES).num_tokens == len(INSTRUCTION) + 4 * 3
    assert packed(QUERIES, cached=cached).num_tokens == 4 * 3


def test_what_is_kept_of_a_cached_batch_reaches_over_the_cached_part(embedding_model, transformers_embed):
    """The third batch uses what the second kept, which began with what the first had kept."""
    prefix = array("i", NESTED)
    batch = packed([[*NESTED, 1]], cached=keys_values(embedding_model, [INSTRUCTION]), kept=[prefix])
    recorder = PrefixRecorder([prefix], batch.kept_rows, num_layers=4)
    embedding_model.forward(batch, recorder.record)
    third = packed([[*NESTED, 2], [*NESTED, 3, 4]], cached=list(recorder.recorded()))
    assert third.num_tokens == 3
    theirs = torch.cat([transformers_embed([ids]) for ids in ([*NESTED, 2], [*NESTED, 3, 4])])
    assert least_cosine(embedding_model.forward(third), theirs) >= LEAST_COSINE


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda kept: dataclasses.replace(kept, keys=kept.keys.roll(1, dims=1)), id="wrong rows"),
        pytest.param(lambda kept: dataclasses.replace(kept, values=kept.values.roll(1, dims=0)), id="wrong layers"),
        pytest.param(lambda kept: dataclasses.replace(kept, keys=kept.values), id="values for keys"),
    ],
)
def test_a_wrong_cache_falls_below_the_bar(wrong, embedding_model, transformers_embed):
    cached = [wrong(kept) for kept in keys_values(embedding_model, [INSTRUCTION])]
    theirs = torch.cat([transformers_embed([ids]) for ids in QUERIES])
    assert least_cosine(embedding_model.forward(packed(QUERIES, cached=cached)), theirs) < LEAST_COSINE


token_lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(token_lists, token_lists, st.data())
def test_any_batch_over_any_cache_has_the_vectors_of_each_text_alone(embedding_model, sequences, others, data):
    beginnings = [ids[: data.draw(st.integers(1, len(ids)))] for ids in [*sequences, *others]]
    cached = keys_values(embedding_model, beginnings)
    ours = embedding_model.forward(packed(sequences, cached=cached, min_shared=data.draw(st.integers(1, 9))))
    alone = torch.cat([embedding_model.forward(packed([ids])) for ids in sequences])
    assert least_cosine(ours, alone) >= LEAST_COSINE


@pytest.fixture(scope="module")
def official_scores(rerank_checkpoint):
    """Probability of yes by the logits of transformers, (n,) float64."""
    model = AutoModelForCausalLM.from_pretrained(rerank_checkpoint, dtype=torch.float32).eval()

    def score(sequences):
        with torch.inference_mode():
            logits = [model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1] for ids in sequences]
        return torch.stack(logits)[:, [NO, YES]].double().softmax(dim=1)[:, 1].numpy()

    return score


@pytest.fixture(scope="module")
def head(yes_minus_no, rerank_checkpoint):
    return yes_minus_no(rerank_checkpoint)


def scores(model, head, batch):
    rows = score_rows(model.forward(batch).float(), head).rows
    return 1 / (1 + np.exp(-np.frombuffer(rows, "<f4").astype(np.float64)))


@pytest.fixture(scope="module", params=["onednn", "torch"])
def reranker(request, load, rerank_checkpoint):
    return load(rerank_checkpoint, kernels=request.param)


@pytest.mark.parametrize("mix", MIXES)
def test_every_plan_and_every_layer_has_the_official_scores(mix, reranker, head, official_scores):
    ours = scores(reranker, head, packed(MIXES[mix]))
    assert np.abs(ours - official_scores(MIXES[mix])).max() <= LARGEST_SCORE_DIFFERENCE


@pytest.mark.parametrize("mix", CACHED_MIXES)
def test_every_cached_plan_has_the_official_scores(mix, rerank_model, head, official_scores):
    sequences, prefixes = CACHED_MIXES[mix]
    batch = packed(sequences, cached=keys_values(rerank_model, prefixes))
    ours = scores(rerank_model, head, batch)
    assert np.abs(ours - official_scores(sequences)).max() <= LARGEST_SCORE_DIFFERENCE
