"""The running service as mteb's models.

- `encoder`, `embedder`: an embedding model, and its vectors
- `cross_encoder`, `scorer`: a reranker, and its scores
- `rescoring`: search among encoded vectors with a second look
- `encodings`: what an encoding keeps of a vector
- `served`: which model is meant, and that it stays the same
- `session`: what an adapter and its run share
"""
