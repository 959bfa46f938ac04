"""Running tasks.

- `plan`: what a run is about to do
- `first_stage`: the candidates of a reranker
- `running`: one task after the other, so that a run that was killed goes on
"""
