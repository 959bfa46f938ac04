import mteb
import pytest

from evaluation.errors import EvaluationError
from evaluation.summaries.results import read_run
from tests.support.artificial_results import MODEL, SETTINGS, write_card_of, write_results


@pytest.fixture
def sci_fact():
    return [mteb.get_task("SciFact")]


@pytest.mark.parametrize("depth", range(4))
def test_a_run_is_found_from_its_own_folder_and_from_each_above(depth, sci_fact, tmp_path):
    folder = write_results(tmp_path / "root", sci_fact, scores={"SciFact": 0.7})
    run = read_run([folder, *folder.parents][depth])
    assert (run.model, run.revision) == (MODEL.id, SETTINGS.run_revision)
    [subset] = run.tasks["SciFact"].subsets
    assert (subset.split, subset.subset, subset.languages) == ("test", "default", ("eng-Latn",))
    assert subset.score == pytest.approx(70.0)


def test_the_cards_of_all_runs_into_a_folder_are_read_in_order(sci_fact, tmp_path):
    folder = write_results(tmp_path, sci_fact)
    write_card_of(tmp_path, sci_fact, started="2026-11-25T03:00:00+00:00")
    write_card_of(tmp_path, sci_fact, started="2026-11-24T03:00:00+00:00")
    assert [card.started for card in read_run(folder).cards] == [
        "2026-11-24T03:00:00+00:00",
        "2026-11-25T03:00:00+00:00",
    ]


def test_results_of_others_without_cards_are_read(sci_fact, tmp_path):
    folder = write_results(tmp_path, sci_fact).rename(tmp_path / "copied")
    assert read_run(folder).cards == ()


def test_several_runs_are_named_and_not_mixed(sci_fact, tmp_path):
    folders = [write_results(tmp_path, sci_fact, revision=revision) for revision in ("first", "second")]
    with pytest.raises(EvaluationError, match=r"several runs; name one:\n  .*first\n  .*second"):
        read_run(tmp_path)
    assert read_run(folders[0]).revision == "first"


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="holds no results"):
        read_run(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["{", "{}", '{"mteb_version": "2.26.0", "scores": 3}'])
def test_a_file_that_is_no_result_is_named(text, sci_fact, tmp_path):
    folder = write_results(tmp_path, sci_fact)
    (folder / "NFCorpus.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"NFCorpus\.json is not a result of mteb"):
        read_run(folder)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_run_whose_model_is_not_told_is_named(text, sci_fact, tmp_path):
    folder = write_results(tmp_path, sci_fact)
    (folder / "model_meta.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"model_meta\.json is not what mteb writes"):
        read_run(folder)


def test_a_broken_card_is_named(sci_fact, tmp_path):
    folder = write_results(tmp_path, sci_fact)
    write_card_of(tmp_path, sci_fact)
    [card] = (tmp_path / "runs").rglob("*.json")
    card.write_text("{}")
    with pytest.raises(EvaluationError, match=r"2026-11-24T030000.*\.json is not a run card"):
        read_run(folder)
