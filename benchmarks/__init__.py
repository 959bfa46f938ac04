"""Speed. `python -m benchmarks` measures a whole service on this machine beside sentence-transformers."""
