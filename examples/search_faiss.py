"""Semantic search with faiss, in an index that is made once and kept in a file.

`python search_faiss.py documents.txt` makes documents.faiss, of a file with a document a line; make it anew when the
file or the served model has changed. `python search_faiss.py documents.txt "Why do leaves change colour?"` searches.
"""

import os
import sys
from pathlib import Path

import faiss

from qwen3_client import Client

path, *question = sys.argv[1:]
documents = Path(path).read_text(encoding="utf-8").splitlines()
index_path = str(Path(path).with_suffix(".faiss"))

with Client(os.environ.get("QWEN3_TARGET", "127.0.0.1:50051")) as client:
    if question:
        query = client.embed(question, input_type="query").vectors
        scores, found = faiss.read_index(index_path).search(query, min(10, len(documents)))
        for score, number in zip(scores[0], found[0], strict=True):
            print(f"{score:.4f}  {documents[number]}")
    else:
        index = faiss.IndexFlatIP(client.embed(documents[:1]).dimensions)  # inner products: cosines, compared with all
        for part in client.embed_stream(documents):  # part by part, so that the vectors are in memory once
            index.add(part.vectors)
        faiss.write_index(index, index_path)
