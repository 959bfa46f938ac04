"""`python -m tests.fuzz` in small: whatever is sent, every call ends, with a reason, and the gateway lives on."""

from tests.fuzz.run import Size, fuzz


def test_no_message_is_a_bug_or_a_hang(tmp_path):
    report = fuzz(Size(num_messages=100, num_random=100), seed=1, folder=tmp_path, say=lambda _: None)
    assert report.found.faults == []
    assert report.problems == []
    assert report.found.num_calls == 1100
