"""Local folders as tasks of mteb."""

from pathlib import Path

import pytest

from evaluation.tasks.local_data import DataError
from evaluation.tasks.local_tasks import load

FILES = {
    "corpus.jsonl": '{"_id": "d1", "title": "A", "text": "one"}\n',
    "queries.jsonl": '{"_id": "q1", "text": "first"}\n',
    "qrels.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
}


def a_set(folder: Path, task_file: str = "", subsets: tuple[str, ...] = ("",)) -> Path:
    folder.mkdir()
    for subset in subsets:
        for name, content in FILES.items():
            (folder / f"{subset}{name}").write_text(content)
    if task_file:
        (folder / "task.toml").write_text(task_file)
    return folder


def test_a_folder_is_a_retrieval_task_of_its_name(tmp_path):
    task = load(a_set(tmp_path / "tickets"))
    assert task.metadata.name == "tickets"
    assert task.metadata.main_score == "ndcg_at_10"
    assert task.metadata.prompt is None
    assert task.data_loaded
    data = task.dataset["default"]["test"]
    assert data["corpus"].to_list() == [{"id": "d1", "title": "A", "text": "one"}]
    assert data["relevant_docs"] == {"q1": {"d1": 1}}


def test_task_toml_says_what_the_folder_cannot(tmp_path):
    says = 'name = "support"\ninstruction = "Find the answer"\nlanguages = ["deu-Latn"]\nsplits = ["dev"]\n'
    task = load(a_set(tmp_path / "tickets", says))
    assert task.metadata.name == "support"
    assert task.metadata.prompt == {"query": "Find the answer"}
    assert task.metadata.bcp47_codes == ["deu-Latn"]
    assert task.eval_splits == ["dev"], "one file serves every split"


def test_the_revision_changes_with_data_and_instruction(tmp_path):
    folder = a_set(tmp_path / "tickets")
    before = load(folder).metadata.revision
    assert load(folder).metadata.revision == before
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "changed"}\n')
    with_other_data = load(folder).metadata.revision
    (folder / "task.toml").write_text('instruction = "Find the answer"\n')
    assert len({before, with_other_data, load(folder).metadata.revision}) == 3


def test_subsets_have_languages_of_their_own(tmp_path):
    languages = '[languages]\nde = ["deu-Latn"]\nen = ["eng-Latn"]\n'
    task = load(a_set(tmp_path / "tickets", languages, ("de-", "en-")))
    assert task.hf_subsets == ["de", "en"]
    assert task.metadata.hf_subsets_to_langscripts == {"de": ["deu-Latn"], "en": ["eng-Latn"]}


@pytest.mark.parametrize(
    ("task_file", "message"),
    [
        ('name = "a/b"', "task.toml: name: String should match"),
        ('colour = "red"', "task.toml: colour: Extra inputs are not permitted"),
        ("name = ", "task.toml: Invalid value"),
        ('name = "ARCChallenge"', "ARCChallenge is a task of mteb"),
        ('[languages]\nde = ["deu-Latn"]', "languages: needs the subsets default"),
    ],
)
def test_a_mistake_in_task_toml_is_named(task_file, message, tmp_path):
    with pytest.raises(DataError, match=r".") as caught:
        load(a_set(tmp_path / "tickets", task_file))
    assert message in str(caught.value)


def test_splits_that_nobody_chose_are_a_mistake(tmp_path):
    folder = a_set(tmp_path / "tickets")
    (folder / "qrels").mkdir()
    for split in ("dev", "train"):
        (folder / "qrels" / f"{split}.tsv").write_text(FILES["qrels.tsv"])
    (folder / "qrels.tsv").unlink()
    with pytest.raises(DataError, match=r"has the splits dev, train: name those to use in task\.toml"):
        load(folder)


def test_what_is_no_folder_is_a_mistake(tmp_path):
    with pytest.raises(DataError, match=r"is not a folder"):
        load(tmp_path / "nothing")
