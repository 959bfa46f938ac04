"""Answers that are kept in Redis: what is read back, how long, and in how much memory."""

import asyncio
import contextlib
import random
import time
import uuid

import pytest
import redis
import redis.asyncio
from redis.crc import key_slot

from jobqueue.cache import AnswerCache, CacheLimits
from jobqueue.connection import connect, connect_async
from jobqueue.errors import QueueAwayError
from jobqueue.keys import QueueKeys
from tests.support.queues import own_queue, until
from tests.support.redis_servers import binaries, cluster, make_certificate, redis_server

LIMITS = CacheLimits(max_bytes=2**20, lifetime_ms=3_600_000)
ENTRY_BYTES = 320 + 8 * 5 / 4  # what an empty answer counts for


class OwnCache:
    """A cache that no other test uses, and everything that is in it."""

    def __init__(self, client: redis.Redis, async_client: redis.asyncio.Redis, limits: CacheLimits) -> None:
        self.queue = f"m-{uuid.uuid4()}@1"
        self.keys = QueueKeys(self.queue).of_cache
        self.reports: list[Exception] = []
        self.client = client
        self._redis = async_client
        self.cache = self.another(limits)

    def another(self, limits: CacheLimits) -> AnswerCache:
        """Another gateway's, of the same queue."""
        return AnswerCache(self._redis, self.queue, limits, report=self.reports.append)

    async def read(self, *digests: bytes) -> dict[bytes, bytes]:
        return dict(await self.cache.read(digests))

    async def keep(self, answers: dict[bytes, bytes]) -> None:
        """And wait until they are: what is asked after it travels after it."""
        self.cache.keep(answers)
        await self.cache.read([b"nothing"])

    def digests(self) -> set[bytes]:
        """Those that are kept, which all keys must agree on."""
        values, uses, num_bytes = self.keys
        kept = self.client.hgetall(values)
        assert kept.keys() == set(self.client.zrange(uses, 0, -1))
        assert int(self.client.get(num_bytes) or 0) == sum(-(-len(value) * 5 // 4) + 320 for value in kept.values())
        return set(kept)

    def memory_bytes(self) -> int:
        return sum(self.client.memory_usage(key, samples=0) or 0 for key in self.keys)

    def fill_memory(self) -> None:
        """From now on the server has no memory for anything new; what it needs for a while does not matter."""
        self.client.config_set("maxmemory", self.client.info("memory")["used_memory"] - 200_000)

    def tick(self) -> None:
        """Let the server's clock go on: what is used in the same ms is used at the same time."""
        now = self.client.time()
        while (later := self.client.time())[0] == now[0] and later[1] - now[1] < 2000:
            pass


@contextlib.asynccontextmanager
async def own_cache(url: str, limits: CacheLimits = LIMITS):
    async with connect_async(url) as async_client:
        with connect(url) as client:
            yield OwnCache(client, async_client, limits)


@pytest.fixture
async def own(any_redis_url):
    async with own_cache(any_redis_url) as found:
        yield found


def some_digests(number: int) -> list[bytes]:
    return [random.randbytes(32) for _ in range(number)]


async def test_what_is_kept_is_read_and_nothing_else(own):
    answers = {b"a" * 32: b"\0", b"b" * 32: bytes(range(256)) * 16}
    await own.keep(answers)
    assert await own.read(b"c" * 32, *answers) == answers
    assert own.digests() == answers.keys()


async def test_nothing_is_kept_from_the_start(own):
    assert await own.read(*some_digests(3)) == {}
    assert not any(own.client.exists(key) for key in own.keys)


async def test_another_gateway_reads_it_and_another_queue_does_not(own, any_redis_url):
    await own.keep({b"a": b"answer"})
    assert await own.another(LIMITS).read([b"a"]) == {b"a": b"answer"}
    async with own_cache(any_redis_url) as other:
        assert await other.read(b"a") == {}


async def test_a_cache_lives_where_its_queue_does(own):
    keys = QueueKeys(own.queue)
    assert len({key_slot(key.encode()) for key in [*keys.of_cache, keys.depth]}) == 1


async def test_a_cluster_keeps_answers_too(tmp_path):
    with cluster(make_certificate(tmp_path)) as ports:
        async with connect_async(ports.url) as client:
            for number in range(4):  # on either server
                cache = AnswerCache(client, f"m{number}@1", LIMITS, report=pytest.fail)
                cache.keep({b"a": b"answer"})
                assert await cache.read([b"a", b"b"]) == {b"a": b"answer"}


async def test_a_large_call_is_read_and_kept_as_a_whole(own):
    answers = {digest: digest[:4] for digest in some_digests(1000)}
    await own.keep(answers)
    assert await own.read(*answers) == answers


async def test_an_answer_that_is_kept_again_counts_once(own):
    await own.keep({b"a": b"an answer of some length"})
    await own.keep({b"a": b"another"})
    assert own.digests() == {b"a"}
    assert await own.read(b"a") == {b"a": b"another"}


async def test_an_answer_lives_as_long_as_it_is_told_however_often_it_is_read(any_redis_url):
    async with own_cache(any_redis_url, CacheLimits(max_bytes=2**20, lifetime_ms=100)) as own:
        kept_from = time.monotonic()
        await own.keep({b"a": b"answer"})
        while await own.read(b"a"):  # noqa: ASYNC110 - what it waits for happens in Redis
            await asyncio.sleep(0.005)
        assert time.monotonic() - kept_from >= 0.099  # to a ms
        await until(lambda: not any(own.client.exists(key) for key in own.keys))


async def test_an_answer_that_is_over_is_missing_while_others_live(own):
    short = own.another(CacheLimits(max_bytes=2**20, lifetime_ms=20))
    kept = {}
    while len(kept) < 2:  # a busy machine may take longer for the second one than the first one lives
        short.keep({b"short": b"answer"})
        await short.read([b"nothing"])
        await own.keep({b"long": b"answer"})
        kept = await own.read(b"short", b"long")
    while b"short" in await own.read(b"short", b"long"):  # noqa: ASYNC110 - likewise
        await asyncio.sleep(0.005)
    assert await own.read(b"short", b"long") == {b"long": b"answer"}


async def test_those_not_used_for_longest_make_room(any_redis_url):
    three = CacheLimits(max_bytes=int(3 * (ENTRY_BYTES + 125)), lifetime_ms=3_600_000)
    async with own_cache(any_redis_url, three) as own:
        for digest in (b"a", b"b", b"c"):
            await own.keep({digest: bytes(100)})
            own.tick()
        assert own.digests() == {b"a", b"b", b"c"}
        assert await own.read(b"a") == {b"a": bytes(100)}
        own.tick()
        await own.keep({b"d": bytes(100)})
        assert own.digests() == {b"a", b"c", b"d"}
        await own.keep({b"e": bytes(600)})
        assert own.digests() == {b"d", b"e"} or own.digests() == {b"e"}


async def test_a_cache_never_has_more_than_its_memory(any_redis_url):
    limits = CacheLimits(max_bytes=2**20, lifetime_ms=3_600_000)
    async with own_cache(any_redis_url, limits) as own:
        empty_bytes = own.memory_bytes()
        for size in (4, 4096, 1000, 128, 16_384, 4096, 4):
            await own.keep({digest: bytes(size) for digest in some_digests(2000 if size < 1000 else 300)})
            assert own.digests()
            assert own.memory_bytes() - empty_bytes <= limits.max_bytes * 1.1  # tables stay large for a while
        assert own.memory_bytes() > limits.max_bytes / 3


async def test_what_would_not_fit_alone_is_not_kept(any_redis_url):
    async with own_cache(any_redis_url, CacheLimits(max_bytes=1000, lifetime_ms=3_600_000)) as own:
        await own.keep({b"a": bytes(1000)})
        assert own.digests() == set()


async def test_a_bound_that_is_lowered_is_met_in_steps(own):
    await own.keep(dict.fromkeys(some_digests(2000), b"1234"))
    lower = own.another(CacheLimits(max_bytes=100 * 335, lifetime_ms=3_600_000))
    lower.keep({b"new": b"1234"})
    await lower.read([b"nothing"])
    assert len(own.digests()) == 1500  # no script drops more at once; the new one had no room yet
    for _ in range(3):
        lower.keep({b"new": b"1234"})
        await lower.read([b"nothing"])
    assert len(own.digests()) == 100
    assert await lower.read([b"new"]) == {b"new": b"1234"}


async def test_its_keys_agree_whatever_happens(any_redis_url):
    """Repeats, drops and expiries at random."""
    chance = random.Random(5)
    async with own_cache(any_redis_url, CacheLimits(max_bytes=20_000, lifetime_ms=3_600_000)) as own:
        for _ in range(100):
            picked = [bytes([chance.randrange(80)]) for _ in range(chance.randrange(1, 20))]
            if chance.random() < 0.5:
                found = await own.read(*picked)
                assert all(set(answer) == {digest[0]} for digest, answer in found.items())
            else:
                await own.keep({digest: digest * chance.randrange(1, 900) for digest in picked})
            own.digests()


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_a_key_that_is_lost_alone_does_no_harm(any_redis_url, lost):
    limits = CacheLimits(max_bytes=20 * 335, lifetime_ms=3_600_000)
    async with own_cache(any_redis_url, limits) as own:
        await own.keep(dict.fromkeys(some_digests(20), b"1234"))
        own.client.delete(own.keys[lost])
        news = dict.fromkeys(some_digests(40), b"1234")
        for digest, answer in news.items():
            await own.keep({digest: answer})
        assert len(await own.read(*news)) >= 10


@pytest.mark.parametrize("value", [b"", b"short", b"\0" * 8, b"\xff" * 8])
async def test_a_value_that_cannot_be_one_is_missing(own, value):
    own.client.hset(own.keys[0], b"a", value)
    assert await own.read(b"a") == {}
    assert own.reports == []


async def test_what_cannot_be_read_is_missing_and_reported_once(own, monkeypatch):
    monkeypatch.setattr("jobqueue.cache.ASK_AGAIN_S", 0.0)
    own.client.set(own.keys[0], "not a hash")
    for _ in range(3):
        await own.keep({b"a": b"answer"})
        assert await own.read(b"a") == {}
    assert len(own.reports) == 1
    own.client.delete(own.keys[0])
    assert await own.read(b"a") == {}
    await own.keep({b"a": b"answer"})
    assert await own.read(b"a") == {b"a": b"answer"}
    own.client.set(own.keys[0], "not a hash")
    assert await own.read(b"a") == {}
    assert len(own.reports) == 2


async def test_a_cache_that_is_away_is_not_asked_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr("jobqueue.cache.ASK_AGAIN_S", 1000.0)
    reports = []
    async with connect_async(f"unix://{tmp_path}/nobody.sock") as client:
        cache = AnswerCache(client, "m@1", LIMITS, report=reports.append)
        assert await cache.read([b"a"]) == {}
        monkeypatch.setattr(cache._pipeline, "send", None)  # or this would be called
        assert await cache.read([b"a"]) == {}
        cache.keep({b"a": b"answer"})
    (error,) = reports
    assert isinstance(error, QueueAwayError)


async def test_a_cache_that_hangs_is_missing_after_a_moment(own, monkeypatch):
    monkeypatch.setattr("jobqueue.cache.REPLY_TIMEOUT_S", 0.05)
    monkeypatch.setattr("jobqueue.cache.ASK_AGAIN_S", 0.0)
    await own.keep({b"a": b"answer"})
    own.client.client_pause(60_000, all=False)
    assert await own.read(b"a") == {}
    own.client.client_unpause()
    monkeypatch.setattr("jobqueue.cache.REPLY_TIMEOUT_S", 10.0)
    assert await own.read(b"a") == {b"a": b"answer"}


@pytest.mark.parametrize("binary", binaries(), ids=["embedded", "own"][: len(binaries())])
async def test_a_full_server_gets_its_memory_back_before_the_queue_is_refused_for_long(binary):
    with redis_server(binary) as url, own_queue(url) as queue:
        async with own_cache(url, CacheLimits(max_bytes=2**30, lifetime_ms=3_600_000)) as own:
            answers = {digest: bytes(1000) for digest in some_digests(1200)}
            await own.keep(answers)
            own.fill_memory()
            newest = list(answers)[-1]
            assert await own.read(newest) == {newest: bytes(1000)}  # a hit also on a full server
            assert len(own.digests()) == 700
            own.fill_memory()
            await own.keep({b"new": bytes(1000)})
            assert b"new" not in own.digests()
            assert len(own.digests()) <= 200
            assert queue.admit(10)
            assert own.reports == []
            own.client.config_set("maxmemory", 0)
