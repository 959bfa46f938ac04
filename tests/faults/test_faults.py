"""The rows of `make test-faults` that are quick, each in small: nothing is lost, wrong or answered twice."""

import pytest

from tests.faults.play import play
from tests.faults.rows import ROWS
from tests.faults.stage import Row, Size

NUM_CALLS = 200


@pytest.mark.parametrize("row", [row for row in ROWS if row.in_short], ids=lambda row: row.name)
async def test_every_call_is_answered_once_and_rightly_through(row: Row) -> None:
    found = await play(row, Size(num_calls=NUM_CALLS, is_long=False))
    assert found.passed, found
