"""The commands. What they take is said here; what they do, in embed.py and rerank.py."""

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from qwen3_client.batches import MAX_DOCUMENTS
from qwen3_client.cli import progress
from qwen3_client.cli.connection import connect, connection_of
from qwen3_client.cli.embed import EmbedOptions, embed_source
from qwen3_client.cli.endings import Commands, ExitCode, places_named
from qwen3_client.cli.formats import OutputFormat, format_of, json_line, vector_format
from qwen3_client.cli.outputs import open_output
from qwen3_client.cli.rerank import RerankOptions, questions, rerank_rows, rerank_source
from qwen3_client.cli.sources import InputFormat, Source, existing, open_lines, open_texts, places_in
from qwen3_client.cli.tables import print_hits, print_models
from qwen3_client.cli.terminal import print_text
from qwen3_client.options import Encoding, InputType, Priority, ScoreType, Truncation
from qwen3_client.results import HealthStatus

app = typer.Typer(
    name="qwen3", cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)
app.callback()(connect)

Texts = Annotated[list[str] | None, typer.Argument(help="Texts; none: those of --file, or of standard input.")]
File = Annotated[
    Path | None, typer.Option(dir_okay=False, callback=existing, help="File of texts; - is standard input.")
]
Format = Annotated[
    InputFormat | None, typer.Option("--input-format", help="What the file is; unset: as its name ends, else text.")
]
Field = Annotated[
    str, typer.Option("--field", "--column", help="JSONL's field, or CSV's or Parquet's column, that has the text.")
]
SkipEmpty = Annotated[
    bool, typer.Option("--skip-empty", help="Leave rows without text out, in place of refusing them.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", dir_okay=False, help="File to make; unset: standard output.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a complete file of that name.")]
Restart = Annotated[bool, typer.Option("--restart", help="Forget what an unfinished run has done.")]
Shown = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="A bar on standard error; unset: on a terminal.", show_default=False),
]
Model = Annotated[str, typer.Option(help="Model id; unset: the task's default.", show_default=False)]
Input = Annotated[InputType | None, typer.Option(help="What the texts are.")]
Instruction = Annotated[
    str | None, typer.Option(help="The task in one English sentence; unset: the model's own, empty: none.")
]
RerankInstruction = Annotated[
    str | None, typer.Option(help="The task in one English sentence; unset: the model's own.")
]
TopN = Annotated[int, typer.Option(min=0, help="How many of the best; 0 is all.")]
Scores = Annotated[ScoreType, typer.Option(help="What a score is.")]
Cut = Annotated[Truncation, typer.Option(help="Refuse a text that is too long, or cut it at its end or start.")]
Lane = Annotated[
    Priority | None, typer.Option(help="The queue's lane; unset: interactive for arguments, bulk for files.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command()
def embed(
    context: typer.Context,
    texts: Texts = None,
    *,
    file: File = None,
    input_format: Format = None,
    field: Field = "text",
    skip_empty: SkipEmpty = False,
    output: Output = None,
    output_format: Annotated[
        OutputFormat | None, typer.Option("--format", help="What to write; unset: as --output ends, else jsonl.")
    ] = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    shown: Shown = None,
    model: Model = "",
    input_type: Input = None,
    instruction: Instruction = None,
    dimensions: Annotated[int, typer.Option(min=0, help="Width of the vectors; 0 is the model's own.")] = 0,
    encoding: Annotated[Encoding, typer.Option(help="What the values of the vectors are.")] = "float32",
    normalize: Annotated[bool, typer.Option("--normalize/--no-normalize", help="Vectors of length 1.")] = True,
    truncation: Cut = "error",
    priority: Lane = None,
) -> None:
    """Vectors of texts, in order: JSONL, a numpy array or Parquet.

    Run again with the same arguments, an unfinished --output goes on where it stopped.
    """
    options = EmbedOptions(
        model=model,
        input_type=input_type,
        instruction=instruction,
        dimensions=dimensions,
        normalize=normalize,
        encoding=encoding,
        truncation=truncation,
    )
    found_format = format_of(output, output_format)
    vectors = vector_format(found_format)
    settings = {"command": "embed", "format": found_format, **asdict(options)}
    with (
        open_texts(texts, file, input_format=input_format, field=field, skip_empty=skip_empty) as source,
        open_output(output, settings, overwrite=overwrite, restart=restart) as written,
    ):
        embed_source(
            connection_of(context).client,
            source,
            written,
            vectors,
            options,
            priority=priority or ("interactive" if texts else None),
            shows_progress=progress.is_wanted(asked=shown, to_stdout=output is None),
        )


@app.command()
def rerank(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="The query.")],
    documents: Annotated[
        list[str] | None, typer.Argument(help="Documents; none: those of --file, or of standard input.")
    ] = None,
    *,
    file: File = None,
    input_format: Format = None,
    field: Field = "text",
    skip_empty: SkipEmpty = False,
    model: Model = "",
    instruction: RerankInstruction = None,
    top_n: TopN = 0,
    score_type: Scores = "probability",
    truncation: Cut = "error",
    priority: Lane = None,
    as_json: Json = False,
) -> None:
    """The documents of one query, best first."""
    options = RerankOptions(
        model=model, instruction=instruction, top_n=top_n, truncation=truncation, score_type=score_type
    )
    with open_texts(documents, file, input_format=input_format, field=field, skip_empty=skip_empty) as source:
        rows = list(source.rows)
    lane = priority or ("interactive" if documents else "bulk")
    hits = rerank_rows(connection_of(context).client, query, rows, options, priority=lane)
    if as_json:
        print_text("".join(json_line(asdict(hit)) for hit in hits))
    else:
        print_hits(hits)


@app.command()
def rerank_many(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(dir_okay=False, callback=existing, help="JSONL: query and documents; - is standard input."),
    ],
    *,
    skip_empty: SkipEmpty = False,
    output: Output = None,
    overwrite: Overwrite = False,
    restart: Restart = False,
    shown: Shown = None,
    model: Model = "",
    instruction: RerankInstruction = None,
    top_n: TopN = 0,
    score_type: Scores = "probability",
    truncation: Cut = "error",
    priority: Lane = "bulk",
) -> None:
    """The documents of many queries, a line of JSONL for each.

    Run again with the same arguments, an unfinished --output goes on where it stopped.
    """
    options = RerankOptions(
        model=model, instruction=instruction, top_n=top_n, truncation=truncation, score_type=score_type
    )
    settings = {"command": "rerank-many", **asdict(options)}
    connection = connection_of(context)
    with (
        open_lines(file) as lines,
        open_output(output, settings, overwrite=overwrite, restart=restart) as written,
    ):
        rerank_source(
            connection.client,
            Source(rows=questions(lines.rows, skip_empty=skip_empty), size=lines.size),
            written,
            options,
            priority=priority,
            timeout_s=connection.timeout_s,
            shows_progress=progress.is_wanted(asked=shown, to_stdout=output is None),
        )


@app.command()
def count_tokens(
    context: typer.Context,
    texts: Texts = None,
    *,
    file: File = None,
    input_format: Format = None,
    field: Field = "text",
    skip_empty: SkipEmpty = False,
    model: Model = "",
    input_type: Input = None,
    instruction: Instruction = None,
    query: Annotated[str, typer.Option(help="A reranker's query; the texts are then its documents.")] = "",
    as_json: Json = False,
) -> None:
    """The tokens that each text would be charged, one number a line."""
    client = connection_of(context).client
    with open_texts(texts, file, input_format=input_format, field=field, skip_empty=skip_empty) as source:
        while rows := list(islice(source.rows, MAX_DOCUMENTS)):
            with places_named(places_in(rows)):
                counts = client.count_tokens(
                    [row.value for row in rows],
                    model=model,
                    input_type=input_type,
                    instruction=instruction,
                    query=query,
                )
            counted = zip(rows, counts.token_counts, strict=True)
            print_text(
                "".join(
                    json_line({"index": row.index, "tokens": count}) if as_json else f"{count}\n"
                    for row, count in counted
                )
            )


@app.command()
def models(context: typer.Context, *, as_json: Json = False) -> None:
    """What is served."""
    served = connection_of(context).client.models()
    if as_json:
        print_text("".join(json_line(asdict(model)) for model in served))
    else:
        print_models(served)


@app.command()
def health(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Model id; unset: the service.", show_default=False)] = "",
    *,
    as_json: Json = False,
) -> None:
    """The health status; the exit code is 0 for SERVING only."""
    status = connection_of(context).client.health(model)
    print_text(json_line({"model": model, "status": status.value}) if as_json else f"{status.value}\n")
    if status is not HealthStatus.SERVING:
        raise typer.Exit(ExitCode.FAILED)
