"""`python -m evaluation` is `qwen3-eval`."""

from evaluation.cli import app

app()
