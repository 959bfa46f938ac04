"""Sharing changes nothing: every plan gives the vectors of transformers, and a wrong plan is seen."""

import dataclasses
from array import array

import pytest
import torch
from torch.nn.functional import cosine_similarity

from worker.packing import pack

LEAST_COSINE = 0.999999
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
