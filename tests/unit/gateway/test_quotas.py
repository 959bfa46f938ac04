"""What a gateway knows of tenants' quotas by itself, and what a caller over quota is told."""

from dataclasses import replace

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from gateway.calls import Call
from gateway.errors import CallError, trailing_metadata
from gateway.identity.callers import ANYBODY, Caller
from gateway.quotas import Quotas
from gateway.reasons import Reason
from gateway.tenants import FIRST_MEAN_S, MOST_SPREAD_S, Tenant, Turns
from jobqueue.connection import connect_async
from jobqueue.errors import QueueAwayError
from jobqueue.quotas import Limit, Quota, Refusal

NOBODY_URL = "unix:///nobody/listens/here.sock"


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The event loop's, as far as tenants know; it stands still."""
    now = [1000.0]
    monkeypatch.setattr("gateway.tenants._now", lambda: now[0])
    return now


def tenant_with(**limits) -> Tenant:
    return Tenant("acme", Quota(**limits))


def call_of(caller: Caller) -> Call:
    return Call(method="/x/Embed", request_id="r", started=0.0, deadline=1e9, caller=caller)


async def test_who_has_no_quota_needs_no_redis():
    async with connect_async(NOBODY_URL) as client, Quotas(client) as quotas:
        call = call_of(ANYBODY)
        quotas.check(call)
        async with quotas.held(call):
            pass


async def test_who_has_one_waits_for_no_redis_that_is_away():
    caller = Caller(tenant="acme", quota=Quota(requests_per_s=1))
    async with connect_async(NOBODY_URL) as client, Quotas(client) as quotas:
        call = call_of(caller)
        quotas.check(call)
        with pytest.raises(QueueAwayError):
            async with quotas.held(call):
                pytest.fail("it was let in")


def test_what_redis_refused_is_refused_until_it_said(clock):
    tenant = tenant_with(requests_per_s=10, tokens_per_s=100)
    assert tenant.limit_met(needs_tokens=True) is None
    tenant.note(Refusal(limit=Limit.REQUESTS, retry_s=0.1), 5, asked_at=1000.0)
    assert tenant.limit_met(needs_tokens=False) is Limit.REQUESTS
    clock[0] = 1000.0999
    assert tenant.limit_met(needs_tokens=False) is Limit.REQUESTS
    clock[0] = 1000.1
    assert tenant.limit_met(needs_tokens=False) is None


def test_a_debt_of_tokens_does_not_concern_who_needs_none(clock):
    tenant = tenant_with(tokens_per_s=100)
    tenant.note(Refusal(limit=Limit.TOKENS, retry_s=3), 5, asked_at=1000.0)
    assert tenant.limit_met(needs_tokens=True) is Limit.TOKENS
    assert tenant.limit_met(needs_tokens=False) is None


def test_slots_that_a_gateway_holds_itself_need_no_asking(clock):
    tenant = tenant_with(max_in_flight=2)
    begun = [tenant.begin(), tenant.begin()]
    assert tenant.limit_met(needs_tokens=True) is Limit.IN_FLIGHT
    tenant.end(begun.pop())
    assert tenant.limit_met(needs_tokens=True) is None


def test_slots_at_other_gateways_are_not_taken_for_its_own(clock):
    tenant = tenant_with(max_in_flight=2)
    tenant.note(Refusal(limit=Limit.IN_FLIGHT, retry_s=0), 5, asked_at=1000.0)
    assert tenant.limit_met(needs_tokens=True) is None


def test_those_refused_for_requests_are_told_to_come_one_after_another(clock):
    tenant = tenant_with(requests_per_s=4)
    tenant.note(Refusal(limit=Limit.REQUESTS, retry_s=0.125), 5, asked_at=1000.0)
    assert [tenant.retry_s(Limit.REQUESTS) for _ in range(3)] == [0.125, 0.375, 0.625]
    clock[0] += 0.5
    assert tenant.retry_s(Limit.REQUESTS) == 0.375


def test_those_refused_for_tokens_are_told_times_for_calls_of_that_size(clock):
    tenant = tenant_with(tokens_per_s=100)
    tenant.note(Refusal(limit=Limit.TOKENS, retry_s=2), 50, asked_at=1000.0)
    assert [tenant.retry_s(Limit.TOKENS) for _ in range(3)] == [2.0, 2.5, 3.0]


def test_those_refused_for_slots_are_told_times_at_which_calls_end(clock):
    tenant = tenant_with(max_in_flight=4)
    assert [tenant.retry_s(Limit.IN_FLIGHT) for _ in range(2)] == [FIRST_MEAN_S / 4, FIRST_MEAN_S / 2]
    clock[0] += 100
    for _ in range(100):
        begun_at = tenant.begin()
        clock[0] += 0.2
        tenant.end(begun_at)
    assert tenant.retry_s(Limit.IN_FLIGHT) == pytest.approx(0.05, abs=0.002)


def test_told_times_are_whole_milliseconds_and_never_too_early(clock):
    tenant = tenant_with(requests_per_s=3)
    tenant.note(Refusal(limit=Limit.REQUESTS, retry_s=0.0001), 5, asked_at=1000.0)
    told = [tenant.retry_s(Limit.REQUESTS) for _ in range(3)]
    assert told == [0.001, 0.334, 0.667]


def test_turns_do_not_grow_without_end():
    turns = Turns()
    taken = [turns.take(10.0, 1.0) for _ in range(int(MOST_SPREAD_S) + 2)]
    assert max(taken) < 10.0 + MOST_SPREAD_S
    assert taken[-2:] == [10.0, 11.0]
    assert turns.take(50.0, 1.0) == 50.0


@pytest.mark.parametrize(
    ("limits", "limit", "message"),
    [
        ({"requests_per_s": 0.5}, Limit.REQUESTS, "the quota of 0.5 requests per second is used up"),
        ({"tokens_per_s": 2_000_000}, Limit.TOKENS, "the quota of 2000000 tokens per second is used up"),
        ({"max_in_flight": 64}, Limit.IN_FLIGHT, "the quota of 64 calls in flight is used up"),
    ],
)
async def test_who_is_over_quota_is_told_which_one_and_when_to_come_back(limits, limit, message):
    caller = Caller(tenant="acme", quota=Quota(**limits))
    async with connect_async(NOBODY_URL) as client, Quotas(client) as quotas:
        tenant = quotas._tenant("acme", caller.quota)
        tenant.note(Refusal(limit=limit, retry_s=60), 1, asked_at=tenant.begin())
        for _ in range(limits.get("max_in_flight", 0)):
            tenant.begin()
        with pytest.raises(CallError) as caught:
            quotas.check(call_of(caller))
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, f"QUOTA_{limit.name}")
    assert (error.message, error.quota_subject) == (message, "acme")
    assert 0 < error.retry_s <= 60


async def test_a_changed_quota_holds_at_once():
    caller = Caller(tenant="acme", quota=Quota(requests_per_s=1))
    async with connect_async(NOBODY_URL) as client, Quotas(client) as quotas:
        tenant = quotas._tenant("acme", caller.quota)
        tenant.note(Refusal(limit=Limit.REQUESTS, retry_s=60), 1, asked_at=tenant.begin())
        with pytest.raises(CallError):
            quotas.check(call_of(caller))
        quotas.check(call_of(replace(caller, quota=Quota(requests_per_s=100))))


def test_a_refusal_for_quota_names_subject_and_reason_on_the_wire():
    error = CallError(reason=Reason.QUOTA_TOKENS, message="why", quota_subject="acme", retry_s=1.001)
    trailers = dict(trailing_metadata(error))
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    failure, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    assert [detail.Unpack(failure) for detail in status.details] == [False, True, False]
    assert [detail.Unpack(retry) for detail in status.details] == [False, False, True]
    [violation] = failure.violations
    assert (violation.subject, violation.description) == ("acme", "why")
    assert retry.retry_delay.ToMilliseconds() == int(trailers["grpc-retry-pushback-ms"]) == 1001


def test_a_limit_that_is_not_there_has_no_value():
    with pytest.raises(LookupError):
        Quota(requests_per_s=1).of(Limit.TOKENS)
