"""The official examples/qwen3_reranker_vllm.py, with the model behind a service: all pairs at once, as vLLM takes them.

The calls are in flight together, and the server makes batches of them.
"""

import asyncio
import os

from qwen3_client import AsyncClient

queries = ["What is the capital of China?", "Explain gravity"]
documents = [
    "The capital of China is Beijing.",
    (
        "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
        "responsible for the movement of planets around the sun."
    ),
]
pairs = list(zip(queries, documents, strict=True))
instruction = "Retrieval document that can answer user's query"


async def compute_scores(pairs: list[tuple[str, str]]) -> list[float]:  # was: model.compute_scores(pairs)
    async with AsyncClient(os.environ.get("QWEN3_TARGET", "127.0.0.1:50051")) as model:
        calls = (model.rerank(query, [document], instruction=instruction) for query, document in pairs)
        return [hits[0].score for hits in await asyncio.gather(*calls)]


print("scores", asyncio.run(compute_scores(pairs)))
