"""The first call: start `qwen3-serve Qwen/Qwen3-Embedding-0.6B Qwen/Qwen3-Reranker-0.6B`, then run this."""

from qwen3_client import Client

with Client("127.0.0.1:50051") as client:
    query = client.embed(["What is the capital of China?"], input_type="query").vectors
    documents = client.embed(["The capital of China is Beijing.", "Gravity attracts two bodies."]).vectors
    print(query @ documents.T)
    print(client.rerank("What is the capital of China?", ["The capital of China is Beijing."]))
