import pytest

from worker.pace import Pace


def test_nothing_is_known_before_the_first_batch():
    assert Pace().tokens_per_s == 0


def test_batches_that_no_other_waits_for_say_what_is_possible_at_least():
    pace = Pace()
    pace.ended(100, taken_at=1.0, now=2.0, another_waits=False)
    pace.ended(300, taken_at=5.0, now=6.0, another_waits=False)
    pace.ended(10, taken_at=8.0, now=9.0, another_waits=False)
    assert pace.tokens_per_s == 300


def test_batches_in_a_row_count_from_the_end_of_the_one_before():
    pace = Pace()
    pace.ended(900, taken_at=0.0, now=1.0, another_waits=False)
    for end in range(2, 12):
        pace.ended(100, taken_at=end - 2.0, now=float(end), another_waits=True)
    assert pace.tokens_per_s == 100


def test_a_worker_that_has_become_slower_is_believed_within_half_a_minute():
    pace = Pace()
    for end in range(1, 101):
        pace.ended(1000, taken_at=end - 1.0, now=float(end), another_waits=True)
    for end in range(101, 131):
        pace.ended(100, taken_at=end - 1.0, now=float(end), another_waits=True)
    assert pace.tokens_per_s == pytest.approx(100 + 900 * 0.05, rel=0.02)  # e^-3 is 0.05
