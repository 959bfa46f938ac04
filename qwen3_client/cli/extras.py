"""What is there with an extra only."""

from importlib import import_module
from types import ModuleType

import typer


def parquet() -> ModuleType:
    """The module parquet.py. Raises BadParameter where pyarrow is not installed."""
    try:
        return import_module("qwen3_client.cli.parquet")
    except ModuleNotFoundError as error:
        raise typer.BadParameter("Parquet needs pyarrow: pip install 'qwen3-serve[parquet]'") from error
