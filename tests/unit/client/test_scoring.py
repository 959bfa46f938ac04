import numpy as np
import pytest

from qwen3_client import EmbedResult
from qwen3_client.scoring import cosine, dot, hamming


def result(vectors, scales=None, dimensions=None, revision="r1"):
    vectors = np.array(vectors)
    return EmbedResult(
        vectors=vectors,
        scales=None if scales is None else np.array(scales, np.float32),
        dimensions=dimensions or vectors.shape[1],
        token_counts=(),
        truncated=(),
        model="m",
        model_revision=revision,
    )


SMALL = result(np.array([[127, 0], [-3, 4]], np.int8), scales=[0.5, 2])


def test_int8_is_scored_with_its_scales():
    assert dot(SMALL, SMALL).dtype == np.float32
    assert dot(SMALL, SMALL).tolist() == [[4032.25, -381], [-381, 100]]
    assert cosine(SMALL, SMALL)[1].tolist() == pytest.approx([-0.6, 1])


def test_encodings_may_differ():
    wide = result(np.array([[2, 0], [0, 3], [0, 0]], np.float16))
    assert dot(SMALL, wide).tolist() == [[127, 0, 0], [-12, 24, 0]]
    assert cosine(SMALL, wide).tolist() == [[1, 0, 0], [pytest.approx(-0.6), pytest.approx(0.8), 0]]


def test_hamming_counts_the_signs_that_differ():
    a = result(np.array([[0b11110000, 0b10000000]], np.uint8), dimensions=9)
    b = result(np.array([[0b11110000, 0b10000000], [0b00001111, 0]], np.uint8), dimensions=9)
    assert hamming(a, b).tolist() == [[0, 9]]
    assert hamming(b, a).tolist() == [[0], [9]]


def test_what_cannot_be_compared_is_refused():
    bits = result(np.array([[1]], np.uint8), dimensions=2)
    with pytest.raises(ValueError, match="hamming"):
        dot(bits, SMALL)
    with pytest.raises(ValueError, match="binary"):
        hamming(SMALL, bits)
    with pytest.raises(ValueError, match="cannot be compared"):
        dot(SMALL, result(np.array([[1, 2]], np.float32), revision="r2"))
    with pytest.raises(ValueError, match="cannot be compared"):
        dot(SMALL, result(np.array([[1, 2, 3]], np.float32)))
