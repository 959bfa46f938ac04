from array import array

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.packing import pack

CPU = torch.device("cpu")
token_ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20).map(lambda ids: array("i", ids))


@given(st.lists(token_ids, min_size=1, max_size=8))
def test_every_sequence_lies_between_its_borders_with_positions_from_zero(sequences):
    batch = pack(sequences, CPU)
    borders = batch.cu_seqlens.tolist()
    assert batch.num_sequences == len(sequences)
    assert borders[0] == 0
    assert borders[-1] == len(batch.ids) == len(batch.positions)
    for index, sequence in enumerate(sequences):
        rows = slice(borders[index], borders[index + 1])
        assert batch.ids[rows].tolist() == sequence.tolist()
        assert batch.positions[rows].tolist() == list(range(len(sequence)))
        assert batch.last_rows[index] == borders[index + 1] - 1
    assert batch.max_seqlen == max(map(len, sequences))


def test_dtypes_are_what_the_kernels_take():
    batch = pack([array("i", [1, 2]), array("i", [3])], CPU)
    assert (batch.ids.dtype, batch.positions.dtype, batch.cu_seqlens.dtype) == (torch.int32,) * 3
    assert batch.last_rows.dtype == torch.int64


@pytest.mark.parametrize("sequences", [[], [array("i", [1]), array("i")]])
def test_nothing_to_pool_is_refused(sequences):
    with pytest.raises(ValueError, match="no last token to pool"):
        pack(sequences, CPU)
