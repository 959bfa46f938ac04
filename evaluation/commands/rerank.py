"""The verb `rerank`."""

from functools import partial

import typer
from rich.console import Console

from evaluation.commands import options
from evaluation.commands.starting import Start, end, errors_in_one_line, tell
from evaluation.protocol.instructions import Instructions
from evaluation.protocol.rules import AUTHORS_TOP_K, Protocol
from evaluation.protocol.settings import Settings
from evaluation.runs.first_stage import (
    find_predictions,
    first_stage,
    predicted_tasks,
    split_by_candidates,
    take_candidates,
)
from evaluation.runs.plan import plan_tasks, print_plan
from evaluation.runs.running import run_tasks
from evaluation.service.cross_encoder import CONCURRENCY, CrossEncoder
from evaluation.tasks.choosing import choose_tasks
from evaluation.tasks.sizes import pairs_size
from qwen3_client.cli.connection import connection_of


def rerank(
    context: typer.Context,
    *,
    from_: options.From,
    top_k: options.TopK = AUTHORS_TOP_K,
    benchmark: options.Benchmark = None,
    tasks: options.Tasks = None,
    data: options.Data = None,
    model: options.Model = "",
    name: options.Name = "",
    output: options.Output = options.DEFAULT_OUTPUT,
    dtype: options.ServedDtype = None,
    engine: options.Engine = None,
    prefix_cache: options.PrefixCache = True,
    instruction_file: options.InstructionFile = None,
    use_instructions: options.UseInstructions = True,
    placeholder: options.Placeholder = options.DEFAULT_PLACEHOLDER,
    score_type: options.Score = "probability",
    concurrency: options.Concurrency = CONCURRENCY,
    tokens_per_s: options.TokensPerS = None,
    progress: options.Progress = True,
    dry_run: options.DryRun = False,
) -> None:
    """Evaluate the served reranker on the best documents of an embedding run: all its tasks, unless some are named."""
    protocol = Protocol(use_instructions=use_instructions, placeholder=placeholder)
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
        predictions, instructions = find_predictions(from_), Instructions(instruction_file)
        named = tasks or (None if benchmark or data else predicted_tasks(predictions))
        chosen, others = split_by_candidates(choose_tasks(benchmark, named, data), predictions)
        plans = plan_tasks(chosen, instructions, protocol, partial(pairs_size, top_k=top_k))
        print_plan(console, plans, things="pairs")
        for task in others:
            typer.echo(f"left out, with no candidates in {predictions}: {task.metadata.name}")
        if dry_run:
            return
        stage = first_stage(predictions, top_k=top_k)
        settings_of = partial(Settings, protocol=protocol, score_type=score_type, first_stage=stage)
        session = start.session("rerank", instructions, settings_of)
        tell(console, session, plans, tokens_per_s)
        prepare = partial(take_candidates, predictions=predictions, top_k=top_k)
        reranker = CrossEncoder(session, concurrency=concurrency)
        end(run_tasks(reranker, chosen, benchmark=benchmark, prepare=prepare), session, things="pairs")
