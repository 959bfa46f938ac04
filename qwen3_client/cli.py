"""The command line `qwen3`: one command per call, plain output for pipes, exit code 1 where a call fails."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3_client.channel import DEFAULT_TARGET
from qwen3_client.client import Client
from qwen3_client.errors import Qwen3Error
from qwen3_client.options import InputType, ScoreType, Truncation
from qwen3_client.results import HealthStatus, RerankHit

app = typer.Typer(
    name="qwen3",
    help="Embed texts and rerank documents with a qwen3-serve service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Option(help="Model id; empty is the task's default.")]
Instruction = Annotated[
    str | None, typer.Option(help="The task in one English sentence; unset is the model's default.")
]
Input = Annotated[InputType | None, typer.Option(help="What the texts are.")]
Cut = Annotated[Truncation, typer.Option(help="What to do with a text that is too long: refuse it, or cut it.")]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; none: one a line from standard input.")]
File = Annotated[typer.FileText | None, typer.Option(help="One text a line; - is standard input.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")]


@app.callback()
def connect(
    context: typer.Context,
    target: Annotated[str, typer.Option(envvar="QWEN3_TARGET", help="HOST:PORT of the service.")] = DEFAULT_TARGET,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds that a command may take.")] = 30.0,
) -> None:
    """Embed texts and rerank documents with a qwen3-serve service."""
    context.obj = context.with_resource(Client(target, timeout_s=timeout_s))


@app.command()
def embed(
    context: typer.Context,
    texts: Texts = None,
    *,
    file: File = None,
    model: Model = "",
    input_type: Input = None,
    instruction: Instruction = None,
    dimensions: Annotated[int, typer.Option(help="Width of the vectors; 0 is the model's own.")] = 0,
    truncation: Cut = "error",
) -> None:
    """Print one JSON object per text: its index, its vector and whether it was cut."""
    with _errors_in_one_line():
        result = _client(context).embed(
            _texts(texts, file),
            model=model,
            input_type=input_type,
            instruction=instruction,
            dimensions=dimensions,
            truncation=truncation,
        )
    for index, (vector, truncated) in enumerate(zip(result.vectors, result.truncated, strict=True)):
        _print_json({"index": index, "embedding": vector.tolist(), "truncated": truncated})


@app.command()
def rerank(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="The query.")],
    documents: Annotated[
        list[str] | None, typer.Argument(help="Documents; none: one a line from standard input.")
    ] = None,
    *,
    file: File = None,
    model: Model = "",
    instruction: Instruction = None,
    top_n: Annotated[int, typer.Option(help="How many of the best to print; 0 is all.")] = 0,
    score_type: Annotated[ScoreType, typer.Option(help="What a score is.")] = "probability",
    truncation: Cut = "error",
    as_json: Json = False,
) -> None:
    """Score documents against a query, best first."""
    candidates = _texts(documents, file)
    with _errors_in_one_line():
        hits = _client(context).rerank(
            query,
            candidates,
            model=model,
            instruction=instruction,
            top_n=top_n,
            score_type=score_type,
            truncation=truncation,
        )
    if as_json:
        for hit in hits:
            _print_json(asdict(hit) | {"document": candidates[hit.index]})
    else:
        Console().print(_ranking(hits, candidates))


@app.command()
def count_tokens(
    context: typer.Context,
    texts: Texts = None,
    *,
    file: File = None,
    model: Model = "",
    input_type: Input = None,
    instruction: Instruction = None,
    query: Annotated[str, typer.Option(help="A reranker's query; the texts are then its documents.")] = "",
) -> None:
    """Print the tokens of each text's prompt, one number a line."""
    with _errors_in_one_line():
        counts = _client(context).count_tokens(
            _texts(texts, file), model=model, input_type=input_type, instruction=instruction, query=query
        )
    for count in counts.token_counts:
        typer.echo(count)


@app.command()
def models(context: typer.Context, *, as_json: Json = False) -> None:
    """List what is served."""
    with _errors_in_one_line():
        served = _client(context).models()
    if as_json:
        for model in served:
            _print_json(asdict(model))
        return
    table = Table("model", "task", "state", "revision", "dimensions", "max tokens", "default")
    for model in served:
        table.add_row(
            model.id,
            model.task,
            model.state,
            model.revision,
            str(model.native_dimensions or ""),
            str(model.max_input_tokens),
            "yes" if model.default_for_task else "",
        )
    Console().print(table)


@app.command()
def health(context: typer.Context, model: Annotated[str, typer.Option(help="Model id; empty: all.")] = "") -> None:
    """Print the health status; the exit code is 0 only for SERVING."""
    with _errors_in_one_line():
        status = _client(context).health(model)
    typer.echo(status.value)
    raise typer.Exit(0 if status is HealthStatus.SERVING else 1)


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except Qwen3Error as error:
        typer.echo(f"qwen3: {error}", err=True)
        raise typer.Exit(1) from error


def _client(context: typer.Context) -> Client:
    client: Client = context.obj
    return client


def _texts(texts: list[str] | None, file: typer.FileText | None) -> list[str]:
    if texts and file:
        raise typer.BadParameter("give texts or --file, not both")
    if texts:
        return texts
    return (file or sys.stdin).read().splitlines()


def _print_json(row: dict[str, Any]) -> None:
    typer.echo(json.dumps(row, ensure_ascii=False))


def _ranking(hits: list[RerankHit], documents: list[str]) -> Table:
    table = Table("rank", "score", "index", "document")
    for rank, hit in enumerate(hits, start=1):
        # The text is data: square brackets in it are not rich's markup.
        table.add_row(str(rank), f"{hit.score:.4f}", str(hit.index), Text(documents[hit.index]))
    return table
