"""The official examples/qwen3_reranker_transformers.py, with the model behind a service.

Two lines change. All documents of a query go in one call, `model.rerank(query, documents)`; here each
has its own query.
"""

import os

from qwen3_client import Client

queries = ["What is the capital of China?", "Explain gravity"]
documents = [
    "The capital of China is Beijing.",
    (
        "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
        "responsible for the movement of planets around the sun."
    ),
]
pairs = list(zip(queries, documents, strict=True))
instruction = "Given the user query, retrieval the relevant passages"

with Client(os.environ.get("QWEN3_TARGET", "127.0.0.1:50051")) as model:  # was: model = Qwen3Reranker(model_path)
    scores = [  # was: model.compute_scores(pairs, instruction)
        model.rerank(query, [document], instruction=instruction)[0].score for query, document in pairs
    ]

print("scores", scores)
