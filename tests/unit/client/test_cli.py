"""The commands against a server whose answers are known: what they send, print, and end with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from typer.testing import CliRunner

from qwen3.inference.v1.embedding_pb2 import ChunkError
from qwen3_client.cli import app

TOKEN = "q3_a_secret"


@pytest.fixture
def qwen3(server, tmp_path, monkeypatch):
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, stdin=None, **env):
        return CliRunner().invoke(app, arguments, input=stdin, env={"QWEN3_TARGET": server.address} | env)

    return run


@pytest.fixture
def unfinished(qwen3):
    """The command whose run has ended after 64 texts of three.txt, at a row without text, and that file."""
    texts = Path("three.txt")
    texts.write_text("text\n" * 1200 + "\nlast")
    command = ("embed", "--file", str(texts), "--output", "v.npy")
    result = qwen3(*command)
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == "qwen3: line 1201 has no text; --skip-empty leaves such rows out"
    return command, texts


def refused(place, what):
    """The error of a chunk that has a text which the service does not take."""
    field = f"inputs[{place}]"
    detail = Any()
    detail.Pack(BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=what)]))
    return ChunkError(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message=f"{field}: {what}", details=[detail])


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
    more = ("--input-type", "query", "--encoding", "float16", "--no-normalize", "--priority", "bulk")
    assert qwen3("embed", "a", *options, *more).exit_code == 0
    config = server.requests[0].config
    assert (config.model, config.instruction, config.dimensions) == ("m", "Find it", 64)
    assert (config.input_type, config.truncation_policy, config.encoding) == (1, 2, 2)
    assert (config.normalize, config.priority) == (False, 2)


def test_texts_that_are_typed_are_interactive_and_files_are_bulk(qwen3, server):
    qwen3("embed", "a")
    qwen3("embed", stdin="a")  # unset: a stream is bulk
    qwen3("rerank-many", "-", stdin='{"query": "q", "documents": ["a"]}')
    assert [server.requests[place].config.priority for place in (0, 1)] == [1, 0]
    assert server.requests[-1].priority == 2


def test_texts_and_a_file_together_are_a_usage_error(qwen3, tmp_path):
    (tmp_path / "texts").write_text("one\n")
    result = qwen3("embed", "a", "--file", str(tmp_path / "texts"))
    assert result.exit_code == 2
    assert "not both" in result.stderr


def test_a_word_that_no_option_has_is_a_usage_error(qwen3):
    assert qwen3("embed", "a", "--truncation", "middle").exit_code == 2


def test_rerank_prints_a_table_whose_texts_are_data(qwen3):
    result = qwen3("rerank", "q", "[bold]long[/bold]", "\x1b[31ma", "a")
    assert result.exit_code == 0
    assert "[bold]long[/bold]" in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stdout.index("0.5000") < result.stdout.index("[bold]")


def test_rerank_prints_json_with_the_documents(qwen3):
    result = qwen3("rerank", "q", "--json", "--top-n", "1", stdin="long text\na\n")
    assert rows(result) == [
        {"index": 1, "score": 0.5, "document": "a", "token_count": 1, "truncated": False}
        | {"model": "r", "model_revision": "r1"},
    ]


def test_rerank_tells_the_place_in_the_file(qwen3):
    Path("d.csv").write_text("id,body\n1,long\n2,\n3,a\n")
    result = qwen3("rerank", "q", "--json", "--file", "d.csv", "--column", "body", "--skip-empty")
    assert [(row["index"], row["document"]) for row in rows(result)] == [(2, "a"), (0, "long")]


def test_rerank_many_prints_one_json_object_a_query_in_order(qwen3, server):
    queries = [{"query": f"q{number}", "documents": ["long", "a" * number]} for number in range(1, 20)]
    Path("q.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    result = qwen3("rerank-many", "q.jsonl", "--top-n", "1", "--score-type", "logit", "--instruction", "Find it")
    found = rows(result)
    assert [row["index"] for row in found] == list(range(19))
    assert [row["results"][0]["index"] for row in found] == [1, 1, 1, *[0] * 16]
    assert found[0]["results"] == [{"index": 1, "score": 0.5, "truncated": False}]
    request = next(request for request in server.requests if getattr(request, "query", "") == "q7")
    assert (list(request.documents), request.top_n) == (["long", "a" * 7], 1)
    assert (request.score_type, request.instruction) == (2, "Find it")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON: Expecting property name enclosed in double quotes at character 2"),
        ("", "line 2 is not JSON: Expecting value at character 1"),
        ('{"documents": ["a"]}', "line 2 has no field 'query'; there are documents"),
        ('{"query": "q"}', "line 2 has no field 'documents'; there are query"),
        ('{"query": 7, "documents": ["a"]}', "line 2, query has no text but 7"),
        ('{"query": "q", "documents": "a"}', "line 2 has no list of documents"),
        ('{"query": "q", "documents": ["a", 7]}', "line 2, documents[1] has no text but 7"),
    ],
)
def test_a_query_that_is_none_is_named(qwen3, line, message):
    result = qwen3("rerank-many", "-", stdin=f'{{"query": "q", "documents": ["a"]}}\n{line}\n')
    assert (result.exit_code, result.stderr) == (3, f"qwen3: {message}\n")


def test_a_query_that_the_service_refuses_is_named(qwen3, server):
    details = BadRequest(field_violations=[BadRequest.FieldViolation(field="documents[0]", description="is too long")])
    Path("q.jsonl").write_text('\n{"query": "q", "documents": ["a"]}')
    server.fail_next(grpc.StatusCode.INVALID_ARGUMENT, "documents[0]: is too long", details)
    result = qwen3("rerank-many", "q.jsonl", "--skip-empty")
    assert (result.exit_code, result.stderr) == (3, "qwen3: line 2: documents[0]: is too long\n")


def test_a_service_that_is_away_is_asked_again(qwen3, server):
    for _ in range(6):  # one more than grpc tries by itself
        server.fail_next(grpc.StatusCode.UNAVAILABLE, "away", trailers=[("grpc-retry-pushback-ms", "1")])
    result = qwen3("rerank-many", "-", stdin='{"query": "q", "documents": ["a"]}')
    assert (result.exit_code, len(rows(result))) == (0, 1)


def test_queries_go_on_where_they_stopped(qwen3, server):
    good = [json.dumps({"query": f"q{number}", "documents": ["a"]}) + "\n" for number in range(12)]
    Path("q.jsonl").write_text("".join([*good[:10], "{}\n"]))
    assert qwen3("rerank-many", "q.jsonl", "-o", "r.jsonl").exit_code == 3
    num_done = json.loads(Path("r.jsonl.state").read_text())["num_rows"]
    server.requests.clear()
    Path("q.jsonl").write_text("".join(good))
    assert qwen3("rerank-many", "q.jsonl", "-o", "r.jsonl").exit_code == 0
    assert [json.loads(line)["index"] for line in Path("r.jsonl").read_text().splitlines()] == list(range(12))
    asked = {request.query for request in server.requests}
    assert asked == {f"q{number}" for number in range(num_done, 12)}


def test_count_tokens_prints_one_number_a_line(qwen3):
    assert qwen3("count-tokens", "a", "four").stdout.split() == ["1", "4"]
    assert rows(qwen3("count-tokens", "a", "four", "--json")) == [
        {"index": 0, "tokens": 1},
        {"index": 1, "tokens": 4},
    ]


def test_count_tokens_takes_a_file_of_any_length(qwen3, server):
    assert qwen3("count-tokens", "--query", "q", stdin="four\n" * 2500).stdout == "4\n" * 2500
    assert [(len(request.inputs), request.query) for request in server.requests] == [
        (1000, "q"),
        (1000, "q"),
        (500, "q"),
    ]


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
    result = qwen3("health", "--model", model, "--json")
    assert (rows(result), result.exit_code) == ([{"model": model, "status": status}], exit_code)


def test_a_failed_call_is_one_line_on_stderr_and_exit_code_1(qwen3, server):
    server.fail_next(grpc.StatusCode.NOT_FOUND, "no model 'x'", ErrorInfo(reason="MODEL_NOT_FOUND"))
    result = qwen3("count-tokens", "a", "--model", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "qwen3: NOT_FOUND (MODEL_NOT_FOUND): no model 'x'\n"


def test_the_module_runs_as_the_command(server):
    command = [sys.executable, "-m", "qwen3_client", "--target", server.address, "health"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stdout) == (0, "SERVING\n")


def test_a_file_goes_to_a_file(qwen3):
    Path("t.jsonl").write_text('{"body": "a"}\n\n{"body": "ü"}\n')
    options = ("--file", "t.jsonl", "--field", "body", "--skip-empty")
    for output in ("v.npy", "v.jsonl", "v.parquet", "v"):
        result = qwen3("embed", *options, "-o", output, *(("--format", "npy") if output == "v" else ()))
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert np.array_equal(np.load("v.npy"), [[97, 1, 2, 3], [252, 1, 2, 3]])
    assert [json.loads(line)["index"] for line in Path("v.jsonl").read_text().splitlines()] == [0, 2]
    assert sorted(path.name for path in Path().iterdir()) == ["t.jsonl", "v", "v.jsonl", "v.npy", "v.parquet"]


def test_an_input_without_texts_is_refused(qwen3):
    assert qwen3("embed", "-o", "v.npy", stdin="").stderr == "qwen3: there is no text in the input\n"
    assert qwen3("rerank-many", "-", "-o", "v.jsonl", stdin="").stderr == "qwen3: there is no query in the input\n"
    assert qwen3("embed", "--skip-empty", stdin="\n \n").exit_code == 3
    assert list(Path().iterdir()) == []


def test_a_text_that_the_service_refuses_is_named_by_its_line(qwen3, server):
    server.chunk_error = lambda chunk: refused(3, "is too long") if "long" in chunk.inputs else None
    result = qwen3("embed", "--skip-empty", stdin="text\n\n" * 130 + "text\nlong\n")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (3, "qwen3: line 262 is too long")
    server.fail_next(
        grpc.StatusCode.INVALID_ARGUMENT,
        "inputs[1]: is too long",
        BadRequest(field_violations=[BadRequest.FieldViolation(field="inputs[1]", description="is too long")]),
    )
    assert qwen3("count-tokens", "a", "b").stderr == "qwen3: text 2 is too long\n"


def test_a_run_goes_on_where_it_stopped_once_its_text_is_mended(qwen3, server, unfinished):
    command, texts = unfinished
    num_done = json.loads(Path("v.npy.state").read_text())["num_rows"]
    assert num_done >= 64
    server.requests.clear()
    texts.write_text("text\n" * 1200 + "mended\nlast")
    assert qwen3(*command).exit_code == 0
    assert sum(len(request.inputs) for request in server.requests) == 1202 - num_done
    assert np.load("v.npy")[:, 0].tolist() == [ord("t")] * 1200 + [ord("m"), ord("l")]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--dimensions", "32"), "dimensions 0, now 32"),
        (("--encoding", "int8"), "encoding 'float32', now 'int8'"),
        (("--model", "m"), "model '', now 'm'"),
        (("--input-type", "query"), "input_type None, now 'query'"),
        (("--instruction", ""), "instruction None, now ''"),
        (("--truncation", "end"), "truncation 'error', now 'end'"),
        (("--no-normalize",), "normalize True, now False"),
        (("--format", "jsonl"), "format 'npy', now 'jsonl'"),
    ],
)
def test_a_run_with_other_options_is_refused_by_name(qwen3, unfinished, options, why):
    command, _ = unfinished
    result = qwen3(*command, *options)
    assert (result.exit_code, f"begun with {why}: " in result.stderr) == (4, True)


def test_options_that_change_no_vector_may_change(qwen3, unfinished):
    command, _ = unfinished
    assert qwen3("--timeout", "20", *command, "--priority", "interactive", "--skip-empty").exit_code == 0


def test_a_changed_input_and_a_changed_model_are_refused_by_name(qwen3, server, unfinished):
    command, texts = unfinished
    texts.write_text("other" + texts.read_text())
    result = qwen3(*command)
    assert (result.exit_code, "rows of the input are not those done already" in result.stderr) == (4, True)
    texts.write_text("text\n" * 1300)
    server.revisions = ["r2"] * 1300
    result = qwen3(*command)
    assert (result.exit_code, "with m revision r1, and the service has m revision r2 now" in result.stderr) == (4, True)
    assert qwen3(*command, "--restart").exit_code == 0
    assert len(np.load("v.npy")) == 1300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("embed", "--file", "missing"), "missing is not there"),
        (("embed", "a", "-o", "vectors"), "give --format"),
        (("embed", "a", "--format", "npy"), "--format npy needs --output"),
        (("embed", "a", "-o", "v.npy", "--input-format", "xml"), "xml"),
        (("embed", "a", "--dimensions", "-1"), "--dimensions"),
        (("--cert-file", "there", "health"), "cert_file and key_file go together"),
        (("--token-file", "missing", "health"), "missing"),
        (("--token-file", "there", "health"), "there: the token is empty"),
        (("--timeout", "inf", "health"), "timeout_s must be at most"),
        (("--no-such-option", "health"), "--no-such-option"),
    ],
)
def test_a_usage_error_says_what_is_wrong_and_ends_with_2(qwen3, arguments, message):
    Path("there").touch()
    result = qwen3(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_that_cannot_be_written_ends_with_1(qwen3):
    result = qwen3("embed", "a", "-o", "no/such/folder/v.npy")
    assert (result.exit_code, "No such file" in result.stderr) == (1, True)


def test_what_is_wrong_is_one_line_without_what_a_terminal_would_obey(qwen3):
    result = qwen3("embed", "--input-format", "jsonl", stdin=json.dumps({"a\nb\x1b[31m": "x"}))
    message = "qwen3: line 1 has no field 'text'; there are a b [31m"
    assert (result.exit_code, result.stderr) == (3, f"{message}\n")


def test_of_many_fields_the_first_are_told(qwen3):
    result = qwen3("embed", "--input-format", "jsonl", stdin=json.dumps({f"f{number}": "x" for number in range(30)}))
    assert result.stderr.endswith("f18, f19 and 10 more\n")


def test_a_token_that_is_no_text_is_refused(qwen3):
    Path("token").write_bytes(b"\xff\xfe")
    result = qwen3("--token-file", "token", "models")
    assert (result.exit_code, "token: the token is not UTF-8" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "stderr"),
    [
        ("health >&-", 1, "qwen3: [Errno 9] standard output is closed\n"),
        ("embed <&-", 3, "qwen3: standard input is closed\n"),
        ("embed a >/dev/null 2>&-", 0, ""),
    ],
)
def test_a_standard_stream_that_is_closed_is_told_or_not_needed(server, arguments, code, stderr):
    command = f"exec '{sys.executable}' -m qwen3_client --target {server.address} {arguments}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, stderr)


def test_a_service_that_is_not_there_ends_with_1(qwen3):
    result = qwen3("--target", "127.0.0.1:1", "--timeout", "0.5", "embed", "a")
    assert (result.exit_code, result.stderr.startswith("qwen3: UNAVAILABLE: ")) == (1, True)


def test_a_bar_is_shown_on_stderr_only_and_only_when_asked_where_there_is_no_terminal(qwen3):
    assert qwen3("embed", "a").stderr == ""
    result = qwen3("embed", "--progress", stdin="a\nb")
    assert len(rows(result)) == 2
    assert "2 rows" in result.stderr
    Path("t.txt").write_text("a\nb\n")
    assert "100%" in qwen3("embed", "--progress", "--file", "t.txt", "-o", "v.npy").stderr


def test_the_token_comes_from_a_variable_or_a_file_and_is_not_shown(qwen3, server):
    Path("token").write_text(f"{TOKEN}_of_file\n")
    assert qwen3("count-tokens", "a", QWEN3_TOKEN=TOKEN).exit_code == 0
    assert qwen3("--token-file", "token", "count-tokens", "a", QWEN3_TOKEN=TOKEN).exit_code == 0
    assert qwen3("count-tokens", "a", QWEN3_TOKEN_FILE="token").exit_code == 0
    shown = [call["authorization"] for call in server.metadata]
    assert shown == [f"Bearer {TOKEN}", f"Bearer {TOKEN}_of_file", f"Bearer {TOKEN}_of_file"]
    for options in (("--help",), ("embed", "--help")):
        assert TOKEN not in qwen3(*options, QWEN3_TOKEN=TOKEN).output
    result = qwen3("count-tokens", "a", QWEN3_TOKEN=f"{TOKEN} with a space")
    assert (result.exit_code, TOKEN in result.output) == (2, False)


def test_a_token_is_not_sent_in_plain_text_to_other_machines(qwen3):
    options = ("--target", "192.0.2.1:1", "--timeout", "0.2")
    result = qwen3(*options, "health", QWEN3_TOKEN=TOKEN)
    assert (result.exit_code, "in plain text" in result.stderr, TOKEN in result.stderr) == (2, True, False)
    assert qwen3(*options, "--allow-plaintext-token", "health", QWEN3_TOKEN=TOKEN).exit_code == 1


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("qwen3 embed --encoding ", ["float32", "float16", "int8", "binary"]),
        ("qwen3 embed --format ", ["jsonl", "npy", "parquet"]),
        ("qwen3 re", ["rerank", "rerank-many"]),
        ("qwen3 embed --tr", ["--truncation"]),
    ],
)
def test_a_shell_completes_commands_options_and_choices(qwen3, words, found):
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    assert qwen3(_QWEN3_COMPLETE="complete_bash", **variables).stdout.split() == found


PEAK = """
import resource, sys
from qwen3_client.cli import app
try:
    app(prog_name="qwen3")
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_texts(server, tmp_path):
    server.width = 4096

    def peak_mib(num_texts: int) -> float:
        command = [sys.executable, "-c", PEAK, "--target", server.address, "embed", "-o", f"{num_texts}.npy"]
        texts = "text\n" * num_texts
        done = subprocess.run(command, input=texts, stdout=subprocess.PIPE, text=True, check=True, cwd=tmp_path)
        return int(done.stdout) / 1024

    few, many = peak_mib(1500), peak_mib(8000)
    assert np.load(tmp_path / "8000.npy", mmap_mode="r").nbytes > 120 * 2**20
    assert many < few + 40
