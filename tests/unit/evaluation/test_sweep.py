"""What a sweep compares, and how it is shown."""

import csv
import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from evaluation.cli import app
from evaluation.errors import EvaluationError
from evaluation.protocol.settings import Served
from evaluation.sweeps.choices import Choice, Look, choices
from evaluation.sweeps.plot import plot_sweep
from evaluation.sweeps.report import as_csv, as_json, sweep_table
from evaluation.sweeps.services import Service
from evaluation.sweeps.sweep import Sweep, SweepRow, check_rescorable


def row(dimensions: int, encoding: str, score: float | None, *, rescore: str = "no") -> SweepRow:
    served = Served(
        model="m",
        task="embedding",
        revision="r",
        native_dimensions=1024,
        max_input_tokens=8192,
        dtype="bfloat16",
        engine="packed",
    )
    return SweepRow(
        served=served,
        instructions=True,
        choice=Choice(dimensions=dimensions, encoding=encoding, look=Look.parse(rescore)),
        scores={"one": 0.5} if score is None else {"one": 0.5, "two": 2 * score - 0.5},
        failures={"two": "no data"} if score is None else {},
        tokens_per_s=1234.5,
    )


ROWS = [row(1024, "float32", 0.7), row(256, "binary", 0.61, rescore="100"), row(256, "int8", None)]


def test_a_service_is_stated_by_its_user():
    assert Service.parse("host:50051,dtype=bfloat16,engine=packed") == Service(
        target="host:50051", dtype="bfloat16", engine="packed"
    )
    assert Service.parse("host:1,engine=transformers,dtype=float32,prefix_cache=no,model=org/m") == Service(
        target="host:1", dtype="float32", engine="transformers", prefix_cache=False, model="org/m"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("host:1", "needs HOST:PORT,dtype=...,engine=..."),
        ("host:1,dtype=float32", "needs HOST:PORT,dtype=...,engine=..."),
        (",dtype=float32,engine=packed", "needs HOST:PORT,dtype=...,engine=..."),
        ("host:1,dtype=float32,engine=packed,colour=red", "needs HOST:PORT,dtype=...,engine=..."),
        ("host:1,dtype=fp8,engine=packed", "dtype is one of float32, bfloat16, float16"),
        ("host:1,dtype=float32,engine=packed,prefix_cache=maybe", "prefix_cache is yes or no"),
    ],
)
def test_a_service_that_is_not_stated_in_full_is_refused(text, message):
    with pytest.raises(EvaluationError) as caught:
        Service.parse(text)
    assert message in str(caught.value)


def test_looks_have_words():
    assert [str(Look.parse(text)) for text in ("no", "queries", "100")] == ["no", "queries", "100"]
    for text in ("0", "-1", "yes", ""):
        with pytest.raises(EvaluationError, match="is no, queries or a number of documents"):
            Look.parse(text)


def test_what_is_float_gets_no_second_look():
    made = choices([0, 64], ["float32", "int8"], map(Look.parse, ["no", "100"]))
    assert [(choice.dimensions, choice.encoding, str(choice.look)) for choice in made] == [
        (0, "float32", "no"),
        (0, "int8", "no"),
        (0, "int8", "100"),
        (64, "float32", "no"),
        (64, "int8", "no"),
        (64, "int8", "100"),
    ]


def test_rescoring_needs_a_search():
    tasks = [SimpleNamespace(metadata=SimpleNamespace(name="STS12", type="STS"))]
    made = choices([0], ["int8"], [Look(rescore=10)])
    sweep = Sweep(tasks=tasks, choices=made, instructions=None, protocols=[], folders=None, bars=None)
    with pytest.raises(EvaluationError, match="--rescore is for retrieval and reranking, not for STS12"):
        check_rescorable(sweep)


def test_the_table_says_what_each_row_costs_and_loses():
    table = sweep_table(ROWS)
    assert table.columns[-4:] == ("bytes/vector", "tokens/s", "score", "difference")
    assert [cells[-4:] for cells in table.rows] == [
        ("4,096", "1,234", "70.00", "+0.00"),
        ("32", "1,234", "61.00", "-9.00"),
        ("260", "1,234", "-", "-"),
    ], "a mean over fewer tasks is no score"
    assert table.rows[1][:8] == ("m", "bfloat16", "packed", "on", "on", "256", "binary", "100")


def test_json_and_csv_have_the_same_numbers():
    objects = json.loads(as_json(ROWS))
    lines = list(csv.DictReader(as_csv(ROWS).splitlines()))
    assert [line["score"] for line in lines] == [str(found["score"] or "") for found in objects]
    assert [line["two"] for line in lines] == [str(found["scores"].get("two", "")) for found in objects]
    assert objects[2]["failures"] == {"two": "no data"}
    assert lines[1]["bytes_per_vector"] == "32"


@pytest.mark.parametrize("rows", [ROWS, ROWS[2:]], ids=["some without a score", "none with a score"])
def test_the_plot_is_drawn_of_what_there_is(rows, tmp_path):
    plot_sweep(rows, tmp_path / "sweep.svg")
    assert (tmp_path / "sweep.svg").read_text().startswith("<?xml")


def test_mistakes_end_the_verb_with_one_line(tmp_path):
    stated = ("--service", "127.0.0.1:1,dtype=float32,engine=packed", "--tasks", "STS12")
    for options, message in [
        (("--encoding", "int4"), "--encoding 'int4': is one of float32, float16, int8, binary"),
        (("--rescore", "some"), "--rescore 'some': is no, queries or a number of documents"),
        (("--data", str(tmp_path / "nothing")), "is not a folder"),
    ]:
        outcome = CliRunner().invoke(app, ["sweep", *stated, *options])
        assert outcome.exit_code == 1
        assert message in outcome.stderr
        assert outcome.stderr.count("\n") == 1
