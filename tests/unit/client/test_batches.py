import pytest

from qwen3.inference.v1.embedding_pb2 import EmbedConfig
from qwen3_client import InvalidRequestError
from qwen3_client.batches import (
    TOKENIZE_LIMITS,
    Batch,
    BatchLimits,
    all_in_batches,
    call_limits,
    chunk_limits,
    fit_one_call,
    in_batches,
    num_that_fit,
)
from qwen3_client.options import ENCODINGS


def sizes(texts, **limits):
    batches = list(in_batches(texts, BatchLimits(**limits)))
    assert [text for batch in batches for text in batch.texts] == list(texts)
    assert all(batch.texts[0] == texts[batch.first] for batch in batches)
    return [len(batch.texts) for batch in batches]


@pytest.mark.parametrize(("num_texts", "expected"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (7, [3, 3, 1])])
def test_a_batch_has_at_most_so_many_texts(num_texts, expected):
    assert sizes(["text"] * num_texts, max_texts=3) == expected


def test_a_batch_has_at_most_so_many_bytes_and_a_larger_text_goes_alone():
    assert sizes(["é" * 5, "x" * 10, "x" * 30, "x", "x" * 19], max_texts=9, max_bytes=20) == [2, 1, 2]


@pytest.mark.parametrize(
    ("encoding", "dimensions", "expected"),
    [
        ("float32", 0, 251),
        ("float32", 4096, 251),
        ("float32", 1024, 1000),
        ("int8", 1024, 3909),
        ("binary", 33, 111_588),
    ],
)
def test_a_reply_is_predicted_by_width_and_encoding(encoding, dimensions, expected):
    assert num_that_fit(EmbedConfig(encoding=ENCODINGS[encoding], dimensions=dimensions)) == expected


def test_a_call_and_a_chunk_stay_within_the_contract():
    wide, narrow = (EmbedConfig(encoding=ENCODINGS["float32"], dimensions=width) for width in (0, 1024))
    assert (call_limits(wide).max_texts, call_limits(narrow).max_texts) == (250, 250)
    assert chunk_limits(wide).max_texts == 64


@pytest.mark.parametrize(
    ("texts", "fit"), [([], True), (["text"] * 250, True), (["text"] * 251, False), (["x" * 200_000] * 2, False)]
)
def test_one_call_has_so_many_texts_and_so_much_of_them(texts, fit):
    assert fit_one_call(texts, EmbedConfig(encoding=ENCODINGS["float32"])) is fit


def test_texts_to_tokenise_go_in_smaller_batches():
    assert [len(batch.texts) for batch in all_in_batches(["x" * 100_000] * 5, TOKENIZE_LIMITS)] == [2, 2, 1]


def test_no_texts_are_one_batch_which_the_server_refuses():
    assert all_in_batches([], TOKENIZE_LIMITS) == [Batch(texts=[], first=0)]


def test_halves_know_their_place():
    first, second = Batch(texts=["a", "b", "c"], first=7).halves()
    assert (first, second) == (Batch(texts=["a"], first=7), Batch(texts=["b", "c"], first=8))


@pytest.mark.parametrize(
    ("num_texts", "field", "expected"),
    [(2, "inputs", True), (2, "documents", True), (1, "inputs", False), (2, "inputs[1]", False), (2, "model", False)],
)
def test_what_is_refused_for_the_list_as_a_whole_may_pass_in_halves(num_texts, field, expected):
    error = InvalidRequestError("no", code="INVALID_ARGUMENT", field_violations=((field, "no"),))
    assert Batch(texts=["text"] * num_texts, first=0).is_refused_as_too_much(error) is expected


def test_what_is_no_text_is_refused():
    with pytest.raises(TypeError, match="must be of type str, not bytes"):
        sizes(["text", b"text"], max_texts=9)
