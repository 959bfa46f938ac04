"""`python -m benchmarks.gateway_held` in small."""

import sys

from benchmarks import gateway_held


def test_what_is_held_is_answered_and_what_is_abandoned_leaves_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gateway_held", "--calls", "500", "--streams", "48"])
    gateway_held.main()  # raises where an answer is missing, or something is left
    assert "clients killed" in capsys.readouterr().out
