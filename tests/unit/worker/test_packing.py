import itertools
from array import array

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.packing import pack

CPU = torch.device("cpu")


def sequences_over(largest_id: int, longest: int):
    ids = st.lists(st.integers(0, largest_id), min_size=1, max_size=longest).map(lambda ids: array("i", ids))
    return st.lists(ids, min_size=1, max_size=8)


def groups(cu_seqlens, rows=None):
    """The rows of each group; without `rows` they are all rows in their order."""
    borders = cu_seqlens.tolist()
    rows = list(range(borders[-1])) if rows is None else rows.tolist()
    assert len(rows) == borders[-1]
    return [rows[begin:end] for begin, end in itertools.pairwise(borders)]


@given(sequences_over(2**31 - 1, 20))
def test_sequences_that_share_nothing_lie_one_behind_the_other(sequences):
    batch = pack(sequences, CPU, min_shared=100)
    layout = batch.every_token
    outputs = range(len(sequences)) if batch.outputs is None else batch.outputs.tolist()
    for sequence, output in zip(sequences, outputs, strict=True):
        rows = groups(layout.cu_seqlens_q)[output]
        assert batch.ids[rows].tolist() == sequence.tolist()
        assert batch.positions[rows].tolist() == list(range(len(sequence)))
        assert batch.last_rows[output] == rows[-1]
    assert layout.key_rows is None
    assert batch.last_tokens.key_rows is None
    assert torch.equal(layout.cu_seqlens_q, layout.cu_seqlens_k)
    assert torch.equal(batch.last_tokens.cu_seqlens_k, layout.cu_seqlens_q)


@given(sequences_over(2, 12), st.integers(1, 4))
def test_every_token_attends_to_its_own_sequence_up_to_itself(sequences, min_shared):
    batch = pack(sequences, CPU, min_shared=min_shared)
    layout = batch.every_token
    queries = groups(layout.cu_seqlens_q)
    keys = groups(layout.cu_seqlens_k, layout.key_rows)
    prefixes = {tuple(ids[:end]) for ids in sequences for end in range(1, len(ids) + 1)}
    seen = set()
    for own, path in zip(queries, keys, strict=True):
        assert path[-len(own) :] == own, "bottom-right: the last keys are the queries' own"
        for place, row in enumerate(own):
            attended = path[: len(path) - len(own) + place + 1]
            assert batch.positions[attended].tolist() == list(range(len(attended)))
            assert batch.positions[row] == len(attended) - 1
            seen.add(tuple(batch.ids[attended].tolist()))
    assert seen == prefixes
    assert (layout.max_seqlen_q, layout.max_seqlen_k) == (max(map(len, queries)), max(map(len, keys)))


@given(sequences_over(2, 12), st.integers(1, 4))
def test_every_sequence_is_pooled_at_its_last_token_over_all_of_its_tokens(sequences, min_shared):
    batch = pack(sequences, CPU, min_shared=min_shared)
    layout = batch.last_tokens
    keys = groups(layout.cu_seqlens_k, layout.key_rows)
    outputs = range(len(sequences)) if batch.outputs is None else batch.outputs.tolist()
    for sequence, output in zip(sequences, outputs, strict=True):
        assert batch.ids[keys[output]].tolist() == sequence.tolist()
        assert keys[output][-1] == batch.last_rows[output]
    assert layout.cu_seqlens_q.tolist() == list(range(len(batch.last_rows) + 1))
    assert layout.max_seqlen_q == 1


def test_identical_sequences_are_computed_once():
    batch = pack([array("i", [1, 2, 3])] * 5, CPU)
    assert batch.num_tokens == 3
    assert batch.outputs.tolist() == [0] * 5


def test_dtypes_are_what_the_kernels_take():
    batch = pack([array("i", range(9)), array("i", [*range(8), 1]), array("i", [3])] * 2, CPU)
    layout = batch.every_token
    assert (batch.ids.dtype, batch.positions.dtype) == (torch.int32,) * 2
    assert (layout.cu_seqlens_q.dtype, layout.cu_seqlens_k.dtype) == (torch.int32,) * 2
    assert (batch.last_rows.dtype, batch.outputs.dtype, layout.key_rows.dtype) == (torch.int64,) * 3


@pytest.mark.parametrize("sequences", [[], [array("i", [1]), array("i")]])
def test_nothing_to_pool_is_refused(sequences):
    with pytest.raises(ValueError, match="no last token to pool"):
        pack(sequences, CPU)
