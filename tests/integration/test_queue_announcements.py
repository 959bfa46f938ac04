import json
import time
import uuid
from dataclasses import replace

import pytest

from jobqueue.announcements import (
    FORGET_AFTER_MS,
    Announcement,
    Liveness,
    announce,
    find_disagreement,
    read_sightings,
    read_tokenizer,
    tokenizer_digest,
)
from jobqueue.connection import connect, connect_async
from jobqueue.consumer import Consumer
from jobqueue.keys import MODELS, TOKENIZER_TTL_S, tokenizer_key
from jobqueue.messages import DecodeError, Operation

TOKENIZER = b'{"model": "a tokenizer"}'


@pytest.fixture
def client(any_redis_url):
    with connect(any_redis_url) as client:
        client.delete(MODELS)
        yield client
        client.delete(MODELS)


@pytest.fixture
async def gateway(any_redis_url):
    async with connect_async(any_redis_url) as client:
        yield client


def unexpected(problem: DecodeError) -> None:
    raise AssertionError(str(problem))


def announcement_of(name: str = "", tokenizer: bytes = TOKENIZER) -> Announcement:
    return Announcement(
        model_id=name or f"m-{uuid.uuid4()}",
        revision="1",
        operation=Operation.RERANK,
        native_dimensions=0,
        max_input_tokens=512,
        default_instruction="retrieve",
        tokenizer_digest=tokenizer_digest(tokenizer),
        attention_cost=0.25,
        wakeable=True,
        dtype="bfloat16",
        engine="packed",
    )


def stamps_and_fields(client, queue):
    """When it was first announced and when last, and the rest."""
    first_ms, last_ms, announced = client.hget(MODELS, queue).split(b" ", 2)
    return int(first_ms), int(last_ms), json.loads(announced)


def put(client, queue, first_ms, last_ms, fields):
    client.hset(MODELS, queue, f"{first_ms} {last_ms} {json.dumps(fields)}")


def renew(client, announcement, name, *, loading, lease_ms=60_000):
    Consumer(client, announcement.queue, name, lease_ms=lease_ms, max_jobs=1).renew(loading=loading)


async def test_an_announcement_arrives_as_it_was_made(client, gateway):
    announcement = announcement_of()
    announce(client, announcement, TOKENIZER)
    (sighting,) = await read_sightings(gateway, report=unexpected)
    assert sighting.announcement == announcement
    assert sighting.liveness is Liveness.ABSENT
    seconds, _ = client.time()
    assert abs(sighting.first_announced_ms - seconds * 1000) < 5000


async def test_nothing_announced_is_nothing_seen(client, gateway):
    assert await read_sightings(gateway, report=unexpected) == []


async def test_a_model_is_absent_loading_or_live_by_its_workers_leases(client, gateway):
    announcement = announcement_of()
    announce(client, announcement, TOKENIZER)

    async def liveness():
        return [sighting.liveness for sighting in await read_sightings(gateway, report=unexpected)]

    renew(client, announcement, "gone", loading=False, lease_ms=0)
    renew(client, announcement, "gone too", loading=True, lease_ms=0)
    assert await liveness() == [Liveness.ABSENT]
    renew(client, announcement, "a", loading=True)
    assert await liveness() == [Liveness.LOADING]
    renew(client, announcement, "b", loading=False)
    assert await liveness() == [Liveness.LIVE]


async def test_each_model_has_its_own_liveness(client, gateway):
    live, absent = announcement_of("live"), announcement_of("absent")
    for announcement in (live, absent):
        announce(client, announcement, TOKENIZER)
    renew(client, live, "a", loading=False)
    sightings = {
        sighting.announcement.queue: sighting.liveness for sighting in await read_sightings(gateway, report=unexpected)
    }
    assert sightings == {"live@1": Liveness.LIVE, "absent@1": Liveness.ABSENT}
    client.delete(f"{{q:{live.queue}}}:workers")


async def test_a_second_announcement_replaces_the_first_and_keeps_its_time(client, gateway):
    announcement = announcement_of()
    announce(client, announcement, TOKENIZER)
    _, last_ms, fields = stamps_and_fields(client, announcement.queue)
    put(client, announcement.queue, 1234, last_ms, fields)
    announce(client, replace(announcement, dtype="float32"), TOKENIZER)
    (sighting,) = await read_sightings(gateway, report=unexpected)
    assert (sighting.first_announced_ms, sighting.announcement.dtype) == (1234, "float32")


async def test_what_nobody_announced_for_a_day_is_removed(client, gateway):
    old, fresh = announcement_of("old"), announcement_of("fresh")
    for announcement in (old, fresh):
        announce(client, announcement, TOKENIZER)
    for announcement, spare_ms in ((old, -1000), (fresh, 60_000)):
        first_ms, last_ms, fields = stamps_and_fields(client, announcement.queue)
        put(client, announcement.queue, first_ms, last_ms - FORGET_AFTER_MS + spare_ms, fields)
    assert [sighting.announcement for sighting in await read_sightings(gateway, report=unexpected)] == [fresh]
    assert client.hkeys(MODELS) == [b"fresh@1"]


@pytest.mark.parametrize("field", ["version", "job_version"])
async def test_an_announcement_of_another_version_is_skipped_and_ages_like_others(client, gateway, field):
    mine, later = announcement_of("mine"), announcement_of("later")
    for announcement in (mine, later):
        announce(client, announcement, TOKENIZER)
    first_ms, last_ms, fields = stamps_and_fields(client, "later@1")
    put(client, "later@1", first_ms, last_ms, fields | {field: 2, "a later field": 1})
    assert [sighting.announcement for sighting in await read_sightings(gateway, report=unexpected)] == [mine]
    assert client.hexists(MODELS, "later@1")
    put(client, "later@1", first_ms, last_ms - FORGET_AFTER_MS - 1000, {"version": 9})
    await read_sightings(gateway, report=unexpected)
    assert client.hkeys(MODELS) == [b"mine@1"], "it ages, though nobody here can read it"


async def test_what_cannot_be_read_is_reported_and_harms_nobody_else(client, gateway):
    mine, problems = announcement_of("mine"), []
    announce(client, mine, TOKENIZER)
    client.hset(MODELS, "someone", "else")
    assert [sighting.announcement for sighting in await read_sightings(gateway, report=problems.append)] == [mine]
    (problem,) = problems
    assert isinstance(problem, DecodeError)
    assert "not a model announcement" in str(problem)
    stamps, last_ms, _ = client.hget(MODELS, "someone").split(b" ")
    assert stamps == last_ms, "it is stamped when it is first seen"
    client.hset(MODELS, "someone", f"1 {int(last_ms) - FORGET_AFTER_MS - 1000} else")
    await read_sightings(gateway, report=unexpected)
    assert client.hkeys(MODELS) == [b"mine@1"]


async def test_a_tokenizer_is_read_by_its_digest(client, gateway):
    tokenizer = uuid.uuid4().bytes * 1000
    announcement = announcement_of(tokenizer=tokenizer)
    assert await read_tokenizer(gateway, announcement.tokenizer_digest) is None
    announce(client, announcement, tokenizer)
    assert await read_tokenizer(gateway, announcement.tokenizer_digest) == tokenizer


def test_a_tokenizers_life_is_prolonged_by_each_announcement(client):
    announcement = announcement_of()
    key = tokenizer_key(announcement.tokenizer_digest)
    announce(client, announcement, TOKENIZER)
    client.expire(key, 10)
    announce(client, announcement, TOKENIZER)
    assert TOKENIZER_TTL_S - 5 < client.ttl(key) <= TOKENIZER_TTL_S
    assert client.get(key) == TOKENIZER


def test_live_workers_of_one_queue_must_announce_the_same(client):
    mine = announcement_of()
    assert find_disagreement(client, mine) is None
    announce(client, mine, TOKENIZER)
    other = replace(mine, max_input_tokens=64, dtype="float32")
    assert find_disagreement(client, other) is None, "nobody lives who says otherwise"
    renew(client, mine, "a", loading=False)
    assert find_disagreement(client, mine) is None
    assert find_disagreement(client, other) == "max_input_tokens 64, a live worker has 512"


def test_a_worker_announces_again_where_memory_is_full(client):
    announcement = announcement_of()
    announce(client, announcement, TOKENIZER)
    before_ms = stamps_and_fields(client, announcement.queue)[1]
    time.sleep(0.002)  # the stamps are in ms
    client.config_set("maxmemory", "1")
    try:
        announce(client, announcement, TOKENIZER)
    finally:
        client.config_set("maxmemory", "0")
    assert stamps_and_fields(client, announcement.queue)[1] > before_ms
