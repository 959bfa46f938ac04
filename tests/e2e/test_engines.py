"""A worker's engines, kernels and metrics, as flags of the running process."""

import re
import threading
import urllib.request

import numpy as np
import pytest

from qwen3.inference.v1 import embedding_pb2
from runtime.errors import SettingError
from tests.support.http import http_address
from tests.support.official import DEFAULT_INSTRUCTION, OfficialEmbedding, OfficialReranker, detailed_instruct
from tests.support.processes import gateway, running, worker
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import Stubs
from worker.config import WorkerSettings
from worker.process import work

HTTP = ("--http-listen", "127.0.0.1:0")
LEAST_COSINE = 0.999999
LARGEST_SCORE_DIFFERENCE = 2e-6
QUERIES = ["What is the capital of China?", "Explain gravity", "x"]
DOCUMENTS = ["The capital of China is Beijing.", "Gravity attracts two bodies.", "東京です。"]


@pytest.fixture
def server():
    with redis_server(embedded_binary()) as url:
        yield url


def least_cosine(ours, theirs) -> float:
    return float((ours.astype(np.float64) * theirs).sum(axis=1).min())


@pytest.mark.parametrize(
    "options", [("--engine", "transformers"), ("--kernels", "torch"), ("--threads", "1")], ids=" ".join
)
def test_every_way_to_compute_has_the_official_vectors(options, server, embedding_checkpoint):
    with worker(server, embedding_checkpoint, *options), gateway(server) as (_, address):
        stubs = Stubs(address)
        ours = stubs.vectors(QUERIES, input_type=embedding_pb2.INPUT_TYPE_QUERY)
        stubs.channel.close()
    official = OfficialEmbedding(embedding_checkpoint)
    theirs = np.concatenate([official.embed([detailed_instruct(DEFAULT_INSTRUCTION, text)]) for text in QUERIES])
    assert least_cosine(ours, theirs) >= LEAST_COSINE


def test_the_transformers_engine_has_the_official_scores(server, rerank_checkpoint):
    with worker(server, rerank_checkpoint, "--engine", "transformers"), gateway(server) as (_, address):
        stubs = Stubs(address)
        ours = stubs.scores(QUERIES[0], DOCUMENTS)
        stubs.channel.close()
    theirs = OfficialReranker(rerank_checkpoint).scores(QUERIES[0], DOCUMENTS)
    assert np.abs(ours - theirs).max() <= LARGEST_SCORE_DIFFERENCE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attention", "flash-attn"], "--attention flash-attn: runs on CUDA, not on cpu"),
        (["--attention", "torch-varlen"], "--attention torch-varlen: runs on CUDA, not on cpu"),
        (["--kernels", "triton"], "--kernels triton: runs on CUDA, not on cpu"),
        (["--cuda-graphs"], "--cuda-graphs: runs on CUDA, not on cpu"),
        (["--engine", "vllm"], "--engine vllm: vllm is not installed"),
        (["--engine", "vllm", "--attention", "sdpa"], "--attention: the vllm engine chooses its own"),
        (["--engine", "transformers", "--kernels", "torch"], "--kernels: belongs to the packed engine"),
        (["--engine", "transformers", "--cuda-graphs"], "--cuda-graphs: belongs to the packed engine"),
        (["--engine", "transformers", "--prefix-cache-mib", "1"], "--prefix-cache-mib: belongs to the packed engine"),
    ],
)
def test_a_flag_that_cannot_be_followed_is_refused_by_its_name(options, message, server, embedding_checkpoint):
    settings = WorkerSettings.from_command_line([str(embedding_checkpoint), "--redis", server, *options])
    with pytest.raises(SettingError, match=re.escape(message)):
        work(settings, threading.Event(), threading.Event())


def test_a_flag_that_cannot_be_followed_ends_the_worker(server, embedding_checkpoint):
    with running("worker", str(embedding_checkpoint), "--redis", server, "--cuda-graphs") as process:
        assert process.wait() == 1
        assert "--cuda-graphs: runs on CUDA, not on cpu" in process.log


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as response:
        return response.read().decode()


def value_of(metrics: str, name: str) -> float:
    found = re.search(rf"^{name}\{{[^}}]*\}} (\S+)$", metrics, re.MULTILINE)
    assert found, f"{name} is not in\n{metrics}"
    return float(found[1])


def test_metrics_tell_what_computes_and_what_sharing_and_the_cache_saved(server, embedding_checkpoint):
    with (
        worker(server, embedding_checkpoint, *HTTP, "--name", "m", "--revision", "7") as process,
        gateway(server) as (_, gateway_address),
    ):
        address = http_address(process)
        before = scrape(address)
        stubs = Stubs(gateway_address)
        calls = [stubs.embed(QUERIES, input_type=embedding_pb2.INPUT_TYPE_QUERY) for _ in range(3)]
        stubs.channel.close()
        after = scrape(address)
    info = next(line for line in after.splitlines() if line.startswith("qwen3_worker_info{"))
    for label in ('model="m"', 'revision="7"', 'engine="packed"', 'attention="sdpa"', 'dtype="float32"', "kernels="):
        assert label in info
    tokens = value_of(after, "qwen3_input_tokens_total") - value_of(before, "qwen3_input_tokens_total")
    computed = value_of(after, "qwen3_computed_tokens_total") - value_of(before, "qwen3_computed_tokens_total")
    assert tokens == sum(call.usage.input_tokens for call in calls)
    # Shared in the first two calls; in the third, what the second kept was cached.
    assert computed < sum(call.usage.computed_tokens for call in calls) < tokens
    assert (value_of(after, "qwen3_prefix_cache_hits_total"), value_of(after, "qwen3_prefix_cache_misses_total")) == (
        1,
        2,
    )
    assert value_of(after, "qwen3_prefix_cache_bytes") > 0
    assert value_of(after, "qwen3_jobs_total") == 3
    assert "_created" not in after


def test_without_a_prefix_cache_nothing_is_kept(server, embedding_checkpoint):
    with (
        worker(server, embedding_checkpoint, *HTTP, "--prefix-cache-mib", "0") as process,
        gateway(server) as (_, gateway_address),
    ):
        stubs = Stubs(gateway_address)
        for _ in range(3):
            stubs.embed(QUERIES, input_type=embedding_pb2.INPUT_TYPE_QUERY)
        stubs.channel.close()
        metrics = scrape(http_address(process))
    assert value_of(metrics, "qwen3_prefix_cache_hits_total") == value_of(metrics, "qwen3_prefix_cache_bytes") == 0
