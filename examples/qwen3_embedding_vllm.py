"""The official examples/qwen3_embedding_vllm.py, with the model behind a service: prompts that are rendered here.

Three lines change. A document goes to the model as it is, so a prompt of your own is sent as one.
"""

import os

from qwen3_client import Client


def get_detailed_instruct(task: str, query: str) -> str:
    return f"Instruct: {task}\nQuery:{query}"


task = "Given a web search query, retrieve relevant passages that answer the query"
queries = [
    get_detailed_instruct(task, "What is the capital of China?"),
    get_detailed_instruct(task, "Explain gravity"),
]
documents = [
    "The capital of China is Beijing.",
    (
        "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
        "responsible for the movement of planets around the sun."
    ),
]

with Client(os.environ.get("QWEN3_TARGET", "127.0.0.1:50051")) as model:  # was: model = LLM(model_path, task="embed")
    query_outputs = model.embed(queries).vectors  # was: tensor([o.outputs.embedding for o in model.embed(queries)])
    doc_outputs = model.embed(documents).vectors  # was: tensor([o.outputs.embedding for o in model.embed(documents)])

print("query outputs", query_outputs)
print("doc outputs", doc_outputs)
scores = (query_outputs @ doc_outputs.T) * 100
print(scores.tolist())
