from dataclasses import asdict, replace
from statistics import fmean

import mteb
import pytest
from mteb import ResultCache
from mteb.benchmarks import Benchmark

from evaluation.errors import EvaluationError
from evaluation.summaries.against import against_published, against_run
from evaluation.summaries.expected import Expected, expected_of
from evaluation.summaries.results import RunResults, TaskScores, read_run
from evaluation.summaries.summary import MEAN_BY_TASK, MEAN_BY_TYPE, Summary, summarise
from evaluation.tasks.facts import TaskFacts
from tests.support.artificial_results import CARD, SETTINGS, write_card_of, write_results

# One of each type, with several subsets, several splits, and both.
MIXED = ["MLQARetrieval", "XNLI", "MassiveIntentClassification", "SwednClusteringP2P", "STS17", "NFCorpus", "SciFact"]


@pytest.fixture(scope="module")
def mixed():
    return [mteb.get_task(name) for name in MIXED]


@pytest.fixture(scope="module")
def mixed_run(mixed, tmp_path_factory) -> RunResults:
    return read_run(write_results(tmp_path_factory.mktemp("mixed"), mixed))


def expected(tasks, benchmark: str | None = None) -> Expected:
    return Expected(benchmark=benchmark, described="these", tasks=tuple(map(TaskFacts.of, tasks)))


def without(run: RunResults, task: str) -> RunResults:
    return replace(run, tasks={name: scores for name, scores in run.tasks.items() if name != task})


def with_part_of(run: RunResults, task: str, num_subsets: int) -> RunResults:
    scores: TaskScores = run.tasks[task]
    return replace(run, tasks={**run.tasks, task: replace(scores, subsets=scores.subsets[:num_subsets])})


def means(summary: Summary) -> dict[str, float | None]:
    return {line.name: line.score for line in summary.means}


@pytest.mark.parametrize("name", ["MTEB(eng, v2)", "MTEB(cmn, v1)", "these"])
def test_means_are_those_that_mteb_computes(name, mixed, tmp_path):
    tasks = mixed if name == "these" else list(mteb.get_benchmark(name))
    run = read_run(write_results(tmp_path, tasks, seed=7))
    theirs = Benchmark(name=name, tasks=tasks).get_score(ResultCache(tmp_path).load_results(tasks=tasks))[run.model]
    ours = means(summarise(run, expected(tasks)))
    assert ours.pop(MEAN_BY_TASK) == pytest.approx(100 * theirs.pop("Mean(Task)"))
    assert ours.pop(MEAN_BY_TYPE) == pytest.approx(100 * theirs.pop("Mean(TaskType)"))
    assert theirs.pop("Rank") == 1
    assert ours == pytest.approx({type_: 100 * mean for type_, mean in theirs.items()})


def test_scores_of_tasks_and_languages_are_those_that_mteb_computes(mixed, tmp_path):
    summary = summarise(read_run(write_results(tmp_path, mixed)), expected(mixed))
    theirs = ResultCache(tmp_path).load_results(tasks=mixed).model_results[0]
    by_task = theirs.to_dataframe("task", format="long").set_index("task_name")["score"]
    by_language = theirs.to_dataframe("language", format="long").set_index("language")["score"]
    assert {task.name: task.score for task in summary.tasks} == pytest.approx(dict(100 * by_task))
    assert {line.name: line.score for line in summary.languages} == pytest.approx(dict(100 * by_language))


def test_only_the_subsets_and_splits_of_a_benchmark_count(tmp_path):
    whole = mteb.get_task("MassiveIntentClassification")
    english = mteb.get_task("MassiveIntentClassification", hf_subsets=["en"], eval_splits=["test"])
    summary = summarise(read_run(write_results(tmp_path, [whole])), expected([english]))
    [subset] = summary.tasks[0].subsets
    assert (subset.split, subset.subset) == ("test", "en")
    assert summary.tasks[0].score == subset.score


def test_a_missing_task_is_named_and_leaves_no_mean_that_it_belongs_to(mixed, mixed_run):
    summary = summarise(without(mixed_run, "NFCorpus"), expected(mixed))
    assert [task.name for task in summary.missing] == ["NFCorpus"]
    assert means(summary)[MEAN_BY_TASK] is None
    assert means(summary)[MEAN_BY_TYPE] is None
    assert means(summary)["Retrieval"] is None
    assert means(summary)["STS"] is not None


def test_what_is_there_has_a_mean_of_its_own_with_its_number(mixed, mixed_run):
    complete = summarise(mixed_run, expected(mixed))
    summary = summarise(without(mixed_run, "NFCorpus"), expected(mixed))
    by_task = summary.means[0]
    assert (by_task.num_there, by_task.num_all) == (6, 7)
    assert by_task.partial == fmean(task.score for task in complete.tasks if task.name != "NFCorpus")


def test_a_task_that_lacks_a_subset_has_no_score(mixed, mixed_run):
    num_subsets = len(mixed_run.tasks["XNLI"].subsets)
    summary = summarise(with_part_of(mixed_run, "XNLI", num_subsets - 1), expected(mixed))
    [task] = summary.missing
    assert (task.name, task.score, len(task.missing)) == ("XNLI", None, 1)
    assert task.missing[0].startswith("validation/")
    assert means(summary)["PairClassification"] is None


def test_a_language_of_which_a_score_is_missing_has_no_mean(mixed, mixed_run):
    summary = summarise(without(mixed_run, "SwednClusteringP2P"), expected(mixed))
    incomplete = {line.name for line in summary.languages if line.score is None}
    assert incomplete == {"swe-Latn"}


def test_a_score_that_is_not_a_number_is_missing(tmp_path):
    tasks = [mteb.get_task("NFCorpus"), mteb.get_task("SciFact")]
    run = read_run(write_results(tmp_path, tasks, scores={"NFCorpus": float("nan")}))
    assert [task.name for task in summarise(run, expected(tasks)).missing] == ["NFCorpus"]


def test_another_run_stands_beside_with_the_differences(tmp_path):
    tasks = [mteb.get_task("NFCorpus"), mteb.get_task("SciFact")]
    ours = read_run(write_results(tmp_path / "ours", tasks, scores={"NFCorpus": 0.36, "SciFact": 0.70}))
    theirs = read_run(write_results(tmp_path / "theirs", tasks, scores={"NFCorpus": 0.35, "SciFact": 0.72}))
    summary = summarise(ours, expected(tasks), against_run(ours, theirs, expected(tasks)))
    assert [task.difference for task in summary.tasks] == pytest.approx([1.0, -2.0])
    assert summary.means[0].difference == pytest.approx(-0.5)
    assert summary.common is None


def test_where_the_other_run_lacks_tasks_only_those_that_both_have_are_compared(mixed, mixed_run):
    other = without(mixed_run, "NFCorpus")
    summary = summarise(mixed_run, expected(mixed), against_run(mixed_run, other, expected(mixed)))
    assert summary.against.missing == ("NFCorpus",)
    assert summary.means[0].difference is None
    assert summary.common.name == "mean of the 6 of 7 tasks that both have"
    assert summary.common.difference == 0.0


def test_settings_and_data_that_differ_between_two_runs_are_named(tmp_path):
    tasks = [mteb.get_task("NFCorpus")]
    runs = []
    for folder, dtype in (("ours", "bfloat16"), ("theirs", "float32")):
        path = write_results(tmp_path / folder, tasks)
        settings = asdict(replace(SETTINGS, served=replace(SETTINGS.served, dtype=dtype)))
        write_card_of(tmp_path / folder, tasks, settings=settings)
        runs.append(read_run(path))
    ours, theirs = runs
    newer = replace(theirs.tasks["NFCorpus"], dataset_revision="newer")
    remarks = against_run(ours, replace(theirs, tasks={"NFCorpus": newer}), expected(tasks)).remarks
    assert "served.dtype is bfloat16, there float32" in remarks
    assert f"NFCorpus has other data: {ours.tasks['NFCorpus'].dataset_revision}, there newer" in remarks
    assert len(remarks) == 2


def test_published_scores_stand_beside_the_tasks_and_means_that_have_them(tmp_path):
    tasks = list(mteb.get_benchmark("MTEB(Code, v1)"))
    run = read_run(write_results(tmp_path, tasks, scores=dict.fromkeys((t.metadata.name for t in tasks), 0.5)))
    belonging = expected(tasks, "MTEB(Code, v1)")
    summary = summarise(run, belonging, against_published(run, belonging))
    assert all(task.against is not None for task in summary.tasks)
    assert summary.means[0].against == 75.41
    assert summary.means[0].difference == pytest.approx(50 - 75.41)


def test_published_means_are_not_held_against_some_of_a_benchmarks_tasks(mixed, mixed_run):
    against = against_published(mixed_run, expected(mixed))
    assert against.means == {}
    assert against.tasks == {"SciFact": 69.72}


def test_beside_published_scores_it_is_said_what_was_not_done_as_by_the_authors(mixed, mixed_run):
    card = replace(CARD, deviations=("encoding=int8",))
    remarks = against_published(replace(mixed_run, cards=(card, card)), expected(mixed)).remarks
    assert remarks[1:] == ("not as the authors: encoding=int8",)
    assert against_published(mixed_run, expected(mixed)).remarks[1:] == (
        "no run card: how these scores were made is not known",
    )


def test_nothing_is_published_of_another_model(mixed, tmp_path):
    run = read_run(write_results(tmp_path, mixed[-1:], model="mine/Tuned"))
    with pytest.raises(EvaluationError, match=r"nothing is published of mine/Tuned, only of Qwen3-Embedding-0\.6B, "):
        against_published(run, expected(mixed))


def test_what_is_published_is_found_by_the_served_model_whatever_the_name_of_the_results(mixed, tmp_path):
    run = read_run(write_results(tmp_path, mixed[-1:], model="mine/first-try"))
    assert against_published(replace(run, cards=(CARD,)), expected(mixed)).tasks == {"SciFact": 69.72}


def test_the_run_card_says_which_tasks_have_to_be_there(mixed, tmp_path):
    folder = write_results(tmp_path, mixed[:2])
    write_card_of(tmp_path, mixed)
    run = read_run(folder)
    summary = summarise(run, expected_of(run, None))
    assert [task.name for task in summary.missing] == MIXED[2:]


def test_a_run_of_a_benchmark_has_to_have_all_its_tasks(tmp_path):
    tasks = list(mteb.get_benchmark("MTEB(Code, v1)"))[:3]
    folder = write_results(tmp_path, tasks)
    write_card_of(tmp_path, tasks, benchmark="MTEB(Code, v1)")
    run = read_run(folder)
    assert len(summarise(run, expected_of(run, None)).missing) == 9
    assert expected_of(run, "MTEB(eng, v2)").benchmark == "MTEB(eng, v2)"


def test_a_reranker_has_to_have_only_the_tasks_that_can_be_reranked(tmp_path):
    folder = write_results(tmp_path, [mteb.get_task("SciFact")])
    write_card_of(tmp_path, [mteb.get_task("SciFact")], model={"id": "Qwen/Qwen3-Reranker-0.6B", "task": "rerank"})
    types = {task.type for task in expected_of(read_run(folder), "MTEB(eng, v2)").tasks}
    assert types == {"Retrieval", "Reranking"}


def test_without_card_and_benchmark_it_is_said_that_more_may_be_missing(tmp_path):
    run = read_run(write_results(tmp_path, [mteb.get_task("SciFact")]))
    found = expected_of(run, None)
    assert [task.name for task in found.tasks] == ["SciFact"]
    assert "not known" in found.described


def test_tasks_that_are_not_of_the_benchmark_are_said_to_be_left_out(mixed_run):
    assert expected_of(mixed_run, "MTEB(eng, v2)").described == "MTEB(eng, v2); 5 other tasks are left out"


def test_a_benchmark_that_mteb_does_not_know_is_refused(mixed_run):
    with pytest.raises(EvaluationError, match="MTEB\\(moon\\)"):
        expected_of(mixed_run, "MTEB(moon)")
