"""What a task asked for and what of it was sent."""

from evaluation.records.counting import Counts, Tally


def test_counts_add_up_by_field():
    total = Counts(num_texts=3, num_sent_tokens=10, seconds=0.5) + Counts(num_texts=1, num_truncated=1, seconds=1.5)
    assert total == Counts(num_texts=4, num_truncated=1, num_sent_tokens=10, seconds=2.0)


def test_throughput_is_of_what_was_sent():
    counts = Counts(num_texts=10, num_tokens=100, num_sent_texts=4, num_sent_tokens=40, seconds=2.0)
    assert counts.tokens_per_s == 20.0
    assert Counts(num_texts=10, num_tokens=100).tokens_per_s == 0.0


def test_a_tally_begins_again_when_it_was_taken():
    tally = Tally()
    tally.add(Counts(num_texts=1))
    tally.add(Counts(num_texts=2))
    assert tally.take() == Counts(num_texts=3)
    assert tally.take() == Counts()
