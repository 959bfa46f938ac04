"""Two-stage retrieval: `python two_stage.py documents.txt "Why do leaves change colour?"`.

The embedding model finds 100 candidates among the lines of the file, by vectors that could be kept. The reranker reads
each candidate together with the question: slower, and better.
"""

import os
import sys
from pathlib import Path

import numpy as np

from qwen3_client import Client

path, question = sys.argv[1:]
documents = Path(path).read_text(encoding="utf-8").splitlines()

with Client(os.environ.get("QWEN3_TARGET", "127.0.0.1:50051")) as client:
    vectors = client.embed(documents).vectors
    query = client.embed([question], input_type="query").vectors[0]
    candidates = [documents[index] for index in np.argsort(-(vectors @ query))[:100]]
    hits = client.rerank(question, candidates, top_n=10, return_documents=True)

for hit in hits:
    print(f"{hit.score:.4f}  {hit.document}")
