import json
import runpy
import sys
from dataclasses import asdict, replace
from pathlib import Path

import mteb
import pytest
from typer.testing import CliRunner, Result

import evaluation.summary
from evaluation.cli import app
from tests.support.artificial_results import SETTINGS, write_card_of, write_results

TASKS = ["NFCorpus", "SciFact"]


def summary(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["summary", *map(str, arguments)])


@pytest.fixture
def tasks():
    return [mteb.get_task(name) for name in TASKS]


@pytest.fixture
def results(tasks, tmp_path) -> Path:
    """0.36 and 0.70: a mean of 53."""
    folder = write_results(tmp_path / "new", tasks, scores={"NFCorpus": 0.36, "SciFact": 0.70})
    write_card_of(tmp_path / "new", tasks)
    return folder


@pytest.fixture
def earlier(tasks, tmp_path) -> Path:
    """0.37 and 0.71, from float32."""
    folder = write_results(tmp_path / "old", tasks, scores={"NFCorpus": 0.37, "SciFact": 0.71})
    settings = asdict(replace(SETTINGS, served=replace(SETTINGS.served, dtype="float32")))
    write_card_of(tmp_path / "old", tasks, settings=settings)
    return folder


def test_it_is_printed_as_a_table(results):
    done = summary(results)
    assert done.exit_code == 0
    assert ["mean", "by", "task", "2", "53.00"] in [line.split() for line in done.output.splitlines()]


def test_it_is_printed_as_markdown(results):
    assert (
        "| SciFact | test | default | eng-Latn | 70.00 |"
        in summary(results, "--format", "markdown", "--subsets").output.splitlines()
    )


def test_it_is_printed_as_json_and_csv(results):
    assert json.loads(summary(results, "--format", "json").output)["means"][0]["score"] == pytest.approx(53)
    assert summary(results, "--format", "csv").output.startswith("level,name,type,")


def test_it_is_held_against_the_published_scores(results):
    lines = summary(results, "--against", "published", "--format", "markdown").output.splitlines()
    assert "| SciFact | Retrieval | ndcg_at_10 | 70.00 | 69.72 | +0.28 |" in lines


def test_it_is_held_against_another_run(results, earlier):
    lines = summary(results, "--against", earlier, "--format", "markdown").output.splitlines()
    assert "| mean by task | 2 | 53.00 | 54.00 | -1.00 |" in lines
    assert "- served.dtype is bfloat16, there float32" in lines


def test_a_benchmark_says_which_tasks_have_to_be_there(results):
    done = summary(results, "MTEB(Code, v1)")
    assert done.exit_code == 0
    assert "INCOMPLETE: 12 of 12 tasks have no score: AppsRetrieval, " in done.output


@pytest.mark.parametrize(("max_drop", "code"), [("0.9", 1), ("1.0", 0)])
def test_the_gate_ends_with_1_where_quality_falls(max_drop, code, results, earlier):
    done = summary(results, "--against", earlier, "--max-drop", max_drop)
    assert done.exit_code == code
    assert ("more than 0.9 points lower: mean by task by 1.00, " in done.stderr) == (code == 1)


def test_the_gate_does_not_let_a_missing_task_through(results, earlier):
    (results / "SciFact.json").unlink()
    done = summary(results, "--against", earlier, "--max-drop", "50")
    assert done.exit_code == 1
    assert done.stderr == "qwen3-eval: no score for SciFact\n"


def test_the_gate_does_not_let_a_task_through_that_only_the_other_run_has(tasks, earlier, tmp_path):
    results = write_results(tmp_path / "fewer", tasks[:1], scores={"NFCorpus": 0.36})
    write_card_of(tmp_path / "fewer", tasks[:1])
    done = summary(results, "--against", earlier, "--max-drop", "50")
    assert (done.exit_code, done.stderr) == (1, "qwen3-eval: no score for SciFact\n")


def test_a_gate_against_nothing_is_refused(results):
    done = summary(results, "--max-drop", "0.5")
    assert done.exit_code == 2
    assert "--against" in done.stderr


def test_a_plot_is_drawn(results, tmp_path):
    assert summary(results, "--plot", tmp_path / "scores.svg").exit_code == 0
    assert "<svg" in (tmp_path / "scores.svg").read_text()


def test_a_plot_that_cannot_be_written_is_one_line(results, tmp_path):
    done = summary(results, "--plot", tmp_path / "away/scores.svg")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.endswith(f"{tmp_path / 'away/scores.svg'}'\n")


def test_a_plot_that_is_no_picture_is_refused(results, tmp_path):
    done = summary(results, "--plot", tmp_path / "scores.txt")
    assert done.exit_code == 2
    assert ".png, .svg, .pdf" in done.stderr


def test_what_is_not_there_is_one_line(tmp_path):
    done = summary(tmp_path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"qwen3-eval: {tmp_path} holds no results: no model_meta.json in it or below\n"


def test_the_script_takes_the_arguments_of_the_official_one(results, monkeypatch, capsys):
    script = evaluation.summary.__file__
    monkeypatch.setattr(sys, "argv", [script, str(results), "MTEB(Code, v1)"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 0
    assert "INCOMPLETE: 12 of 12 tasks have no score: AppsRetrieval, " in capsys.readouterr().out
