"""Sets in local folders: the layouts, and what is said of mistakes."""

from pathlib import Path

import pytest

from evaluation.tasks.local_data import DataError, digest, files_of, read_set, splits_in, subsets_in

CORPUS = '{"_id": "d1", "title": "A", "text": "one"}\n{"_id": "d2", "title": "", "text": "two"}\n'
QUERIES = '{"_id": "q1", "text": "first"}\n{"_id": "q2", "text": "unanswered"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\td2\t1\n"
RAR_B = {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels.tsv": QRELS}


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(RAR_B, id="as RAR-b has it here"),
        pytest.param({"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels/test.tsv": QRELS}, id="as BEIR has it"),
        pytest.param(
            {
                "corpus/corpus.jsonl": CORPUS,
                "queries/queries.jsonl": QUERIES,
                "qrels/test.jsonl": '{"query-id": "q1", "corpus-id": "d2", "score": 1}\n',
            },
            id="as mteb has it",
        ),
        pytest.param(
            {
                "corpus.tsv": "id\ttitle\ttext\nd1\tA\tone\nd2\t\ttwo\n",
                "queries.tsv": "id\ttext\r\nq1\tfirst\r\nq2\tunanswered\r\n",
                "qrels.tsv": QRELS,
            },
            id="all TSV",
        ),
    ],
)
def test_every_layout_gives_the_same_set(files, tmp_path):
    folder = written(tmp_path, files)
    assert subsets_in(folder) == ["default"]
    assert splits_in(folder, "default") == ["test"]
    found = read_set(folder, "default", "test")
    assert found.corpus == [{"id": "d1", "title": "A", "text": "one"}, {"id": "d2", "title": "", "text": "two"}]
    assert found.queries == [{"id": "q1", "text": "first"}], "a query without answers is left out"
    assert found.relevance == {"q1": {"d2": 1}}


def test_a_set_may_have_subsets_and_splits(tmp_path):
    german = {"de-corpus.jsonl": CORPUS, "de-queries/test.jsonl": QUERIES, "de-qrels/test.tsv": QRELS}
    english = {f"en-{name}": content for name, content in RAR_B.items()}
    dev = {"de-queries/dev.jsonl": QUERIES, "de-qrels/dev.tsv": QRELS.replace("q1", "q2")}
    folder = written(tmp_path, german | english | dev)
    assert subsets_in(folder) == ["de", "en"]
    assert splits_in(folder, "de") == ["dev", "test"]
    assert read_set(folder, "de", "dev").relevance == {"q2": {"d2": 1}}
    assert read_set(folder, "en", "test").relevance == {"q1": {"d2": 1}}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", CORPUS + "{\n", "corpus.jsonl:3: is not JSON"),
        ("corpus.jsonl", CORPUS + "\n7\n", "corpus.jsonl:4: is not a JSON object"),
        ("corpus.jsonl", CORPUS + '{"_id": "d1", "text": "x"}\n', "corpus.jsonl:3: id 'd1' is there already"),
        ("corpus.jsonl", '{"_id": "d1", "text": null}\n', "corpus.jsonl:1: needs text, a string"),
        ("corpus.jsonl", '{"_id": "d1", "title": 1, "text": ""}\n', "corpus.jsonl:1: title must be a string"),
        ("corpus.jsonl", "", "corpus.jsonl: is empty"),
        ("queries.jsonl", '{"text": "x"}\n', "queries.jsonl:1: needs _id or id"),
        ("queries.jsonl", '{"_id": true, "text": "x"}\n', "queries.jsonl:1: needs _id or id"),
        ("qrels.tsv", "", "qrels.tsv: is empty"),
        ("qrels.tsv", QRELS + "q1\td1\n", "qrels.tsv:3: has 2 columns, the first line 3"),
        ("qrels.tsv", QRELS + "q3\td1\t1\n", "qrels.tsv:3: no text has the query-id 'q3'"),
        ("qrels.tsv", QRELS + "q1\td3\t1\n", "qrels.tsv:3: no text has the corpus-id 'd3'"),
        ("qrels.tsv", QRELS + "q1\td1\tyes\n", "qrels.tsv:3: needs score, a whole number"),
        ("qrels.tsv", QRELS + "q1\td2\t1\n", "qrels.tsv:3: 'q1' and 'd2' are there already"),
        ("qrels.tsv", QRELS.removeprefix("query-id\tcorpus-id\tscore\n"), "qrels.tsv: is empty"),
    ],
)
def test_a_mistake_names_file_and_line(file, content, message, tmp_path):
    folder = written(tmp_path, RAR_B | {file: content})
    with pytest.raises(DataError) as caught:
        read_set(folder, "default", "test")
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


def test_bytes_that_are_no_text_are_a_mistake(tmp_path):
    folder = written(tmp_path, RAR_B)
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "d1", "text": "\xff"}\n')
    with pytest.raises(DataError, match=r"corpus\.jsonl: is not UTF-8"):
        read_set(folder, "default", "test")


def test_a_missing_part_is_a_mistake(tmp_path):
    folder = written(tmp_path, {"queries.jsonl": QUERIES, "qrels.tsv": QRELS})
    with pytest.raises(DataError, match=r"needs one of corpus\.jsonl, corpus\.tsv and folder corpus, has 0"):
        files_of(folder, "default", "test")
    with pytest.raises(DataError, match=r"has no qrels\.tsv"):
        subsets_in(written(tmp_path / "other", {"corpus.jsonl": CORPUS}))


def test_a_missing_split_is_a_mistake(tmp_path):
    qrels = {"qrels/dev.tsv": QRELS, "qrels/test.tsv": QRELS}
    folder = written(tmp_path, {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES} | qrels)
    with pytest.raises(DataError, match=r"needs one file train\.jsonl or train\.tsv, has 2"):
        files_of(folder, "default", "train")


def test_the_digest_changes_with_any_file_and_any_word(tmp_path):
    folder = written(tmp_path, RAR_B)
    files = files_of(folder, "default", "test")
    before = digest(files, "an instruction")
    assert digest(files, "an instruction") == before
    assert digest(files, "another") != before
    written(folder, {"qrels.tsv": QRELS + "q1\td1\t1\n"})
    assert digest(files, "an instruction") != before
