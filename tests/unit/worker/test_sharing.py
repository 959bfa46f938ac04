from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.sharing import SharingPlan, plan_sharing

SEQUENCES = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=12).map(lambda ids: array("i", ids)), min_size=1, max_size=12
)


def spelled(plan: SharingPlan, sequences, segment: int) -> list[int]:
    """The tokens from the root to the end of a segment."""
    found = []
    while segment >= 0:
        part = plan.segments[segment]
        found = list(sequences[part.source][part.begin : part.end]) + found
        segment = part.parent
    return found


def distinct_prefixes(sequences) -> int:
    return len({tuple(ids[:end]) for ids in sequences for end in range(1, len(ids) + 1)})


@given(SEQUENCES, st.integers(1, 5))
def test_every_sequence_is_spelled_by_the_path_to_its_last_segment(sequences, min_shared):
    plan = plan_sharing(sequences, min_shared=min_shared)
    for ids, last in zip(sequences, plan.last_segments, strict=True):
        assert spelled(plan, sequences, last) == list(ids)


@given(SEQUENCES)
def test_every_distinct_prefix_is_computed_once(sequences):
    assert plan_sharing(sequences).num_tokens == distinct_prefixes(sequences)


@given(SEQUENCES, st.integers(1, 5))
def test_segments_begin_where_their_parents_end_and_come_after_them(sequences, min_shared):
    plan = plan_sharing(sequences, min_shared=min_shared)
    for index, segment in enumerate(plan.segments):
        assert -1 <= segment.parent < index
        assert segment.length > 0
        assert segment.begin == (plan.segments[segment.parent].end if segment.parent >= 0 else 0)
    children = {segment.parent for segment in plan.segments}
    assert all(plan.segments[parent].length >= min_shared for parent in children - {-1})


@given(SEQUENCES)
def test_without_agreements_long_enough_every_distinct_sequence_is_one_segment(sequences):
    plan = plan_sharing(sequences, min_shared=100)
    assert plan.num_tokens == sum(map(len, {tuple(ids) for ids in sequences}))
    assert all(segment.parent == -1 for segment in plan.segments)


@pytest.mark.parametrize(
    ("sequences", "num_tokens"),
    [
        ([[1, 2, 3]], 3),
        ([[1, 2, 3], [1, 2, 3], [1, 2, 3]], 3),
        ([[1, 2, 3], [4, 5, 6]], 6),
        ([[1, 2, 3], [1, 2, 4], [1, 2]], 4),
        ([[1], [1, 1], [1, 1, 1], [1, 1, 1, 1]], 4),
        ([[256], [1, 7], [65536]], 4),  # their bytes agree where their tokens do not
    ],
)
def test_what_is_computed_is_counted(sequences, num_tokens):
    assert plan_sharing([array("i", ids) for ids in sequences]).num_tokens == num_tokens


def test_a_thousand_nested_prefixes_are_planned():
    sequences = [array("i", range(length)) for length in range(1, 1001)]
    plan = plan_sharing(sequences)
    assert plan.num_tokens == 1000
    assert len(plan.segments) == 1000
