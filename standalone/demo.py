"""`make demo`: the whole service on this machine with two small made-up models, shown on a few texts.

1. Two checkpoints with random weights are written into a temporary folder.
2. `qwen3-serve` starts a private Redis, a gateway and two workers.
3. The sample texts are embedded and reranked through gRPC and printed as tables.
4. The service drains and stops; the folder is removed.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen3_client import Client, EmbedResult, RerankHit
from worker.make_checkpoint import make_checkpoint
from worker.model.task import ModelTask

QUERIES = ["What is the capital of China?", "Explain gravity", "¿Cuál es la capital de Francia?"]
DOCUMENTS = [
    "The capital of China is Beijing.",
    (
        "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
        "responsible for the movement of planets around the sun."
    ),
    "París es la capital y la ciudad más poblada de Francia.",
    "中国的首都是北京。",
    "重力は、物体が互いに引き合う力です。",
]
_NUM_HEAD_VALUES = 4
_REAL_MODELS = "qwen3-serve Qwen/Qwen3-Embedding-0.6B Qwen/Qwen3-Reranker-0.6B"


class DemoError(Exception):
    """The service did not start; the message holds its log."""


def main() -> None:
    console = Console()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="qwen3-demo-") as folder:
        console.print("Writing two small checkpoints with random weights ...")
        models = _write_checkpoints(Path(folder))
        console.print("Starting qwen3-serve: a private Redis, a gateway, two workers ...")
        try:
            with _service(models, Path(folder) / "log") as address:
                console.print(f"Ready on {address} after {time.monotonic() - started_s:.1f} s\n")
                _show(console, address)
        except DemoError as error:
            sys.exit(str(error))
    console.print("The service has drained and stopped.\n")
    console.print(
        "[bold]The weights are random, so these vectors and scores mean nothing:[/bold] what they show is that every "
        "part works. This serves the real models, on the same address:\n"
    )
    console.print(f"    {_REAL_MODELS}\n", highlight=False)


def _write_checkpoints(folder: Path) -> list[Path]:
    models = {"demo-embedding": ModelTask.EMBED, "demo-reranker": ModelTask.RERANK}
    for seed, (name, task) in enumerate(models.items()):
        make_checkpoint(folder / name, task=task, seed=seed)
    return [folder / name for name in models]


@contextmanager
def _service(models: list[Path], log: Path) -> Iterator[str]:
    """A running qwen3-serve's HOST:PORT; it is drained and stopped at the end."""
    flags = ["--listen", "127.0.0.1:0", "--device", "cpu", "--log-level", "warning", "--stop-limit-s", "20"]
    command = [sys.executable, "-m", "standalone", *map(str, models), *flags]
    # A surrounding QWEN3_REDIS would make the demo use a Redis that is not its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QWEN3_")}
    with (
        log.open("wb") as stderr,
        # A session of its own: a Ctrl-C here becomes the one SIGTERM below, not two signals.
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, start_new_session=True
        ) as process,
    ):
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("ready "):
                raise DemoError(f"qwen3-serve did not become ready:\n{log.read_text(errors='replace')}")
            yield line.removeprefix("ready ").strip()
        finally:
            process.terminate()
            process.wait()


def _show(console: Console, address: str) -> None:
    with Client(address, timeout_s=120) as client:
        queries = client.embed(QUERIES, input_type="query")
        documents = client.embed(DOCUMENTS, input_type="document")
        hits = client.rerank(QUERIES[0], DOCUMENTS)
    console.print(_vectors(queries, documents))
    console.print(_similarities(queries, documents))
    console.print(_ranking(hits))


def _vectors(queries: EmbedResult, documents: EmbedResult) -> Table:
    table = Table("text", "tokens", "vector", title=f"Vectors of {queries.model}, {queries.dimensions} values each")
    for texts, result in ((QUERIES, queries), (DOCUMENTS, documents)):
        for text, num_tokens, vector in zip(texts, result.token_counts, result.vectors, strict=True):
            head = " ".join(f"{value:+.3f}" for value in vector[:_NUM_HEAD_VALUES])
            table.add_row(_short(text), str(num_tokens), f"{head} ...")
    return table


def _similarities(queries: EmbedResult, documents: EmbedResult) -> Table:
    columns = [f"query {number}" for number in range(1, len(QUERIES) + 1)]
    table = Table("cosine similarity", *columns, title="Queries against documents")
    for text, row in zip(DOCUMENTS, documents.vectors @ queries.vectors.T, strict=True):
        table.add_row(_short(text), *(f"{value:.4f}" for value in row))
    return table


def _ranking(hits: list[RerankHit]) -> Table:
    table = Table("rank", "score", "document", title=f"Documents reranked for: {escape(QUERIES[0])}")
    for rank, hit in enumerate(hits, start=1):
        table.add_row(str(rank), f"{hit.score:.4f}", _short(DOCUMENTS[hit.index]))
    return table


def _short(text: str, width: int = 32) -> str:
    return escape(text if len(text) <= width else f"{text[: width - 3]}...")


if __name__ == "__main__":
    main()
