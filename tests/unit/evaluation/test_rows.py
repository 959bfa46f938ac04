"""Answers on disk: found again by what was asked, also after the process died in the middle of a row."""

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.records.rows import RowFile, RowStore, digest_of

FIELDS = [("vector", "<f4", (3,)), ("num_tokens", "<i4")]
A, B, C = (digest_of(None, text) for text in "abc")


def written(path, digests, values):
    file = RowFile(path, FIELDS)
    file.append(digests, vector=[[value] * 3 for value in values], num_tokens=values)
    return file


def test_rows_are_read_in_the_order_they_are_asked_for(tmp_path):
    file = written(tmp_path / "x.rows", [A, B], [1, 2])
    assert file.read([B, A, B])["vector"].tolist() == [[2.0] * 3, [1.0] * 3, [2.0] * 3]
    assert file.read([]).shape == (0,)


def test_what_one_process_wrote_another_finds_and_adds_to(tmp_path):
    written(tmp_path / "x.rows", [A], [1])
    again = written(tmp_path / "x.rows", [B], [2])
    assert A in again
    assert C not in again
    assert RowFile(tmp_path / "x.rows", FIELDS).read([A, B])["num_tokens"].tolist() == [1, 2]


def test_a_row_that_was_cut_off_is_asked_for_again_and_the_others_are_not(tmp_path):
    path = tmp_path / "x.rows"
    written(path, [A, B], [1, 2])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5)
    again = RowFile(path, FIELDS)
    assert A in again
    assert B not in again
    again.append([B], vector=[[3.0] * 3], num_tokens=[3])
    assert again.read([A, B])["num_tokens"].tolist() == [1, 3]


def test_what_was_never_written_is_not_made_up(tmp_path):
    with pytest.raises(KeyError):
        RowFile(tmp_path / "x.rows", FIELDS).read([A])


def test_rows_read_stay_while_more_are_written(tmp_path):
    file = written(tmp_path / "x.rows", [A], [1])
    row = file.read([A])
    file.append([B], vector=np.zeros((1, 3)), num_tokens=[2])
    assert row["num_tokens"].tolist() == [1]


def test_rows_that_another_process_added_are_not_taken_for_ones_own(tmp_path):
    mine, theirs = (RowFile(tmp_path / "x.rows", FIELDS) for _ in range(2))
    theirs.append([A], vector=np.zeros((1, 3)), num_tokens=[1])
    mine.append([B], vector=np.zeros((1, 3)), num_tokens=[2])
    assert mine.read([B])["num_tokens"].tolist() == [2]


def test_a_file_that_was_changed_meanwhile_is_not_read(tmp_path):
    file = written(tmp_path / "x.rows", [A, B], [1, 2])
    content = (tmp_path / "x.rows").read_bytes()
    (tmp_path / "x.rows").write_bytes(content[len(content) // 2 :] * 2)
    with pytest.raises(EvaluationError, match=r"x\.rows is written by another run"):
        file.read([A])


def test_a_row_that_is_written_again_counts(tmp_path):
    file = written(tmp_path / "x.rows", [A, B, A], [1, 2, 3])
    for found in (file, RowFile(tmp_path / "x.rows", FIELDS)):
        assert found.read([A, B])["num_tokens"].tolist() == [3, 2]


def test_digests_tell_apart_what_is_different():
    assert len({digest_of(None, "a"), digest_of("", "a"), digest_of("a", ""), digest_of("a"), digest_of("\ud800")}) == 5


def test_a_finished_task_leaves_nothing_and_others_stay(tmp_path):
    store = RowStore(tmp_path)
    for task in ("STS22", "STS22.v2"):
        store.file(task, "float32", FIELDS).append([A], vector=[[0.0] * 3], num_tokens=[1])
    store.clear("STS22")
    assert A not in store.file("STS22", "float32", FIELDS)
    assert A in store.file("STS22.v2", "float32", FIELDS)
    store.clear("never begun")
