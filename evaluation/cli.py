"""The command line `qwen3-eval`: what models score through the running service, which is reached as `qwen3` does it."""

import typer

from evaluation.commands.mteb import mteb
from evaluation.commands.options import DEFAULT_TIMEOUT_S
from evaluation.commands.rerank import rerank
from evaluation.commands.summary import summary
from evaluation.commands.sweep import sweep
from qwen3_client.cli.connection import connect

app = typer.Typer(
    name="qwen3-eval",
    help="Evaluate served models with mteb, as the authors of Qwen3-Embedding and Qwen3-Reranker do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.callback(context_settings={"default_map": {"timeout_s": DEFAULT_TIMEOUT_S}})(connect)
app.command()(mteb)
app.command()(rerank)
app.command()(summary)
app.command()(sweep)
