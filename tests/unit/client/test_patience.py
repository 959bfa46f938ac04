import pytest

from qwen3_client import (
    CallCancelledError,
    InvalidRequestError,
    ResourceExhaustedError,
    ServerFaultError,
    UnavailableError,
)
from qwen3_client.patience import Patience


def test_the_first_wait_is_what_the_server_asks_for_and_later_ones_grow():
    patience = Patience(60)
    gone = UnavailableError("gone", retry_after_s=0.0)
    waits = [patience.wait_s(gone) for _ in range(4)]
    assert waits[0] == 0
    assert 0 < waits[1] < waits[2] < waits[3]
    patience.renew()
    assert patience.wait_s(gone) == 0


def test_a_server_that_asks_for_more_gets_more():
    patience = Patience(60)
    busy = UnavailableError("busy", retry_after_s=7.0)
    assert [patience.wait_s(busy) for _ in range(3)] == [7, 7, 7]


def test_waits_end_with_the_timeout():
    patience = Patience(3)
    with pytest.raises(UnavailableError):  # noqa: PT012 - how many it takes is not the point
        while True:
            patience.wait_s(UnavailableError("gone"))
    patience.renew()
    patience.spend(2.9)
    with pytest.raises(UnavailableError):
        patience.wait_s(UnavailableError("gone", retry_after_s=0.2))


def test_what_is_told_at_the_end_is_why_it_was_begun_again():
    patience = Patience(60)
    assert patience.exhausted("id").code == "DEADLINE_EXCEEDED"
    gone = UnavailableError("gone")
    patience.wait_s(gone)
    assert patience.exhausted("id") is gone
    patience.renew()
    assert patience.exhausted("id").code == "DEADLINE_EXCEEDED"


def test_only_what_was_not_begun_is_begun_again():
    patience = Patience(60)
    assert patience.wait_s(CallCancelledError("the server stopped")) > 0
    assert patience.wait_s(ResourceExhaustedError("over quota", retry_after_s=7.0)) == 7
    with pytest.raises(ResourceExhaustedError):
        patience.wait_s(ResourceExhaustedError("too large"))
    with pytest.raises(InvalidRequestError):
        patience.wait_s(InvalidRequestError("no"))
    with pytest.raises(ServerFaultError):
        patience.wait_s(ServerFaultError("no"))
