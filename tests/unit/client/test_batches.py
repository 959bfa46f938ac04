import pytest

from qwen3.inference.v1.embedding_pb2 import EmbedConfig
from qwen3_client.batches import BatchLimits, call_limits, chunk_limits, num_that_fit, texts_in_batches
from qwen3_client.options import ENCODINGS


def sizes(texts, **limits):
    batches = list(texts_in_batches(texts, BatchLimits(**limits)))
    assert [text for batch in batches for text in batch] == list(texts)
    return [len(batch) for batch in batches]


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
