"""Every command of docs/command-line.md runs as it stands, and its tables tell all there is."""

import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from jobqueue.messages import Operation
from qwen3_client.cli import app
from qwen3_client.cli.endings import ExitCode
from tests.support.echo import EchoWorker
from tests.support.processes import gateway

PAGE = Path("docs/command-line.md").read_text()
COMMANDS = [line for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
DOCUMENTS = ["Gravity attracts two bodies.", "Beijing, the capital of China, is large."]


@pytest.fixture(scope="module")
def address(redis_url):
    models = ["--await-models", "docs-embedding,docs-reranker"]
    defaults = ["--default-embedding-model", "docs-embedding", "--default-rerank-model", "docs-reranker"]
    embedder = EchoWorker(redis_url, "docs-embedding")
    with (
        embedder,
        EchoWorker(redis_url, "docs-reranker", Operation.RERANK),
        gateway(redis_url, *models, *defaults) as (_, found),
    ):
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the commands read."""
    found = tmp_path_factory.mktemp("commands")
    for name in ("texts.txt", "many.txt"):
        (found / name).write_text("".join(f"{document}\n" for document in DOCUMENTS))
    (found / "documents.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in DOCUMENTS))
    (found / "documents.csv").write_text("id,body\n" + "".join(f'1,"{text}"\n' for text in DOCUMENTS))
    (found / "queries.jsonl").write_text(json.dumps({"query": "What is gravity?", "documents": DOCUMENTS}) + "\n")
    parquet.write_table(pa.table({"body": DOCUMENTS}), found / "documents.parquet")
    return found


def qwen3(*arguments, **env):
    return CliRunner().invoke(app, arguments, env=env)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command, address, folder, monkeypatch):
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(command)
    result = qwen3(*arguments, QWEN3_TARGET=address)
    assert (program, result.exit_code, result.stderr) == ("qwen3", 0, "")
    output = re.search(r"--output (\S+)", command)
    assert Path(output[1]).stat().st_size if output else result.stdout


def test_every_option_and_variable_of_the_connection_is_in_the_table():
    usage = qwen3("--help").stdout
    table = PAGE.partition("## Where the service is")[2].partition("## ")[0]
    variables = set(re.findall(r"`(QWEN3_\w+)`", table))
    assert variables == set(re.findall(r"QWEN3_\w+", usage))
    options = set(re.findall(r"`(--[\w-]+)`", table))
    completion = {"--install-completion", "--show-completion"}
    assert options | completion == set(re.findall(r"^ +(--[\w-]+)", usage, re.MULTILINE)) - {"--help"}


def test_every_exit_code_is_in_the_table():
    found = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert list(map(int, found)) == [0, *ExitCode]
