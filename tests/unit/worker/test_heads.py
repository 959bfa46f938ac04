import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jobqueue.messages import VectorEncoding
from worker.heads import embed_rows, score_rows

FINITE = st.floats(-1e3, 1e3, width=32)


def encode(rows, encoding, *, dimensions=None, normalize=False):
    hidden = torch.tensor(rows)
    return embed_rows(hidden, dimensions or hidden.shape[1], normalize=normalize, encoding=encoding)


def floats(encoded):
    return np.frombuffer(encoded.rows, "<f4")


@pytest.mark.parametrize("encoding", [VectorEncoding.FLOAT32, VectorEncoding.FLOAT_LIST])
def test_floats_are_little_endian_float32_row_by_row(encoding):
    encoded = encode([[1.0, -2.5], [0.0, 3.0]], encoding)
    assert encoded.rows == np.array([1.0, -2.5, 0.0, 3.0], "<f4").tobytes()
    assert (encoded.scales, encoded.finite) == (b"", [True, True])


def test_a_vector_is_cut_before_it_is_normalised():
    encoded = encode([[3.0, 4.0, 100.0]], VectorEncoding.FLOAT32, dimensions=2, normalize=True)
    assert floats(encoded) == pytest.approx([0.6, 0.8])


def test_a_zero_vector_stays_zero():
    encoded = encode([[0.0, 0.0]], VectorEncoding.FLOAT32, normalize=True)
    assert floats(encoded).tolist() == [0.0, 0.0]
    assert encoded.finite == [True]


def test_bfloat16_states_are_normalised_in_float32():
    hidden = torch.randn(3, 64).bfloat16()
    encoded = embed_rows(hidden, 64, normalize=True, encoding=VectorEncoding.FLOAT32)
    assert np.linalg.norm(floats(encoded).reshape(3, 64), axis=1) == pytest.approx(np.ones(3), abs=1e-6)


def test_float16_rounds_and_marks_what_it_cannot_hold():
    encoded = encode([[0.1, 1.0], [1.0, 7e4]], VectorEncoding.FLOAT16)
    assert np.frombuffer(encoded.rows[:4], "<f2").tolist() == [np.float16(0.1), np.float16(1.0)]
    assert encoded.finite == [True, False]


def test_int8_takes_its_scale_from_the_largest_value_of_the_row():
    encoded = encode([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]], VectorEncoding.INT8)
    assert np.frombuffer(encoded.rows, np.int8).tolist() == [64, -127, 32, 0, 0, 0]
    assert np.frombuffer(encoded.scales, "<f4").tolist() == [np.float32(2 / 127), 0.0]


@given(arrays(np.float32, (2, 9), elements=FINITE))
def test_int8_is_off_by_half_a_step_at_most(vectors):
    encoded = embed_rows(torch.from_numpy(vectors), 9, normalize=False, encoding=VectorEncoding.INT8)
    scales = np.frombuffer(encoded.scales, "<f4")[:, None].astype(np.float64)
    restored = np.frombuffer(encoded.rows, np.int8).reshape(2, 9) * scales
    assert (np.abs(restored - vectors) <= 0.5001 * scales + 1e-42).all()


def test_binary_is_the_sign_bits_most_significant_first_padded_to_bytes():
    encoded = encode([[1.0, -1.0, 0.0, 2.0, -1.0, -1.0, -1.0, 1.0, 0.5, -3.0]], VectorEncoding.BINARY)
    assert encoded.rows == bytes([0b10010001, 0b10000000])


@pytest.mark.parametrize("encoding", list(VectorEncoding))
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_row_with_a_value_that_is_no_number_is_marked_in_every_encoding(encoding, bad, normalize):
    encoded = encode([[1.0, 2.0], [bad, 1.0], [0.5, 0.5]], encoding, normalize=normalize)
    assert encoded.finite == [True, False, True]


def test_a_bad_value_behind_the_cut_does_not_count():
    encoded = encode([[1.0, float("nan")]], VectorEncoding.FLOAT32, dimensions=1, normalize=True)
    assert encoded.finite == [True]


def test_a_score_is_the_difference_of_the_two_logits_in_float32():
    hidden = torch.randn(4, 32).bfloat16()
    yes, no = torch.randn(32), torch.randn(32)
    encoded = score_rows(hidden, yes - no)
    expected = hidden.double() @ yes.double() - hidden.double() @ no.double()
    assert floats(encoded) == pytest.approx(expected.numpy(), abs=1e-5)
    assert (encoded.scales, encoded.finite) == (b"", [True] * 4)


def test_a_score_that_is_no_number_is_marked():
    hidden = torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])
    assert score_rows(hidden, torch.ones(2)).finite == [True, False]
