"""Our enums have the contract's values, under the contract's names."""

import pytest

from gateway.tokenization import Truncation
from jobqueue.lanes import Lane
from jobqueue.messages import VectorEncoding
from qwen3.inference.v1 import common_pb2, embedding_pb2


@pytest.mark.parametrize(
    ("ours", "contract", "prefix"),
    [
        (Lane, common_pb2.Priority, "PRIORITY_"),
        (VectorEncoding, embedding_pb2.VectorEncoding, "VECTOR_ENCODING_"),
        (Truncation, common_pb2.TruncationPolicy, "TRUNCATION_POLICY_"),
    ],
)
def test_every_value_but_unspecified_is_the_same_on_both_sides(ours, contract, prefix):
    theirs = {name.removeprefix(prefix): value for name, value in contract.items() if value}
    assert {member.name: member.value for member in ours} == theirs
    assert contract.Name(0) == f"{prefix}UNSPECIFIED"
