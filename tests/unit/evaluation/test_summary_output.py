import csv
import json
from dataclasses import replace
from io import StringIO

import pytest

from evaluation.summaries.export import as_csv, as_json
from evaluation.summaries.plot import plot_summary
from evaluation.summaries.results import SubsetScore
from evaluation.summaries.summary import NOTHING, Against, MeanLine, Summary, TaskLine
from evaluation.summaries.tables import as_markdown, print_summary

SUBSETS = tuple(
    SubsetScore(split="test", subset=language, languages=(f"{language}-Latn",), score=60.0)
    for language in ("eng", "deu")
)
WHOLE = TaskLine(
    name="Whole", type="STS", metric="cosine_spearman", score=60.0, against=61.5, missing=(), subsets=SUBSETS
)
PART = TaskLine(
    name="Part",
    type="Retrieval",
    metric="ndcg_at_10",
    score=None,
    against=50.0,
    missing=("test/a", "test/b", "test/c", "test/d"),
    subsets=SUBSETS[:1],
)
GONE = replace(PART, name="Gone", missing=("test/default",), subsets=(), against=None)


def mean(name: str, num_there: int, num_all: int, score: float | None = None, against: float | None = None) -> MeanLine:
    return MeanLine(name=name, score=score, partial=60.0, num_there=num_there, num_all=num_all, against=against)


INCOMPLETE = Summary(
    model="org/model",
    revision="abc-123",
    described="MTEB(eng, v2)",
    against=Against(label="published", means={}, tasks={}, remarks=("published: a paper",)),
    means=(mean("mean by task", 1, 3, against=70.7), mean("STS", 1, 1, score=60.0, against=61.5)),
    common=mean("mean of the 1 of 3 tasks that both have", 1, 1, score=60.0, against=61.5),
    tasks=(WHOLE, PART, GONE),
    languages=(mean("deu-Latn", 1, 1, score=60.0), mean("eng-Latn", 2, 4)),
)
COMPLETE = Summary(
    model="org/model",
    revision="abc-123",
    described="MTEB(eng, v2)",
    against=NOTHING,
    means=(mean("mean by task", 1, 1, score=60.0),),
    common=None,
    tasks=(WHOLE,),
    languages=(mean("eng-Latn", 1, 1, score=60.0),),
)


def test_the_first_thing_said_is_what_is_missing():
    assert as_markdown(INCOMPLETE).splitlines()[:4] == [
        "- org/model abc-123: MTEB(eng, v2)",
        "- INCOMPLETE: 2 of 3 tasks have no score: Part (test/a, test/b, test/c, ...), Gone",
        "- against: published",
        "- published: a paper",
    ]


def test_the_mean_of_a_part_stands_in_a_column_of_its_own():
    lines = as_markdown(INCOMPLETE).splitlines()
    assert "| mean | of | score | there | difference | of what is there |" in lines
    assert "| mean by task | 1 of 3 | - | 70.70 | - | 60.00 |" in lines
    assert "| STS | 1 | 60.00 | 61.50 | -1.50 | - |" in lines
    assert "| mean of the 1 of 3 tasks that both have | 1 | 60.00 | 61.50 | -1.50 | - |" in lines


def test_each_task_has_a_line_with_the_other_score_and_the_difference():
    lines = as_markdown(INCOMPLETE).splitlines()
    assert "| Whole | STS | cosine_spearman | 60.00 | 61.50 | -1.50 |" in lines
    assert "| Gone | Retrieval | ndcg_at_10 | - | - | - |" in lines


def test_languages_have_means_too():
    assert "| eng-Latn | 2 of 4 | - | - | - | 60.00 |" in as_markdown(INCOMPLETE).splitlines()


def test_what_is_complete_and_compared_with_nothing_has_no_such_columns():
    text = as_markdown(COMPLETE)
    assert "INCOMPLETE" not in text
    assert "| mean | of | score |" in text
    assert "language" not in text


def test_subsets_are_listed_where_that_is_asked_for():
    line = "| Whole | test | deu | deu-Latn | 60.00 |"
    assert line in as_markdown(COMPLETE, subsets=True).splitlines()
    assert line not in as_markdown(COMPLETE).splitlines()


def test_another_run_that_is_incomplete_is_said_to_be_so():
    against = replace(INCOMPLETE.against, missing=("Whole", "Part"))
    assert "- INCOMPLETE: that has no score for Whole, Part" in as_markdown(replace(INCOMPLETE, against=against))


def test_the_terminal_shows_the_same(capsys):
    print_summary(INCOMPLETE)
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "INCOMPLETE: 2 of 3 tasks have no score: Part (test/a, test/b, test/c, ...), Gone" in shown
    assert "mean by task 1 of 3 - 70.70 - 60.00" in shown
    assert "Whole STS cosine_spearman 60.00 61.50 -1.50" in shown


def test_json_has_null_for_a_mean_over_which_something_is_missing():
    fields = json.loads(as_json(INCOMPLETE))
    assert fields["complete"] is False
    assert fields["missing"] == {"Part": ["test/a", "test/b", "test/c", "test/d"], "Gone": ["test/default"]}
    by_task, sts = fields["means"]
    assert (by_task["score"], by_task["partial"], by_task["num_there"], by_task["num_all"]) == (None, 60.0, 1, 3)
    assert sts["difference"] == -1.5
    assert fields["tasks"][0]["subsets"][1]["subset"] == "deu"
    assert json.loads(as_json(COMPLETE))["complete"] is True


def test_csv_has_a_line_for_each_score_and_nothing_for_one_that_is_missing():
    rows = list(csv.DictReader(StringIO(as_csv(INCOMPLETE))))
    assert [row["level"] for row in rows] == ["mean"] * 3 + ["language"] * 2 + ["task", "subset", "subset"] + [
        "task",
        "subset",
        "task",
    ]
    assert (rows[0]["name"], rows[0]["score"], rows[0]["against"]) == ("mean by task", "", "70.7")
    assert (rows[7]["name"], rows[7]["split"], rows[7]["subset"], rows[7]["score"]) == ("Whole", "test", "deu", "60.0")


@pytest.mark.parametrize("summary", [INCOMPLETE, COMPLETE])
def test_the_plot_names_all_tasks_and_says_what_is_missing(summary, tmp_path):
    plot_summary(summary, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    assert all(f">{task.name}<" in text for task in summary.tasks)
    assert (">no score<" in text) == (summary is INCOMPLETE)
    assert ("INCOMPLETE: 1 of 3 tasks" in text) == (summary is INCOMPLETE)


def test_the_plot_may_be_a_png(tmp_path):
    plot_summary(INCOMPLETE, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
