"""What every client must print: the same calls by Python's stubs."""

import grpc
import numpy as np

from qwen3.inference.v1.embedding_pb2 import INPUT_TYPE_DOCUMENT, INPUT_TYPE_QUERY
from tests.support.wire import Stubs, refusal

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "Gravity attracts two bodies."]


def expected(stubs: Stubs, model_without_worker: str) -> list[dict]:
    return [
        _embedded(stubs),
        *_reranked(stubs),
        {"call": "refused", **_refused(stubs, ["a text", " "])},
        {"call": "deadline", "code": "DEADLINE_EXCEEDED"},
        {"call": "stream", "chunk_id": 10, **_chunk(stubs, DOCUMENTS)},
        {"call": "stream", "chunk_id": 20, **_refused(stubs, [" "])},
        {"call": "stream", "chunk_id": 30, **_chunk(stubs, [QUERY])},
        {"call": "unavailable", **_refused(stubs, ["a text"], model=model_without_worker)},
    ]


def _embedded(stubs: Stubs) -> dict:
    (query,) = stubs.vectors([QUERY], input_type=INPUT_TYPE_QUERY)
    documents = stubs.vectors(DOCUMENTS, input_type=INPUT_TYPE_DOCUMENT)
    similarities = np.matmul(documents, query)
    return {
        "call": "embed",
        "dimensions": query.size,
        "first_values": query[:2].tolist(),
        "similarities": similarities.tolist(),
    }


def _reranked(stubs: Stubs) -> list[dict]:
    results = stubs.rerank_documents(QUERY, DOCUMENTS).results
    return [{"call": "rerank", "index": result.index, "score": result.score} for result in results]


def _chunk(stubs: Stubs, texts: list[str]) -> dict:
    vectors = stubs.vectors(texts, input_type=INPUT_TYPE_DOCUMENT)
    return {"num_vectors": len(vectors), "first_value": float(vectors[0, 0])}


def _refused(stubs: Stubs, texts: list[str], **config) -> dict:
    try:
        stubs.embed(texts, **config)
    except grpc.RpcError as error:
        found = refusal(error)
        return {
            "code": found.code.name,
            "reason": found.reason,
            "field": found.field or "",
            "retry_s": found.retry_s or 0,
        }
    raise AssertionError("it was not refused")
