"""The official examples/qwen3_embedding_transformers.py, with the model behind a service.

Three lines change. Templates, padding, pooling and torch are gone: the server does what they did.
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

with Client(os.environ.get("QWEN3_TARGET", "127.0.0.1:50051")) as model:  # was: model = Qwen3Embedding(model_path)
    query_outputs = model.embed(queries, input_type="query").vectors  # was: model.encode(queries, is_query=True)
    doc_outputs = model.embed(documents).vectors  # was: model.encode(documents)

print("query outputs", query_outputs)
print("doc outputs", doc_outputs)
scores = (query_outputs @ doc_outputs.T) * 100
print(scores.tolist())
