"""The real 0.6B shape, 28 layers, through the running service; minutes long, so run by `make test-slow`."""

from pathlib import Path

import numpy as np
import pytest

from qwen3.inference.v1 import embedding_pb2
from tests.support.official import DEFAULT_INSTRUCTION, OfficialEmbedding, OfficialReranker, detailed_instruct
from tests.support.processes import gateway, worker
from tests.support.wire import Stubs
from worker.make_checkpoint import make_checkpoint
from worker.model.shapes import PUBLISHED_SHAPES
from worker.model.task import ModelTask

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LEAST_COSINE = 0.999999
LARGEST_SCORE_DIFFERENCE = 2e-6

QUERIES = ["What is the capital of China?", "Explain gravity"]
DOCUMENTS = [
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other.",
    "重力是一种使两个物体相互吸引的力。",
    "def f(x): return x " * 40,
]


def made(folder: Path, task: ModelTask) -> Path:
    make_checkpoint(folder, task=task, seed=6, shape=PUBLISHED_SHAPES["0.6B"])
    return folder


def test_embedding_at_the_real_0_6b_shape_has_the_official_vectors(tmp_path, redis_url, capsys):
    folder = made(tmp_path / "Qwen3-Embedding-0.6B-random", ModelTask.EMBED)
    official = OfficialEmbedding(folder)
    with worker(redis_url, folder), gateway(redis_url) as (_, address):
        stubs = Stubs(address)
        queries = stubs.vectors(QUERIES, input_type=embedding_pb2.INPUT_TYPE_QUERY, timeout_s=300)
        documents = stubs.vectors(DOCUMENTS, timeout_s=300)
        stubs.channel.close()
    rendered = [detailed_instruct(DEFAULT_INSTRUCTION, query) for query in QUERIES]
    theirs = np.concatenate([official.embed([text]) for text in [*rendered, *DOCUMENTS]])
    cosines = (np.concatenate([queries, documents]).astype(np.float64) * theirs).sum(axis=1)
    with capsys.disabled():
        print(f"\n0.6B embedding: 1 - least cosine = {1 - cosines.min():.2e} over {len(cosines)} texts")
    assert queries.shape[1] == 1024
    assert cosines.min() >= LEAST_COSINE


def test_rerank_at_the_real_0_6b_shape_has_the_official_scores(tmp_path, redis_url, capsys):
    folder = made(tmp_path / "Qwen3-Reranker-0.6B-random", ModelTask.RERANK)
    official = OfficialReranker(folder)
    with worker(redis_url, folder), gateway(redis_url) as (_, address):
        stubs = Stubs(address)
        ours = stubs.scores(QUERIES[0], DOCUMENTS, timeout_s=300)
        stubs.channel.close()
    difference = np.abs(ours - official.scores(QUERIES[0], DOCUMENTS)).max()
    with capsys.disabled():
        print(f"\n0.6B rerank: largest difference = {difference:.2e} over {len(DOCUMENTS)} documents")
    assert difference <= LARGEST_SCORE_DIFFERENCE
