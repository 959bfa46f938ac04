import pytest

from worker.pace import Pace


def test_nothing_is_known_before_the_first_full_batch():
    pace = Pace()
    assert pace.tokens_per_s == 0
    pace.ended(100, fill=0.4, taken_at=1.0, now=2.0)
    assert pace.tokens_per_s == 0
    pace.ended(100, fill=0.5, taken_at=2.0, now=3.0)
    assert pace.tokens_per_s == 100


def test_batches_in_a_row_count_from_the_end_of_the_one_before():
    pace = Pace()
    for end in range(2, 12):
        pace.ended(100, fill=1, taken_at=end - 2.0, now=float(end))
    assert pace.tokens_per_s == pytest.approx(100, rel=0.1)  # the first one took two seconds


def test_time_without_work_does_not_count():
    pace = Pace()
    for end in (1.0, 101.0, 201.0):
        pace.ended(100, fill=1, taken_at=end - 1.0, now=end)
    assert pace.tokens_per_s == 100


def test_a_worker_that_has_become_slower_is_believed_within_half_a_minute():
    pace = Pace()
    for end in range(1, 101):
        pace.ended(1000, fill=1, taken_at=end - 1.0, now=float(end))
    for end in range(101, 131):
        pace.ended(100, fill=1, taken_at=end - 1.0, now=float(end))
    assert pace.tokens_per_s == pytest.approx(100 + 900 * 0.05, rel=0.02)  # e^-3 is 0.05
