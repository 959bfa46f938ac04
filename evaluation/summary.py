"""The authors' `summary.py RESULTS BENCHMARK`, as a script: the verb `summary` of `qwen3-eval`."""

import typer

from evaluation.commands.summary import summary

if __name__ == "__main__":
    typer.run(summary)
