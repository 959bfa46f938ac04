from dataclasses import replace
from importlib.metadata import version

import mteb
import pytest

from evaluation.errors import EvaluationError
from evaluation.protocol.rules import PlannedInstruction
from evaluation.records.card import TaskCard, card_markdown, installed_versions, read_cards, write_card
from evaluation.records.counting import Counts
from evaluation.tasks.facts import TaskFacts
from tests.support.artificial_results import CARD, SETTINGS

ENDED = TaskCard(
    task=TaskFacts.of(mteb.get_task("SciFact")),
    instruction=PlannedInstruction(query="Find a | b\nof it", document=None, source="mteb's list"),
    counts=Counts(
        num_texts=1000,
        num_tokens=50_000,
        num_truncated=3,
        num_placeholders=2,
        num_refused=4,
        num_sent_texts=900,
        num_sent_tokens=40_000,
        seconds=20.0,
    ),
)
FAILED = TaskCard(
    task=TaskFacts.of(mteb.get_task("STS17", hf_subsets=["en-de", "en-en"])),
    instruction=PlannedInstruction(query="Similar", document="Similar", source="protocol of STS"),
    failure="Error: away",
)
FULL = replace(CARD, tasks=(ENDED, FAILED), deviations=("use_instructions=False",))


def test_a_card_is_read_as_it_was_written(tmp_path):
    write_card(tmp_path, FULL)
    assert read_cards(tmp_path) == (FULL,)


def test_a_card_replaces_what_the_same_run_said_before_and_no_other_runs(tmp_path):
    write_card(tmp_path, replace(FULL, finished=None))
    write_card(tmp_path, FULL)
    later = replace(FULL, started="2026-11-25T03:00:00+00:00")
    write_card(tmp_path, later)
    assert read_cards(tmp_path) == (FULL, later)
    assert len(list(tmp_path.iterdir())) == 4  # JSON and Markdown of both


def test_a_folder_without_cards_has_none(tmp_path):
    assert read_cards(tmp_path / "nowhere") == ()


def test_counts_of_a_run_are_those_of_its_tasks_that_ended():
    assert replace(FULL, tasks=(ENDED, FAILED, ENDED)).counts == ENDED.counts + ENDED.counts


def test_the_markdown_says_what_the_scores_were_made_with():
    text = card_markdown(FULL)
    for line in (
        "| tasks | 1 of 2 ended |",
        f"| cache key | {SETTINGS.key} |",
        "| tokens | 50,000 |",
        "| truncated texts | 3 |",
        "| empty texts, sent as the placeholder | 2 |",
        "| refused pairs, whose query leaves no room for a document: scored 0 | 4 |",
        "| texts that were sent | 900 (others had been sent already, now or before a kill) |",
        "| tokens/s | 2,000 |",
        "| served.dtype | bfloat16 |",
        "| served.engine | packed |",
        "| protocol.placeholder | . |",
        "| max_input_tokens | 8192 |",
        "| encodings | float32, int8 |",
        "| mteb | 2.26.24 |",
        "| SciFact | Retrieval | ndcg_at_10 | test | default | 50,000 | Find a \\| b of it | none | mteb's list |",
        "| STS17 | STS | cosine_spearman | test | en-de, en-en | Error: away | Similar | Similar | protocol of STS |",
        "- use_instructions=False",
    ):
        assert line in text.splitlines()


def test_a_card_of_a_run_that_did_not_end_says_so():
    assert "| finished | no: it is running, or was killed |" in card_markdown(replace(CARD, finished=None))


def test_a_run_by_the_authors_protocol_says_that_too():
    assert card_markdown(CARD).rstrip().endswith("Deviations from the authors' protocol: none.")


def test_versions_are_those_that_are_installed():
    assert installed_versions()["mteb"] == version("mteb")


def test_a_package_that_is_not_installed_is_said_to_be_so(monkeypatch):
    monkeypatch.setattr("evaluation.records.card._PACKAGES", ("no-such-package",))
    assert installed_versions()["no-such-package"] == "not installed"


def test_languages_and_subsets_are_those_that_were_selected():
    assert FAILED.task.subsets == {"en-en": ("eng-Latn",), "en-de": ("eng-Latn", "deu-Latn")}


def test_a_task_that_sums_up_others_has_one_score(tmp_path):
    facts = TaskFacts.of(mteb.get_task("CQADupstackRetrieval"))
    assert facts.subsets == {"default": ("eng-Latn",)}


@pytest.mark.parametrize("text", ["", "[]", '{"started": "now"}'])
def test_what_is_no_card_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"a\.json is not a run card"):
        read_cards(tmp_path)
