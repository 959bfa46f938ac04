"""By what is evaluated.

- `rules`: the authors' rules: which side of which task has an instruction
- `instructions`: what the instruction of each task is, and who says so
- `settings`: everything that changes a score, and the key that results are kept under
"""
