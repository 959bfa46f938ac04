"""Semantic search with numpy: `python search_numpy.py documents.txt "Why do leaves change colour?"`.

The file has a document a line. Every one is compared with the question, which is fast for some 100,000 of them.
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

scores = vectors @ query  # cosines, since vectors have length 1
for index in np.argsort(-scores)[:10]:
    print(f"{scores[index]:.4f}  {documents[index]}")
