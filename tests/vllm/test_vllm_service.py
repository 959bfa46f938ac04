"""A whole service whose workers run vLLM gives the numbers of the official code."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.official import OfficialEmbedding, OfficialReranker
from tests.support.processes import gateway, running
from tests.support.wire import Stubs

LEAST_COSINE = 0.999999
LARGEST_SCORE_DIFFERENCE = 2e-6
TEXTS = ["The capital of China is Beijing.", "重力是一种使两个物体相互吸引的力。", "x", "gravity " * 300]
QUERY = "What is the capital of China?"


@pytest.fixture(scope="module")
def workers(redis_url, embedding_checkpoint, rerank_checkpoint) -> Iterator[list]:
    """Both workers, ready: the first line that each writes to stdout says so."""
    options = ("--redis", redis_url, "--engine", "vllm", "--max-input-tokens", "1024")
    with (
        running("worker", str(embedding_checkpoint), *options) as embedding,
        running("worker", str(rerank_checkpoint), *options) as rerank,
    ):
        assert embedding.ready() == f"{embedding_checkpoint.name} embedding"
        assert rerank.ready() == f"{rerank_checkpoint.name} rerank"
        yield [embedding, rerank]


@pytest.fixture(scope="module")
def stubs(redis_url, workers) -> Iterator[Stubs]:
    with gateway(redis_url) as (_, address):
        found = Stubs(address)
        yield found
        found.channel.close()


def test_vectors_are_those_of_the_official_code(stubs, embedding_checkpoint):
    official = OfficialEmbedding(embedding_checkpoint)
    theirs = np.concatenate([official.embed([text]) for text in TEXTS]).astype(np.float64)
    assert (stubs.vectors(TEXTS) * theirs).sum(axis=1).min() >= LEAST_COSINE


def test_scores_are_those_of_the_official_code(stubs, rerank_checkpoint):
    theirs = OfficialReranker(rerank_checkpoint).scores(QUERY, TEXTS)
    assert np.abs(stubs.scores(QUERY, TEXTS) - theirs).max() <= LARGEST_SCORE_DIFFERENCE


def test_a_worker_that_is_told_to_stop_drains_and_logs_in_json(workers, stubs):
    for worker in workers:
        assert worker.stop() == 0
        assert any(json.loads(line).get("engine") == "vllm" for line in worker.log.splitlines() if line[0] == "{")
