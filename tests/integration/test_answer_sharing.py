"""Calls of one process that ask for the same at the same time, over a real cache."""

import asyncio
import contextlib
import uuid
from array import array
from dataclasses import dataclass, field

import pytest

from gateway.sharing.answers import Answers, CachePolicy
from gateway.sharing.questions import Answered, Sources
from jobqueue.cache import CacheLimits
from jobqueue.connection import connect_async
from jobqueue.errors import QueueFullError
from jobqueue.lanes import Lane
from jobqueue.messages import Job, Operation, Result, VectorEncoding
from tests.support.echo import announcement
from tests.support.queues import until

LIMITS = CacheLimits(max_bytes=2**20, lifetime_ms=3_600_000)


def job_of(text: str) -> Job:
    """A sequence of one token for every letter."""
    tails = tuple(array("i", [ord(letter)]) for letter in text)
    return Job(operation=Operation.EMBED, prefix=array("i"), tails=tails, dimensions=8, encoding=VectorEncoding.BINARY)


@dataclass
class Worker:
    """Computes for one call, once it is let; the answer to a letter is the letter. `asked` is all it was asked for."""

    free: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    error: Exception | None = None

    async def __call__(self, job: Job) -> Result:
        text = "".join(chr(tail[0]) for tail in job.tails)
        self.asked.append(text)
        await self.free.wait()
        if self.error is not None:
            raise self.error
        return Result(rows=text.encode(), num_rows=len(text), computed_tokens=len(text), queue_us=1, compute_us=1)


class Gateway:
    """One process's answers, for a model of its own; all calls are made to `worker` unless told otherwise."""

    def __init__(self, client, policy: CachePolicy) -> None:
        self.answers = Answers(client, policy)
        self.model = announcement(f"m-{uuid.uuid4()}")
        self.worker = Worker()

    def call(self, text: str, *, lane=Lane.INTERACTIVE, tenant="", worker=None) -> "asyncio.Task[Answered]":
        call = self.answers.answer(job_of(text), self.model, lane=lane, tenant=tenant, compute=worker or self.worker)
        return asyncio.create_task(call)

    async def waiting(self, text: str, **options) -> "asyncio.Task[Answered]":
        """A call that has come as far as it can by itself: others that are asked for the same wait for it."""
        worker = options.setdefault("worker", Worker())
        call = self.call(text, **options)
        await until(lambda: worker.asked)
        return call


@contextlib.asynccontextmanager
async def gateway_at(url: str, *, models=("*",), across_tenants=False):
    policy = CachePolicy(models=frozenset(models), across_tenants=across_tenants, limits=LIMITS)
    async with connect_async(url) as client:
        yield Gateway(client, policy)


@pytest.fixture
async def gateway(redis_url):
    async with gateway_at(redis_url) as found:
        yield found


async def settle():
    """Let everybody come as far as they can without Redis."""
    for _ in range(20):
        await asyncio.sleep(0)


def rows(call) -> bytes:
    return call.result().result.rows


async def test_what_another_call_has_asked_for_is_not_asked_for_again(gateway):
    first = Worker()
    leader = await gateway.waiting("abc", worker=first)
    followers = [gateway.call("abc"), gateway.call("cba"), gateway.call("b")]
    await settle()
    first.free.set()
    await asyncio.gather(leader, *followers)
    assert [rows(call) for call in [leader, *followers]] == [b"abc", b"abc", b"cba", b"b"]
    assert (first.asked, gateway.worker.asked) == (["abc"], [])
    assert followers[0].result().result.computed_tokens == 0
    assert followers[0].result().sources == Sources(hits=0, misses=0, shared=3)
    assert leader.result().sources == Sources(hits=0, misses=3, shared=0)


async def test_a_call_asks_for_what_nobody_has_asked_for_and_waits_for_the_rest(gateway):
    first = Worker()
    gateway.worker.free.set()
    leader = await gateway.waiting("ab", worker=first)
    follower = gateway.call("xaby")
    await until(lambda: gateway.worker.asked)
    assert gateway.worker.asked == ["xy"]
    first.free.set()
    await asyncio.gather(leader, follower)
    assert rows(follower) == b"xaby"
    assert follower.result().sources == Sources(hits=0, misses=2, shared=2)


async def test_two_calls_that_wait_for_each_other_both_come_to_an_end(gateway):
    first, second = Worker(), Worker()
    one = await gateway.waiting("ab", worker=first)
    other = await gateway.waiting("bc", worker=second)
    third = gateway.call("ca")
    second.free.set()
    await settle()
    first.free.set()
    await asyncio.gather(one, other, third)
    assert [rows(call) for call in (one, other, third)] == [b"ab", b"bc", b"ca"]
    assert (first.asked, second.asked, gateway.worker.asked) == (["ab"], ["c"], [])


async def test_what_is_kept_is_told_before_the_rest_is_computed(gateway):
    gateway.worker.free.set()
    await gateway.call("a")
    leader = await gateway.waiting("ab")
    assert (await gateway.call("a")).result.rows == b"a"
    leader.cancel()


async def test_an_interactive_call_does_not_wait_for_a_bulk_one(gateway):
    bulk = await gateway.waiting("a", lane=Lane.BULK)
    gateway.worker.free.set()
    assert (await gateway.call("a")).result.rows == b"a"
    assert gateway.worker.asked == ["a"]
    bulk.cancel()


async def test_where_a_client_has_left_one_of_those_who_wait_asks_for_all(gateway):
    leader = await gateway.waiting("abc")
    followers = [gateway.call("abc") for _ in range(5)]
    await settle()
    leader.cancel()
    await until(lambda: gateway.worker.asked)
    gateway.worker.free.set()
    await asyncio.gather(*followers)
    assert [rows(call) for call in followers] == [b"abc"] * 5
    assert gateway.worker.asked == ["abc"]


async def test_one_client_after_the_other_may_leave(gateway):
    leader = await gateway.waiting("a")
    followers = [gateway.call("a") for _ in range(4)]
    await settle()
    leader.cancel()
    for number in range(1, 4):
        await until(lambda number=number: len(gateway.worker.asked) == number)
        next(call for call in followers if not call.done()).cancel()
        await settle()
    gateway.worker.free.set()
    await asyncio.wait(followers)
    assert [call.cancelled() for call in followers].count(False) == 1
    assert next(rows(call) for call in followers if not call.cancelled()) == b"a"


async def test_a_call_that_gives_up_waiting_takes_nobody_along(gateway):
    first = Worker()
    leader = await gateway.waiting("a", worker=first)
    impatient, patient = gateway.call("a"), gateway.call("a")
    await settle()
    impatient.cancel()
    await settle()
    first.free.set()
    await asyncio.gather(leader, patient)
    assert impatient.cancelled()
    assert (rows(leader), rows(patient)) == (b"a", b"a")
    assert gateway.worker.asked == []


async def test_where_a_call_fails_those_who_wait_ask_for_themselves_all_at_once(gateway):
    broken = Worker(error=QueueFullError("full", retry_s=1))
    leader = await gateway.waiting("ab", worker=broken)
    followers = [gateway.call("ab") for _ in range(3)]
    await settle()
    broken.free.set()
    await until(lambda: len(gateway.worker.asked) == 3)
    gateway.worker.free.set()
    await asyncio.gather(*followers)
    assert [rows(call) for call in followers] == [b"ab"] * 3
    with pytest.raises(QueueFullError):
        await leader


async def test_those_who_were_let_down_are_waited_for_by_others(gateway):
    broken = Worker(error=QueueFullError("full", retry_s=1))
    leader = await gateway.waiting("a", worker=broken)
    follower = gateway.call("a")
    await settle()
    broken.free.set()
    await until(lambda: gateway.worker.asked)
    newcomer = gateway.call("a")
    await settle()
    gateway.worker.free.set()
    await asyncio.gather(follower, newcomer)
    assert gateway.worker.asked == ["a"]
    assert rows(newcomer) == b"a"
    assert isinstance(leader.exception(), QueueFullError)


async def test_nothing_stays_of_what_is_over(gateway):
    broken = Worker(error=QueueFullError("full", retry_s=1))
    calls = [await gateway.waiting("a", worker=broken), await gateway.waiting("b")]
    calls += [gateway.call("ab"), gateway.call("abc")]
    await settle()
    calls[1].cancel()
    broken.free.set()
    gateway.worker.free.set()
    await asyncio.wait(calls)
    assert gateway.answers._in_flight._answering == {}


@pytest.mark.parametrize("across_tenants", [False, True])
async def test_tenants_share_only_where_told_so(redis_url, across_tenants):
    async with gateway_at(redis_url, across_tenants=across_tenants) as gateway:
        leader = await gateway.waiting("a", tenant="one")
        follower = gateway.call("a", tenant="other")
        gateway.worker.free.set()
        if across_tenants:
            await settle()
            assert gateway.worker.asked == []
            leader.cancel()
        assert (await follower).result.rows == b"a"
        assert (await gateway.call("a", tenant="other")).sources.hits == 1
        assert (await gateway.call("a", tenant="third")).sources.hits == across_tenants
        leader.cancel()


async def test_a_model_that_is_not_named_is_computed_as_it_is(redis_url):
    async with gateway_at(redis_url, models=["another"]) as gateway:
        gateway.worker.free.set()
        calls = [gateway.call("aba"), gateway.call("aba")]
        await asyncio.gather(*calls)
        assert gateway.worker.asked == ["aba", "aba"]
        assert [call.result().sources for call in calls] == [None, None]


async def test_a_named_model_is_answered_from_what_it_computed_before(redis_url):
    async with gateway_at(redis_url, models=["another"]) as gateway:
        gateway.model = announcement("another", revision=f"r-{uuid.uuid4()}")
        gateway.worker.free.set()
        before = await gateway.call("ab")
        again = await gateway.call("bca")
        assert gateway.worker.asked == ["ab", "c"]
        assert (before.result.rows, again.result.rows) == (b"ab", b"bca")
        assert again.sources == Sources(hits=2, misses=1, shared=0)
        gateway.model = announcement("another", revision="r-another")
        assert (await gateway.call("ab")).sources == Sources(hits=0, misses=2, shared=0)


async def test_calls_are_answered_without_redis_and_that_is_logged_once(tmp_path, capfd):
    async with gateway_at(f"unix://{tmp_path}/nobody.sock") as gateway:
        gateway.worker.free.set()
        for _ in range(3):
            assert (await gateway.call("ab")).result.rows == b"ab"
    assert capfd.readouterr().out.count("cache cannot be read") == 1
