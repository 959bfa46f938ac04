"""Tables for people. What stands in them is data: no markup of rich's, no control character, reaches the terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3_client.cli.terminal import print_text, printable
from qwen3_client.results import ModelInfo, RerankHit


def print_hits(hits: Iterable[RerankHit]) -> None:
    """Ranks count from 1."""
    rows = ((rank, f"{hit.score:.4f}", hit.index, hit.document) for rank, hit in enumerate(hits, start=1))
    _print_table(("rank", "score", "index", "document"), rows)


def print_models(models: Iterable[ModelInfo]) -> None:
    """What a caller chooses by."""
    rows = (
        (
            model.id,
            model.task,
            model.state,
            model.revision,
            model.native_dimensions or "",
            model.max_input_tokens,
            "yes" if model.default_for_task else "",
        )
        for model in models
    )
    _print_table(("model", "task", "state", "revision", "dimensions", "max tokens", "default"), rows)


def _print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console = Console()
    with console.capture() as captured:
        console.print(table)
    print_text(captured.get())
