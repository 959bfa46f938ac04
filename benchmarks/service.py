"""Load through the client against a running service: latency, throughput, and where a call's time goes."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

from qwen3.inference.v1 import embedding_pb2, embedding_pb2_grpc

TIMEOUT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a run measured. Times in milliseconds, rates per second of wall time."""

    name: str
    num_texts: int
    texts_per_s: float
    tokens_per_s: float
    p50_ms: float
    p99_ms: float
    queue_ms: float
    tokenize_ms: float
    compute_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    elapsed_ms: float
    response: embedding_pb2.EmbedResponse


def run_load(address: str, model: str, texts: Sequence[str], *, batch: int, in_flight: int, name: str) -> Load:
    """Send all texts in calls of `batch`, `in_flight` at a time, after one call to warm up."""
    calls = [texts[start : start + batch] for start in range(0, len(texts), batch)]
    with grpc.insecure_channel(address) as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        call = _caller(stub, model)
        call(calls[0])
        started = time.perf_counter()
        with ThreadPoolExecutor(in_flight) as pool:
            samples = list(pool.map(call, calls))
        return _summary(name, len(texts), samples, elapsed_s=time.perf_counter() - started)


def _caller(stub: embedding_pb2_grpc.EmbeddingServiceStub, model: str) -> Callable[[Sequence[str]], _Sample]:
    def call(texts: Sequence[str]) -> _Sample:
        config = embedding_pb2.EmbedConfig(model=model)
        started = time.perf_counter()
        response = stub.Embed(embedding_pb2.EmbedRequest(config=config, inputs=texts), timeout=TIMEOUT_S)
        return _Sample(elapsed_ms=(time.perf_counter() - started) * 1e3, response=response)

    return call


def _summary(name: str, num_texts: int, samples: Sequence[_Sample], *, elapsed_s: float) -> Load:
    elapsed = sorted(sample.elapsed_ms for sample in samples)
    timings = [sample.response.timing for sample in samples]
    return Load(
        name=name,
        num_texts=num_texts,
        texts_per_s=num_texts / elapsed_s,
        tokens_per_s=sum(sample.response.usage.input_tokens for sample in samples) / elapsed_s,
        p50_ms=statistics.median(elapsed),
        p99_ms=elapsed[min(len(elapsed) - 1, int(len(elapsed) * 0.99))],
        queue_ms=statistics.median(timing.queue_us for timing in timings) / 1e3,
        tokenize_ms=statistics.median(timing.tokenize_us for timing in timings) / 1e3,
        compute_ms=statistics.median(timing.compute_us for timing in timings) / 1e3,
    )
