import json
import os
import subprocess
import sys

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from typer.testing import CliRunner

from qwen3_client.cli import app


@pytest.fixture
def qwen3(server):
    def run(*arguments, stdin=None):
        return CliRunner().invoke(app, arguments, input=stdin, env={"QWEN3_TARGET": server.address})

    return run


def rows(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_embed_prints_one_json_object_a_text(qwen3):
    result = qwen3("embed", "a", "bananas")
    assert result.exit_code == 0
    assert rows(result) == [
        {"index": 0, "embedding": [97.0, 1.0, 2.0, 3.0], "truncated": False},
        {"index": 1, "embedding": [98.0, 1.0, 2.0, 3.0], "truncated": True},
    ]


def test_embed_reads_one_text_a_line_from_a_file_or_standard_input(qwen3, server, tmp_path):
    (tmp_path / "texts").write_text("one\ntwo\n")
    assert len(rows(qwen3("embed", "--file", str(tmp_path / "texts")))) == 2
    assert len(rows(qwen3("embed", stdin="one\ntwo\nthree"))) == 3
    assert len(rows(qwen3("embed", "--file", "-", stdin="one"))) == 1
    assert [list(request.inputs) for request in server.requests] == [
        ["one", "two"],
        ["one", "two", "three"],
        ["one"],
    ]


def test_embed_passes_its_options_on(qwen3, server):
    options = ("--model", "m", "--instruction", "Find it", "--dimensions", "64", "--truncation", "end")
    assert qwen3("embed", "a", "--input-type", "query", *options).exit_code == 0
    config = server.requests[0].config
    assert (config.model, config.instruction, config.dimensions) == ("m", "Find it", 64)
    assert (config.input_type, config.truncation_policy) == (1, 2)


def test_texts_and_a_file_together_are_a_usage_error(qwen3, tmp_path):
    (tmp_path / "texts").write_text("one\n")
    result = qwen3("embed", "a", "--file", str(tmp_path / "texts"))
    assert result.exit_code == 2
    assert "not both" in result.stderr


def test_a_word_that_no_option_has_is_a_usage_error(qwen3):
    assert qwen3("embed", "a", "--truncation", "middle").exit_code == 2


def test_rerank_prints_a_table_whose_texts_are_data(qwen3):
    result = qwen3("rerank", "q", "[bold]long[/bold]", "a")
    assert result.exit_code == 0
    assert "[bold]long[/bold]" in result.stdout
    assert result.stdout.index("0.5000") < result.stdout.index("[bold]")


def test_rerank_prints_json_with_the_documents(qwen3):
    result = qwen3("rerank", "q", "--json", "--top-n", "1", stdin="long text\na\n")
    assert rows(result) == [
        {"index": 1, "score": 0.5, "document": "a", "token_count": 1, "truncated": False},
    ]


def test_count_tokens_prints_one_number_a_line(qwen3):
    assert qwen3("count-tokens", "a", "four").stdout.split() == ["1", "4"]


def test_models_are_listed_as_a_table_and_as_json(qwen3):
    assert "embedding" in qwen3("models").stdout
    assert [row["id"] for row in rows(qwen3("models", "--json"))] == ["embed", "rerank"]


@pytest.mark.parametrize(
    ("model", "status", "exit_code"),
    [("", "SERVING", 0), ("embed", "SERVING", 0), ("rerank", "NOT_SERVING", 1), ("x", "SERVICE_UNKNOWN", 1)],
)
def test_health_exits_with_0_only_for_serving(qwen3, model, status, exit_code):
    result = qwen3("health", "--model", model)
    assert (result.stdout.strip(), result.exit_code) == (status, exit_code)


def test_a_failed_call_is_one_line_on_stderr_and_exit_code_1(qwen3, server):
    server.fail_next(grpc.StatusCode.NOT_FOUND, "no model 'x'", ErrorInfo(reason="MODEL_NOT_FOUND"))
    result = qwen3("embed", "a", "--model", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "qwen3: NOT_FOUND (MODEL_NOT_FOUND): no model 'x'\n"


def test_the_module_runs_as_the_command(server):
    command = [sys.executable, "-m", "qwen3_client", "--target", server.address, "health"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stdout) == (0, "SERVING\n")
