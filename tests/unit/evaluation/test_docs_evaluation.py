"""What docs/evaluation.md says: its figures are computed again, its commands are parsed as a shell would run them."""

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import typer
from mteb.abstasks import AbsTask

from evaluation.cli import app
from evaluation.commands import options
from evaluation.commands.summary import summary
from evaluation.protocol.instructions import FROM_LIST, Instructions
from evaluation.protocol.rules import Protocol
from evaluation.runs.plan import plan_tasks, total_size
from evaluation.service.cross_encoder import CONCURRENCY
from evaluation.service.scorer import CALL_PAIRS
from evaluation.summaries.published import PUBLISHED
from evaluation.tasks.benchmarks import BENCHMARKS, FOLLOW_IR, MLDR, RERANKED_TYPES, benchmark_tasks
from evaluation.tasks.local_tasks import load
from evaluation.tasks.sizes import Size, embedding_size, pairs_size
from standalone.config import ServeSettings
from worker.config import WorkerSettings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/evaluation.md").read_text()
README_COMMANDS = re.findall(r"^qwen3-eval .*", (ROOT / "README.md").read_text(), re.MULTILINE)
SELECTABLE = [*BENCHMARKS, FOLLOW_IR, MLDR]
THROUGHPUTS = [10_000, 50_000, 200_000]  # tokens/s
SHELL = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def commands(program: str) -> list[str]:
    """The page's commands of a program, without variables before them."""
    starts = [re.sub(r"^(\w+=\S+ )+", "", line) for line in SHELL]
    return [line for line in starts if words(line)[0] == program]


def parse(arguments: list[str]) -> None:
    """As qwen3-eval would, up to running it. Ends with an error for anything that it does not take."""
    verb, *rest = arguments
    typer.main.get_command(app).commands[verb].make_context(verb, rest)


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    """A folder with what the commands name and need to be there."""
    (tmp_path / "results").mkdir()
    (tmp_path / "new/results").mkdir(parents=True)
    (tmp_path / "tickets").mkdir()
    (tmp_path / "instructions.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_line_of_shell_is_of_a_program_that_is_tried_here():
    known = {"pip", "export", "qwen3-serve", "qwen3-worker", "qwen3-eval", "sh", "python"}
    assert {words(re.sub(r"^(\w+=\S+ )+", "", line))[0] for line in SHELL} <= known


@pytest.mark.parametrize("command", [*commands("qwen3-eval"), *README_COMMANDS])
def test_commands_of_the_pages_are_taken(command, places):
    parse(words(command)[1:])


@pytest.mark.parametrize("command", commands("qwen3-serve"))
def test_commands_that_serve_are_taken(command):
    assert ServeSettings.from_command_line(words(command)[1:]).models


@pytest.mark.parametrize("command", commands("sh"))
def test_the_scripts_of_the_page_call_what_is_taken(command, places):
    """A program that prints what it is called with stands in for qwen3-eval."""
    stand_in = places / "qwen3-eval"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    script, *arguments = words(command)[1:]
    called = subprocess.run(
        ["/bin/sh", ROOT / script, *arguments],
        env={"PATH": f"{places}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    parse(called.stdout.splitlines())


@pytest.mark.parametrize("command", commands("python"))
def test_the_summary_script_takes_the_pages_arguments(command, places):
    script, *arguments = words(command)[1:]
    assert script == "evaluation/summary.py"
    assert (ROOT / script).exists()
    single = typer.Typer()
    single.command()(summary)
    typer.main.get_command(single).make_context(script, arguments)


def test_the_worker_has_the_setting_by_which_the_page_sets_the_authors_length():
    assert "QWEN3_MAX_INPUT_TOKENS=8192" in PAGE
    assert "max_input_tokens" in WorkerSettings.model_fields


def test_the_folder_of_the_page_is_a_task(places):
    for name, text in re.findall(r"^    tickets/(\S+) +(.*)$", PAGE, re.MULTILINE):
        lines = text.replace("<TAB>", "\t").split(", then lines such as ")
        (places / "tickets" / name).write_text("\n".join(lines) + "\n")
    task = load(places / "tickets")
    assert task.metadata.name == "tickets"
    assert task.metadata.prompt == {
        "query": "Given a customer's question, retrieve the answer that solved it",
    }
    assert task.dataset["default"]["test"]["relevant_docs"] == {"q1": {"d1": 1}}


def test_every_option_that_deviates_from_the_protocol_is_on_the_page():
    annotations = (options.UseInstructions, options.SimilarText, options.DocumentInstructions, options.Placeholder)
    declared = [declaration for kind in annotations for declaration in kind.__metadata__[0].param_decls or ()]
    assert [name for name in declared if name.partition("/")[2] not in PAGE] == []
    assert "--placeholder" in PAGE


def test_what_a_kill_loses_of_a_reranker_is_as_stated():
    assert f"reranker {CONCURRENCY * CALL_PAIRS} pairs" in " ".join(PAGE.split())


@pytest.mark.parametrize("model", PUBLISHED)
def test_every_model_of_which_something_is_published_is_named(model):
    family, _, size = model.rpartition("-")
    assert family in PAGE
    assert size in PAGE


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_how_many_tasks_have_an_instruction_of_the_list_is_as_stated(benchmark):
    plans = plan_tasks(benchmark_tasks(benchmark), Instructions(), Protocol(similar_text=False), lambda *_: None)
    listed = sum(plan.instruction.source == FROM_LIST for plan in plans)
    assert f"{benchmark} {listed} of {len(plans)}" in PAGE


@pytest.mark.parametrize("benchmark", SELECTABLE)
def test_the_costs_of_embedding_are_as_stated(benchmark):
    assert cost_row(benchmark, benchmark_tasks(benchmark), embedding_size) in PAGE.splitlines()


@pytest.mark.parametrize("benchmark", SELECTABLE)
def test_the_costs_of_reranking_are_as_stated(benchmark):
    tasks = [task for task in benchmark_tasks(benchmark) if task.metadata.type in RERANKED_TYPES]
    assert cost_row(benchmark, tasks, partial(pairs_size, top_k=100)) in PAGE.splitlines()


def cost_row(benchmark: str, tasks: list[AbsTask], size_of: Callable[..., Size | None]) -> str:
    """A line of the tables of costs."""
    plans = plan_tasks(tasks, Instructions(), Protocol(), size_of)
    assert all(plan.size for plan in plans)
    total = total_size(plans)
    cells = [benchmark, str(len(plans)), _millions(total.num_texts), _millions(total.num_tokens), *_hours(total)]
    return f"| {' | '.join(cells)} |"


def _millions(number: int) -> str:
    return f"{number / 1e6:,.2f} M" if number < 1e7 else f"{number / 1e6:,.0f} M"


def _hours(total: Size) -> Iterator[str]:
    for tokens_per_s in THROUGHPUTS:
        yield f"{total.num_tokens / tokens_per_s / 3600:,.1f}"
