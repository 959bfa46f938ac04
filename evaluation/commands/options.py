"""What verbs that ask the service have in common on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from evaluation.protocol.rules import Protocol
from evaluation.protocol.settings import Dtype
from qwen3_client.options import Encoding, ScoreType

DEFAULT_OUTPUT = Path("results")
DEFAULT_PLACEHOLDER = Protocol().placeholder
DEFAULT_TIMEOUT_S = 600.0  # a bulk call waits behind interactive ones

_PICTURES = (".png", ".svg", ".pdf")


def _picture(file: Path | None) -> Path | None:
    """Refused before anything is run for it."""
    if file and file.suffix not in _PICTURES:
        raise typer.BadParameter(f"{file} is not named as one of {', '.join(_PICTURES)}")
    return file


def _not_empty(placeholder: str) -> str:
    if not placeholder.strip():
        raise typer.BadParameter("the service refuses an empty text")
    return placeholder


Benchmark = Annotated[
    str | None, typer.Option(help='A benchmark: "MTEB(eng, v2)", FollowIR, MLDR or any other of mteb\'s.')
]
Tasks = Annotated[list[str] | None, typer.Option("--tasks", help="A task of mteb's by its name; may be repeated.")]
Data = Annotated[list[Path] | None, typer.Option("--data", help="A folder with a task of your own; may be repeated.")]
Model = Annotated[str, typer.Option(help="Id of the served model; empty: the default.")]
Name = Annotated[str, typer.Option(help="What the results are kept under; empty: the model's id.")]
Output = Annotated[Path, typer.Option(help="The results folder.")]
ServedDtype = Annotated[
    Dtype | None,
    typer.Option("--dtype", envvar="QWEN3_EVAL_DTYPE", help="Of the workers, who do not tell it; needed for a run."),
]
Engine = Annotated[
    str | None,
    typer.Option(envvar="QWEN3_EVAL_ENGINE", help="Of the workers, who do not tell it; needed for a run."),
]
PrefixCache = Annotated[
    bool, typer.Option("--prefix-cache/--no-prefix-cache", help="Whether the workers keep hot prefixes.")
]
InstructionFile = Annotated[
    Path | None,
    typer.Option("--instruction-file", exists=True, dir_okay=False, help="JSON of instructions by task; goes first."),
]
UseInstructions = Annotated[bool, typer.Option("--instructions/--no-instructions", help="Send instructions at all.")]
SimilarText = Annotated[
    bool,
    typer.Option("--similar-text/--own-text", help="STS and PairClassification have one instruction, or their own."),
]
DocumentInstructions = Annotated[
    bool,
    typer.Option(
        "--document-instructions/--no-document-instructions",
        help="Documents of Reranking tasks, ArguAna and CQADupstack Gaming and Unix have it too.",
    ),
]
Placeholder = Annotated[
    str, typer.Option(help="What stands for an empty text, which the service refuses.", callback=_not_empty)
]
TokensPerS = Annotated[
    float | None, typer.Option("--tokens-per-s", min=1, help="For the estimate; unset: measured with 64 texts.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the tasks and their instructions, and end.")]
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw it, too: FILE.png, .svg or .pdf.", metavar="FILE", callback=_picture),
]
Progress = Annotated[bool, typer.Option("--progress/--no-progress", help="Bars on standard error.")]
Dimensions = Annotated[int, typer.Option(min=0, help="Width of the vectors; 0 is the model's own.")]
VectorEncoding = Annotated[Encoding, typer.Option("--encoding", help="How vectors come over the wire.")]
From = Annotated[
    Path, typer.Option("--from", exists=True, file_okay=False, help="The embedding run's results, or its predictions.")
]
TopK = Annotated[int, typer.Option(min=1, help="Documents of each query to rerank.")]
Score = Annotated[ScoreType, typer.Option("--score-type", help="What a score is.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Calls of up to 100 documents under way.")]
