"""What `qwen3-eval` does without a service: what it prints and refuses, and what the authors' scripts call."""

import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import evaluation
from evaluation.cli import app
from evaluation.protocol.instructions import Instructions
from evaluation.protocol.rules import SIMILAR_TEXT, Protocol
from evaluation.tasks.benchmarks import BENCHMARKS, FOLLOW_IR, MLDR, benchmark_tasks

NOBODY = ("--target", "127.0.0.1:1")


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def dry_run(*arguments):
    outcome = command(*NOBODY, "mteb", *arguments, "--dry-run")
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout.splitlines()


@pytest.mark.parametrize("benchmark", [*BENCHMARKS, FOLLOW_IR, MLDR])
def test_a_dry_run_prints_the_instruction_of_every_task_and_its_source_and_asks_no_service(benchmark):
    lines = dry_run("--benchmark", benchmark)
    tasks, instructions = benchmark_tasks(benchmark), Instructions()
    assert lines[-1].startswith(f"{len(tasks)} tasks: ")
    for task in tasks:
        plan = instructions.plan(task.metadata, Protocol())
        (place,) = (place for place, line in enumerate(lines) if line.startswith(f"{task.metadata.name}: "))
        assert lines[place + 1] == f"    {plan.query} ({plan.source})"
        assert (lines[place + 2] == "    documents: the same") == (plan.document is not None)


def test_tasks_are_named_one_by_one_or_with_commas():
    lines = dry_run("--tasks", "SciFact,STS12", "--tasks", "ArguAna")
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")] == [
        "SciFact",
        "STS12",
        "ArguAna",
        "3 tasks",
    ]
    assert f"    {SIMILAR_TEXT} (protocol of STS)" in lines


def test_a_task_that_is_made_of_several_is_shown_as_those():
    lines = dry_run("--tasks", "CQADupstackRetrieval")
    assert lines[-1].startswith("12 tasks: ")
    (place,) = (place for place, line in enumerate(lines) if line.startswith("CQADupstackUnixRetrieval: "))
    assert lines[place + 2] == "    documents: the same"


def test_the_deviations_show_in_a_dry_run(tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text('{"STS12": "Find [bold]the same[/bold]"}')
    assert dry_run("--tasks", "STS12", "--no-instructions")[1] == "    no instruction (switched off)"
    own = dry_run("--tasks", "STS12", "--own-text", "--instruction-file", file)
    assert own[1:3] == ["    Find [bold]the same[/bold] (file)", "    documents: the same"]
    assert "documents" not in dry_run("--tasks", "ArguAna", "--no-document-instructions")[2]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("mteb",), "name what to run: --benchmark, --tasks or --data"),
        (("mteb", "--benchmark", "MTEB(none)"), "there is no benchmark 'MTEB(none)'; the authors' are MTEB(eng, v2)"),
        (("mteb", "--tasks", "SciFict"), "SciFict"),
        (("mteb", "--data", "no-such-folder"), "no-such-folder: is not a folder"),
        (("rerank", "--from", "empty"), "has no predictions of an embedding run"),
        (("rerank", "--from", "torn", "--tasks", "NFCorpus"), "torn has no candidates but for SciFact"),
        (("rerank", "--from", "torn"), "SciFact_predictions.json is not what an embedding run predicted"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(arguments, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("torn").mkdir()
    Path("torn/SciFact_predictions.json").write_text('{"mteb_model_meta":')
    outcome = command(*NOBODY, *arguments)
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (1, 1)
    assert outcome.stderr.startswith("qwen3-eval: ")
    assert why in outcome.stderr


@pytest.mark.parametrize("verb", ["mteb", "rerank"])
def test_a_placeholder_that_the_service_would_refuse_is_refused_at_once(verb):
    outcome = command(*NOBODY, verb, "--placeholder", " ")
    assert outcome.exit_code == 2
    assert "--placeholder" in outcome.stderr


def test_a_bad_instruction_file_is_refused_in_one_line(tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text("{")
    outcome = command(*NOBODY, "mteb", "--tasks", "SciFact", "--instruction-file", file)
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (1, 1)
    assert f"qwen3-eval: {file}: not JSON" in outcome.stderr


def test_a_reranker_takes_the_tasks_that_have_candidates_and_names_the_others(tmp_path):
    predictions = tmp_path / "predictions" / "a__b" / "r-1"
    predictions.mkdir(parents=True)
    for task in ("SciFact", "AskUbuntuDupQuestions"):
        (predictions / f"{task}_predictions.json").write_text("{}")
    lines = command(*NOBODY, "rerank", "--from", tmp_path, "--dry-run").stdout.splitlines()
    assert lines[-1].startswith(f"2 tasks: {361 * 20 + 300 * 100:,} pairs")
    few = command(*NOBODY, "rerank", "--from", predictions, "--tasks", "SciFact,STS12", "--dry-run", "--top-k", 5)
    assert few.stdout.splitlines()[-2].startswith("1 tasks: 1,500 pairs")
    assert few.stdout.splitlines()[-1] == f"left out, with no candidates in {predictions}: STS12"

    other = tmp_path / "predictions" / "a__b" / "r-2"
    other.mkdir()
    (other / "SciFact_predictions.json").write_text("{}")
    assert f"several runs, name one: {predictions}, {other}" in command(*NOBODY, "rerank", "--from", tmp_path).stderr


@pytest.mark.parametrize(
    ("script", "arguments", "called"),
    [
        (
            "run_mteb.sh",
            ["served-id", "a name", "MTEB(eng, v2)", "--dry-run"],
            ["mteb", "--model", "served-id", "--name", "a name", "--benchmark", "MTEB(eng, v2)", "--dry-run"],
        ),
        (
            "run_mteb_reranking.sh",
            ["served-id", "a name", "some/results", "MTEB(Code, v1)"],
            [
                "rerank",
                "--model",
                "served-id",
                "--name",
                "a name",
                "--from",
                "some/results",
                "--top-k",
                "100",
                "--benchmark",
                "MTEB(Code, v1)",
            ],
        ),
    ],
)
def test_the_authors_scripts_call_the_command_with_their_arguments(script, arguments, called, tmp_path):
    command = tmp_path / "qwen3-eval"
    command.write_text('#!/bin/sh\nfor argument; do echo "$argument"; done\n')
    command.chmod(0o755)
    path = Path(evaluation.__file__).with_name(script)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    outcome = subprocess.run([path, *arguments], env=env, capture_output=True, text=True, check=True)
    assert outcome.stdout.splitlines() == called
    usage = subprocess.run([path, "served-id"], env=env, capture_output=True, text=True, check=False)
    assert usage.returncode == 2
    assert usage.stderr.startswith("usage: ")
