"""Quotas in Redis, as several gateways use them together: what is let in, what is refused, what is forgotten."""

import asyncio
import contextlib
import hashlib
import random
import uuid
from collections.abc import Sequence

import pytest
import redis
from redis.crc import key_slot

from gateway.calls import Call, Work
from gateway.errors import CallError
from gateway.identity.callers import Caller
from gateway.quotas import Quotas
from jobqueue import scripts
from jobqueue.connection import connect_async
from jobqueue.errors import DrainingError, NoWorkerError, QueueAwayError, QueueFullError
from jobqueue.keys import quota_keys
from jobqueue.lanes import Lane
from jobqueue.quotas import Charge, Limit, Quota, QuotaLedger, Refusal
from tests.support.queues import until
from tests.support.redis_servers import cluster, embedded_binary, make_certificate, redis_server, silent

TTL_MS = 3_600_000
NUM_CALLS = 200

# In front of a script: the server's clock stands still until it is told to go on, and nothing expires by the real one.
CLOCK = """
local redis = {call = function(name, ...)
  if name == 'TIME' then
    return {'%d', '%d'}
  elseif name == 'PEXPIRE' or name == 'PEXPIREAT' then
    return 1
  end
  return redis.call(name, ...)
end}
"""


class Clock:
    """The server's, for scripts that are loaded by `load`."""

    def __init__(self, load) -> None:
        self._load = load
        self.now_us = 1_800_000_000_123_456

    def go_on(self, seconds: float) -> None:
        self.now_us += round(seconds * 1e6)

    def load(self, name: str) -> scripts.Script:
        source = CLOCK % divmod(self.now_us, 10**6) + self._load(name).source
        return scripts.Script(source, hashlib.sha1(source.encode()).hexdigest())


@pytest.fixture
def clock(monkeypatch) -> Clock:
    found = Clock(scripts.load)
    monkeypatch.setattr(scripts, "load", found.load)
    return found


@pytest.fixture
async def ledgers(any_redis_url) -> Sequence[QuotaLedger]:
    """Those of two gateways, each with a connection of its own."""
    async with connect_async(any_redis_url) as first, connect_async(any_redis_url) as second:
        yield [QuotaLedger(first), QuotaLedger(second)]


@pytest.fixture
def tenant() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def server(any_redis_url):
    with redis.Redis.from_url(any_redis_url) as client:
        yield client


def charge(tenant: str, num_tokens: int = 0, **limits) -> Charge:
    return Charge(tenant=tenant, quota=Quota(**limits), num_tokens=num_tokens)


async def spend_all(ledgers: Sequence[QuotaLedger], charges: Sequence[Charge]) -> Sequence[Refusal | None]:
    """All at once, by turns at each gateway."""
    return await asyncio.gather(
        *(ledgers[number % len(ledgers)].spend(found, ttl_ms=TTL_MS) for number, found in enumerate(charges))
    )


def num_in(refusals: Sequence[Refusal | None]) -> int:
    return refusals.count(None)


async def test_exactly_the_requests_of_a_second_are_let_in_at_once(ledgers, tenant, clock):
    charges = [charge(tenant, requests_per_s=50) for _ in range(NUM_CALLS)]
    refusals = await spend_all(ledgers, charges)
    assert num_in(refusals) == 50
    assert set(refusals) == {None, Refusal(limit=Limit.REQUESTS, retry_s=0.02)}


async def test_requests_are_paid_off_at_their_rate(ledgers, tenant, clock):
    await spend_all(ledgers, [charge(tenant, requests_per_s=50) for _ in range(50)])
    clock.go_on(0.1)
    assert num_in(await spend_all(ledgers, [charge(tenant, requests_per_s=50) for _ in range(20)])) == 5
    clock.go_on(1000)
    assert num_in(await spend_all(ledgers, [charge(tenant, requests_per_s=50) for _ in range(NUM_CALLS)])) == 50


async def test_over_a_long_time_nothing_drifts(ledgers, tenant, clock):
    ticks, passed, seconds = random.Random(0), 0, 0.0
    for _ in range(100):
        passed += num_in(await spend_all(ledgers, [charge(tenant, requests_per_s=7.3) for _ in range(6)]))
        tick = ticks.uniform(0, 0.3)
        clock.go_on(tick)
        seconds += tick
    passed += num_in(await spend_all(ledgers, [charge(tenant, requests_per_s=7.3) for _ in range(6)]))
    assert passed == int(7.3 + 7.3 * seconds)


async def test_who_comes_when_told_is_let_in_and_who_comes_before_is_not(ledgers, tenant, clock):
    await spend_all(ledgers, [charge(tenant, requests_per_s=3) for _ in range(3)])
    (refusal,) = await spend_all(ledgers, [charge(tenant, requests_per_s=3)])
    clock.go_on(refusal.retry_s - 0.001)
    (again,) = await spend_all(ledgers, [charge(tenant, requests_per_s=3)])
    assert again == Refusal(limit=Limit.REQUESTS, retry_s=0.001)
    clock.go_on(0.001)
    assert await spend_all(ledgers, [charge(tenant, requests_per_s=3)]) == [None]


async def test_a_rate_below_one_per_second_lets_one_in(ledgers, tenant):
    refusals = await spend_all(ledgers, [charge(tenant, requests_per_s=0.001) for _ in range(NUM_CALLS)])
    assert num_in(refusals) == 1
    assert all(990 < refusal.retry_s <= 1000 for refusal in refusals if refusal)


async def test_a_call_larger_than_a_second_is_let_in_and_leaves_a_debt(ledgers, tenant, clock):
    limits = {"tokens_per_s": 100}
    assert await spend_all(ledgers, [charge(tenant, 99, **limits)]) == [None]
    assert await spend_all(ledgers, [charge(tenant, 1000, **limits)]) == [None]
    (refusal,) = await spend_all(ledgers, [charge(tenant, 1, **limits)])
    assert refusal == Refusal(limit=Limit.TOKENS, retry_s=10)
    assert await spend_all(ledgers, [charge(tenant, 0, **limits)]) == [None]  # counts tokens, and needs none
    clock.go_on(10)
    assert await spend_all(ledgers, [charge(tenant, 1, **limits)]) == [None]
    assert num_in(await spend_all(ledgers, [charge(tenant, 1, **limits)])) == 0


async def test_what_is_refused_costs_nothing(ledgers, tenant, clock):
    limits = {"requests_per_s": 10, "tokens_per_s": 100, "max_in_flight": 2}
    assert await spend_all(ledgers, [charge(tenant, 150, **limits)]) == [None]
    assert num_in(await spend_all(ledgers, [charge(tenant, 150, **limits) for _ in range(NUM_CALLS)])) == 0
    assert num_in(await spend_all(ledgers, [charge(tenant, 0, **limits) for _ in range(NUM_CALLS)])) == 1
    clock.go_on(0.52)
    (refusal,) = await spend_all(ledgers, [charge(tenant, 150, **limits)])
    assert refusal == Refusal(limit=Limit.IN_FLIGHT, retry_s=0)


async def test_what_the_queue_refuses_is_given_back(ledgers, tenant, clock):
    limits = {"requests_per_s": 1, "tokens_per_s": 100, "max_in_flight": 1}
    for number in range(3):
        first = charge(tenant, 150, **limits)
        assert await spend_all(ledgers, [first]) == [None]
        ledgers[number % 2].end(first, gives_back=True)
        await ledgers[number % 2].settle()
    assert await spend_all(ledgers, [charge(tenant, 150, **limits)]) == [None]
    (refusal,) = await spend_all(ledgers, [charge(tenant, 150, **limits)])
    assert refusal == Refusal(limit=Limit.REQUESTS, retry_s=1.0)


async def test_what_is_given_back_is_no_credit(ledgers, tenant, clock):
    first = charge(tenant, 150, tokens_per_s=100)
    await spend_all(ledgers, [first])
    clock.go_on(100)
    ledgers[0].end(first, gives_back=True)
    await ledgers[0].settle()
    assert num_in(await spend_all(ledgers, [charge(tenant, 100, tokens_per_s=100) for _ in range(3)])) == 1


async def test_of_several_limits_the_one_that_is_told_is_the_last_to_go(ledgers, tenant, clock):
    limits = {"requests_per_s": 1, "tokens_per_s": 100}
    await spend_all(ledgers, [charge(tenant, 100, **limits)])
    assert await spend_all(ledgers, [charge(tenant, 5, **limits)]) == [Refusal(limit=Limit.REQUESTS, retry_s=1)]
    clock.go_on(1)
    await spend_all(ledgers, [charge(tenant, 500, **limits)])
    assert await spend_all(ledgers, [charge(tenant, 5, **limits)]) == [Refusal(limit=Limit.TOKENS, retry_s=4.01)]


async def test_exactly_so_many_are_in_flight_at_all_gateways(ledgers, tenant):
    charges = [charge(tenant, max_in_flight=30) for _ in range(NUM_CALLS)]
    refusals = await spend_all(ledgers, charges)
    assert num_in(refusals) == 30
    assert {refusal.limit for refusal in refusals if refusal} == {Limit.IN_FLIGHT}
    held = [found for found, refusal in zip(charges, refusals, strict=True) if refusal is None]
    for found in held[:10]:
        ledgers[0].end(found)  # whichever gateway
    await ledgers[0].settle()
    assert num_in(await spend_all(ledgers, [charge(tenant, max_in_flight=30) for _ in range(NUM_CALLS)])) == 10


async def test_a_slot_that_nobody_gives_back_is_free_at_its_deadline(ledgers, tenant, clock):
    assert await ledgers[0].spend(charge(tenant, max_in_flight=1), ttl_ms=2000) is None
    clock.go_on(1.999)
    assert num_in(await spend_all(ledgers, [charge(tenant, max_in_flight=1)])) == 0
    clock.go_on(0.001)
    assert num_in(await spend_all(ledgers, [charge(tenant, max_in_flight=1)])) == 1


async def test_a_call_that_is_given_up_while_it_asks_leaves_no_slot(ledgers, tenant, server):
    tasks = [asyncio.create_task(ledgers[0].spend(charge(tenant, max_in_flight=5), ttl_ms=TTL_MS)) for _ in range(9)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)
    await until(lambda: not server.exists(quota_keys(tenant)[1]))
    await ledgers[0].settle()
    assert num_in(await spend_all(ledgers, [charge(tenant, max_in_flight=5) for _ in range(9)])) == 5


async def test_one_tenant_does_not_use_what_is_anothers(ledgers, tenant):
    limits = {"requests_per_s": 0.001, "max_in_flight": 1}
    assert num_in(await spend_all(ledgers, [charge(tenant, **limits) for _ in range(10)])) == 1
    assert num_in(await spend_all(ledgers, [charge(f"{tenant}{number}", **limits) for number in range(10)])) == 10


async def test_a_changed_quota_holds_for_what_was_spent_before(ledgers, tenant, clock):
    await spend_all(ledgers, [charge(tenant, 1000, tokens_per_s=10)])
    assert num_in(await spend_all(ledgers, [charge(tenant, 1, tokens_per_s=10)])) == 0
    assert num_in(await spend_all(ledgers, [charge(tenant, 1, tokens_per_s=1100)])) == 1
    assert num_in(await spend_all(ledgers, [charge(tenant, 1)])) == 1


async def test_a_clock_that_goes_back_closes_nothing_for_ever(ledgers, tenant, clock):
    await spend_all(ledgers, [charge(tenant, requests_per_s=5) for _ in range(5)])
    clock.go_on(-3600)
    assert num_in(await spend_all(ledgers, [charge(tenant, requests_per_s=5)])) == 0
    clock.go_on(0.2)
    assert num_in(await spend_all(ledgers, [charge(tenant, requests_per_s=5) for _ in range(5)])) == 1


async def test_what_is_kept_expires_by_itself(ledgers, tenant, server):
    spent, in_flight = quota_keys(tenant)
    limits = {"requests_per_s": 0.01, "tokens_per_s": 1, "max_in_flight": 3}
    held = charge(tenant, 500, **limits)
    assert await ledgers[0].spend(held, ttl_ms=60_000) is None
    assert 400_000 < server.pttl(spent) <= 500_001
    assert 0 < server.pttl(in_flight) <= 60_000
    ledgers[0].end(held)
    await ledgers[0].settle()
    assert not server.exists(in_flight)


async def test_a_full_server_goes_on_counting(ledgers, tenant, server):
    server.config_set("maxmemory", 1)
    try:
        charges = [charge(tenant, requests_per_s=100, max_in_flight=2) for _ in range(3)]
        assert num_in(await spend_all(ledgers, charges)) == 2
    finally:
        server.config_set("maxmemory", 0)


def test_all_of_a_tenants_keys_share_a_cluster_slot():
    for tenant in ("acme", "a}b", "{", ""):
        assert len({key_slot(name) for name in quota_keys(tenant)}) == 1


async def test_tenants_of_a_cluster_may_live_on_different_servers(tmp_path):
    with cluster(make_certificate(tmp_path)) as ports:
        async with connect_async(ports.url) as client:
            ledger = QuotaLedger(client)
            charges = [charge(f"t{number}", max_in_flight=2) for number in range(8) for _ in range(3)]
            refusals = await spend_all([ledger], charges)
            assert num_in(refusals) == 16
            for found in charges:
                ledger.end(found)
            await ledger.settle()
        for port in ports.plain:
            with redis.Redis(port=port) as node:
                assert node.info("commandstats")["cmdstat_evalsha"]["calls"] > 0
                assert node.keys("{quota:*") == []


# What a gateway makes of it.


def call_of(tenant: str, num_tokens: int = 10, *, timeout_s: float = 60, **limits) -> Call:
    work = Work(model="m", lane=Lane.INTERACTIVE, num_inputs=1, input_tokens=num_tokens, tokenize_us=1)
    return Call(
        method="/x/Embed",
        request_id="r",
        started=0.0,
        deadline=asyncio.get_running_loop().time() + timeout_s,
        caller=Caller(tenant=tenant, quota=Quota(**limits)),
        work=work,
    )


@pytest.fixture
async def gateways(any_redis_url) -> Sequence[Quotas]:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect_async(any_redis_url)) for _ in range(2)]
        yield [await stack.enter_async_context(Quotas(client)) for client in clients]


async def try_hold(quotas: Quotas, call: Call) -> str:
    """OK, or why it was refused."""
    try:
        async with quotas.held(call):
            return "OK"
    except CallError as error:
        return error.reason


async def test_whatever_ends_a_call_gives_its_slot_back(gateways, tenant):
    first, second = gateways
    limits = {"max_in_flight": 1}

    async def work(*, fails: bool) -> None:
        async with first.held(call_of(tenant, **limits)):
            inside.set()
            if fails:
                raise ValueError
            await asyncio.Event().wait()

    async with first.held(call_of(tenant, **limits)):
        assert await try_hold(first, call_of(tenant, **limits)) == "QUOTA_IN_FLIGHT"
        assert await try_hold(second, call_of(tenant, **limits)) == "QUOTA_IN_FLIGHT"
    await first._ledger.settle()
    assert await try_hold(second, call_of(tenant, **limits)) == "OK"
    await second._ledger.settle()

    inside = asyncio.Event()
    with pytest.raises(ValueError):
        await work(fails=True)
    await first._ledger.settle()
    assert await try_hold(second, call_of(tenant, **limits)) == "OK"
    await second._ledger.settle()

    inside = asyncio.Event()
    task = asyncio.create_task(work(fails=False))
    await inside.wait()
    assert await try_hold(second, call_of(tenant, **limits)) == "QUOTA_IN_FLIGHT"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await first._ledger.settle()
    assert await try_hold(second, call_of(tenant, **limits)) == "OK"


@pytest.mark.parametrize("refusal", [QueueFullError("full", retry_s=1), DrainingError("no"), NoWorkerError("none")])
async def test_a_call_that_the_queue_refuses_is_not_charged(gateways, tenant, refusal):
    first, second = gateways
    for _ in range(3):
        with pytest.raises(type(refusal)):
            async with first.held(call_of(tenant, tokens_per_s=0.001)):
                raise refusal
        await first._ledger.settle()
    assert await try_hold(second, call_of(tenant, tokens_per_s=0.001)) == "OK"
    assert await try_hold(second, call_of(tenant, tokens_per_s=0.001)) == "QUOTA_TOKENS"


async def test_a_gateway_that_stops_leaves_no_slot_taken(any_redis_url, tenant, server):
    async with connect_async(any_redis_url) as client, Quotas(client) as quotas:
        assert (
            await asyncio.gather(*(try_hold(quotas, call_of(tenant, max_in_flight=1000)) for _ in range(NUM_CALLS)))
            == ["OK"] * NUM_CALLS
        )
    assert not server.exists(quota_keys(tenant)[1])


async def test_a_gateway_that_stops_does_not_wait_for_a_silent_server(tenant, monkeypatch):
    monkeypatch.setattr("jobqueue.quotas.SETTLE_S", 0.05)
    monkeypatch.setattr("jobqueue.pipeline.REPLY_TIMEOUT_S", 3600.0)
    with redis_server(embedded_binary()) as url, redis.Redis.from_url(url) as server, contextlib.ExitStack() as stack:
        async with (
            connect_async(url) as client,
            Quotas(client) as quotas,
            quotas.held(call_of(tenant, max_in_flight=1)),
        ):
            stack.enter_context(silent(server))


async def test_the_next_call_of_who_is_over_quota_is_refused_without_redis(tenant):
    with redis_server(embedded_binary()) as url:
        client = connect_async(url)
        quotas = Quotas(client)
        limits = {"requests_per_s": 0.001}
        assert await try_hold(quotas, call_of(tenant, **limits)) == "OK"
        assert await try_hold(quotas, call_of(tenant, **limits)) == "QUOTA_REQUESTS"
    async with client, quotas:
        with pytest.raises(CallError) as caught:
            quotas.check(call_of(tenant, **limits))
        assert caught.value.reason == "QUOTA_REQUESTS"
        assert await try_hold(quotas, call_of(tenant, **limits)) == "QUOTA_REQUESTS"
        with pytest.raises(QueueAwayError):
            await try_hold(quotas, call_of("another", **limits))


async def test_a_call_without_work_is_charged_no_tokens(gateways, tenant):
    first, _ = gateways
    limits = {"tokens_per_s": 0.001}
    assert await try_hold(first, call_of(tenant, **limits)) == "OK"
    assert await try_hold(first, call_of(tenant, **limits)) == "QUOTA_TOKENS"
    counting = call_of(tenant, **limits)
    counting.work = None
    assert await try_hold(first, counting) == "OK"


async def test_who_was_refused_at_one_gateway_is_told_the_same_at_another(gateways, tenant):
    limits = {"requests_per_s": 0.01}
    assert await try_hold(gateways[0], call_of(tenant, **limits)) == "OK"
    for quotas in gateways:
        with pytest.raises(CallError) as caught:
            async with quotas.held(call_of(tenant, **limits)):
                pytest.fail("it was let in")
        assert 50 < caught.value.retry_s <= 100
