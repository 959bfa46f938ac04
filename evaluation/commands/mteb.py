"""The verb `mteb`."""

from functools import partial

import typer
from rich.console import Console

from evaluation.commands import options
from evaluation.commands.starting import Start, end, errors_in_one_line, tell
from evaluation.protocol.instructions import Instructions
from evaluation.protocol.rules import Protocol
from evaluation.protocol.settings import Settings
from evaluation.runs.plan import plan_tasks, print_plan
from evaluation.runs.running import run_tasks
from evaluation.service.encoder import Encoder
from evaluation.tasks.choosing import choose_tasks
from evaluation.tasks.sizes import embedding_size
from qwen3_client.cli.connection import connection_of


def mteb(
    context: typer.Context,
    *,
    benchmark: options.Benchmark = None,
    tasks: options.Tasks = None,
    data: options.Data = None,
    model: options.Model = "",
    name: options.Name = "",
    output: options.Output = options.DEFAULT_OUTPUT,
    dtype: options.ServedDtype = None,
    engine: options.Engine = None,
    prefix_cache: options.PrefixCache = True,
    dimensions: options.Dimensions = 0,
    encoding: options.VectorEncoding = "float32",
    instruction_file: options.InstructionFile = None,
    use_instructions: options.UseInstructions = True,
    similar_text: options.SimilarText = True,
    document_instructions: options.DocumentInstructions = True,
    placeholder: options.Placeholder = options.DEFAULT_PLACEHOLDER,
    tokens_per_s: options.TokensPerS = None,
    progress: options.Progress = True,
    dry_run: options.DryRun = False,
) -> None:
    """Evaluate the served embedding model: scores, and each query's best documents for a reranker."""
    protocol = Protocol(
        use_instructions=use_instructions,
        similar_text=similar_text,
        document_instructions=document_instructions,
        placeholder=placeholder,
    )
    start = Start(
        client=connection_of(context).client,
        model=model,
        name=name,
        output=output,
        dtype=dtype,
        engine=engine,
        prefix_cache=prefix_cache,
        progress=progress,
    )
    console = Console()
    with errors_in_one_line():
        chosen, instructions = choose_tasks(benchmark, tasks, data), Instructions(instruction_file)
        plans = plan_tasks(chosen, instructions, protocol, embedding_size)
        print_plan(console, plans, things="texts")
        if dry_run:
            return
        settings_of = partial(Settings, protocol=protocol, dimensions=dimensions, encoding=encoding)
        session = start.session("embedding", instructions, settings_of)
        tell(console, session, plans, tokens_per_s)
        end(run_tasks(Encoder(session), chosen, benchmark=benchmark), session, things="texts")
