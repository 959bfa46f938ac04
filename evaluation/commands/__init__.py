"""The verbs of `qwen3-eval`.

- `mteb`, `rerank`, `summary`, `sweep`: a verb each
- `options`: what they have in common on the command line
- `starting`: and on the way from there to a run
"""
