"""The longest input of the models, 32,768 tokens, at the real width through the running service, on the CPU."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.official import OfficialEmbedding
from tests.support.processes import gateway, worker
from tests.support.wire import Stubs, unpack
from worker.make_checkpoint import make_checkpoint
from worker.model.checkpoint import MAX_INPUT_TOKENS
from worker.model.shapes import PUBLISHED_SHAPES
from worker.model.task import ModelTask

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LEAST_COSINE = 0.999999
TIMEOUT_S = 1200
WORDS = "one two three four five six seven eight nine ten"


def peak_mib(pid: int) -> int:
    """The most memory that a process has had resident."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) >> 10


def test_32768_tokens_have_the_official_vector(tmp_path, redis_url, capsys):
    folder = tmp_path / "Qwen3-Embedding-0.6B-two-layers"
    make_checkpoint(folder, task=ModelTask.EMBED, seed=8, shape=replace(PUBLISHED_SHAPES["0.6B"], num_hidden_layers=2))
    text = " ".join(WORDS.split()[place * place % 10] for place in range(MAX_INPUT_TOKENS - 1))
    with worker(redis_url, folder) as process, gateway(redis_url) as (_, address):
        before = peak_mib(process.pid)
        stubs = Stubs(address)
        response = stubs.embed([text], timeout_s=TIMEOUT_S)
        stubs.channel.close()
        peak = peak_mib(process.pid)
    assert response.usage.input_tokens == MAX_INPUT_TOKENS
    theirs = OfficialEmbedding(folder).embed([text])[0]
    cosine = float((unpack(response)[0].astype(np.float64) * theirs).sum())
    with capsys.disabled():
        print(f"\n32,768 tokens: 1 - cosine {1 - cosine:.1e}, {before} MiB resident before, {peak} MiB at most")
    assert cosine >= LEAST_COSINE
