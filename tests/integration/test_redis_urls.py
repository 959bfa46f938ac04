"""Every kind of URL, against real servers."""

import asyncio
import uuid
from dataclasses import replace
from urllib.parse import quote

import pytest
import redis

from jobqueue.announcements import Announcement, Liveness, announce, find_disagreement, read_sightings, tokenizer_digest
from jobqueue.connection import (
    connect,
    connect_async,
    follow_master,
    follow_master_async,
    forget_connections,
    forget_connections_async,
    is_cluster,
    probe,
    probe_async,
    redis_border,
)
from jobqueue.consumer import Consumer
from jobqueue.errors import QueueAwayError, UnsuitableServerError
from jobqueue.evaluate import evaluate, evaluate_async
from jobqueue.keys import MODELS, QueueKeys
from jobqueue.messages import Operation
from jobqueue.server import ServerInfo
from jobqueue.urls import Mode
from tests.support.queues import WorkerDouble, echo, job_of, producer_at, submission
from tests.support.redis_servers import (
    cluster,
    embedded_binary,
    free_ports,
    make_certificate,
    own_binary,
    redis_server,
    tcp_server,
    watched_servers,
)

PASSWORD = "p@ss/w:rd#%41"  # nothing of it may be taken for a part of the URL
TOKENIZER = b'{"model": "a tokenizer"}'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def standalone(certificate):
    """One server: its plain port, its TLS port, and three users."""
    plain, tls = free_ports(2)
    with tcp_server(plain, "--tls-port", str(tls), "--save", "", *certificate.server_options) as url:
        with redis.Redis.from_url(url) as client:
            client.acl_setuser("worker", enabled=True, passwords=[f"+{PASSWORD}"], keys="*", categories=["+@all"])
            client.acl_setuser("beggar", enabled=True, nopass=True, keys="*", commands=["+get", "+client"])
            client.execute_command("ACL", "SETUSER", "tenant", "on", "nopass", "~*", "+@all", "-config")
        yield plain, tls


@pytest.fixture(scope="module")
def watched():
    with watched_servers(PASSWORD) as found:
        yield found


@pytest.fixture(scope="module")
def masters(certificate):
    with cluster(certificate) as found:
        yield found


async def check_a_job_goes_through(url):
    queue = f"m-{uuid.uuid4()}@1"
    job = job_of(5, 7)
    async with producer_at(url) as producer:
        with WorkerDouble(url, queue):
            deadline = asyncio.get_running_loop().time() + 10
            result = await producer.submit(submission(queue, job, deadline=deadline))
    assert result.rows == echo(job).rows


async def check_server(url, mode) -> ServerInfo:
    """Both clients find the same server, and use it."""
    key = f"{{{uuid.uuid4()}}}:a"
    with connect(url) as client:
        found = probe(client)
        client.set(key, "1", ex=60)
    async with connect_async(url) as client:
        assert await probe_async(client) == found
        assert await client.get(key) == b"1"
    assert found.mode is mode
    return found


async def refusal_of(url) -> str:
    """What is said at start by either client, which must be the same."""
    with connect(url) as client, pytest.raises(UnsuitableServerError) as caught:
        probe(client)
    async with connect_async(url) as client:
        with pytest.raises(UnsuitableServerError) as caught_too:
            await probe_async(client)
    assert str(caught.value) == str(caught_too.value)
    return str(caught.value)


async def test_a_unix_socket():
    with redis_server(embedded_binary()) as url:
        found = await check_server(url, Mode.STANDALONE)
        assert (found.kind, found.version[:4], found.persistence) == ("Redis", "6.2.", "none")
        assert "supported as the embedded default only" in found.warnings[0]
        await check_a_job_goes_through(url)


async def test_a_server_is_described(standalone):
    found = await check_server(f"redis://127.0.0.1:{standalone[0]}/3", Mode.STANDALONE)
    assert (found.kind, found.persistence, found.warnings) == ("Redis", "none", ())


@pytest.mark.parametrize(("options", "persistence"), [(["--appendonly", "yes"], "aof"), (["--save", "60 1"], "rdb")])
async def test_what_a_server_keeps_is_said(options, persistence):
    with redis_server(own_binary(), *options) as url:
        assert (await check_server(url, Mode.STANDALONE)).persistence == persistence


async def test_a_user_with_a_password(standalone):
    url = f"redis://worker:{quote(PASSWORD, safe='')}@127.0.0.1:{standalone[0]}"
    await check_server(url, Mode.STANDALONE)
    await check_a_job_goes_through(url)


@pytest.mark.parametrize(("user", "reason"), [("worker:wrong", "username-password"), ("beggar:x", "no permissions")])
async def test_a_wrong_password_or_too_few_rights_are_refused_at_start(standalone, user, reason):
    assert reason in await refusal_of(f"redis://{user}@127.0.0.1:{standalone[0]}")


async def test_a_server_that_keeps_its_configuration_to_itself_is_taken(standalone):
    found = await check_server(f"redis://tenant:x@127.0.0.1:{standalone[0]}", Mode.STANDALONE)
    assert found.persistence == "unknown"


async def test_tls(standalone, certificate):
    url = f"rediss://127.0.0.1:{standalone[1]}?ssl_ca_certs={certificate.certificate}"
    await check_server(url, Mode.STANDALONE)
    await check_a_job_goes_through(url)


async def test_a_server_whose_certificate_nobody_knows_is_not_talked_to(standalone):
    with connect(f"rediss://127.0.0.1:{standalone[1]}") as client, pytest.raises(QueueAwayError, match="certificate"):
        probe(client)


def sentinel_url(watched, *, sentinel_password=PASSWORD, password=PASSWORD):
    user = f":{quote(password, safe='')}"
    options = f"sentinel_password={quote(sentinel_password, safe='')}"
    dead = free_ports(1)[0]
    return f"redis+sentinel://{user}@127.0.0.1:{dead},127.0.0.1:{watched.sentinel}/main/0?{options}"


async def test_a_master_is_found_through_its_sentinels(watched):
    url = sentinel_url(watched)
    await check_server(url, Mode.SENTINEL)
    await check_a_job_goes_through(url)


@pytest.mark.parametrize("wrong", ["sentinel_password", "password"])
async def test_a_wrong_password_of_sentinel_or_master_is_refused_at_start(watched, wrong):
    assert "invalid" in await refusal_of(sentinel_url(watched, **{wrong: "wrong"}))


def test_a_master_that_no_sentinel_knows_is_waited_for(watched):
    url = sentinel_url(watched).replace("/main/", "/other/")
    said = r"no Sentinel names a master of 'other': .*No such master"
    with connect(url) as client, pytest.raises(QueueAwayError, match=said):
        probe(client)


async def test_a_sentinel_is_not_taken_for_a_server(watched):
    url = f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{watched.sentinel}"
    assert "runs as 'sentinel'" in await refusal_of(url)


async def test_a_master_is_left_that_sentinel_left_or_that_was_demoted(watched):
    """All clients hold connections to it. Before it is demoted it takes writes that will be forgotten."""
    url = sentinel_url(watched)
    with connect(url) as client, connect(url) as slow_client:
        async with connect_async(url) as gateway, connect_async(url) as slow_gateway:
            old = watched.master
            assert port_after_writing(client) == port_after_writing(slow_client) == old
            assert await port_after_writing_async(gateway) == await port_after_writing_async(slow_gateway) == old
            watched.fail_over()
            follow_master(client)
            await follow_master_async(gateway)
            assert port_after_writing(client) == await port_after_writing_async(gateway) == watched.replica
            watched.demote()
            for _ in range(2):  # first the demoted one refuses the script
                ports = {port_after_writing(slow_client), await port_after_writing_async(slow_gateway)}
            assert ports == {watched.replica}


WRITE = "return redis.call('SET', KEYS[1], '1')"


def port_after_writing(client):
    """Of the server that a script wrote to, or None where that is away."""
    try:
        with redis_border():
            client.eval(WRITE, 1, "a")
            return client.info("server")["tcp_port"]
    except QueueAwayError:
        forget_connections(client)
        return None


async def port_after_writing_async(client):
    try:
        with redis_border():
            await client.eval(WRITE, 1, "a")
            return (await client.info("server"))["tcp_port"]
    except QueueAwayError:
        await forget_connections_async(client)
        return None


async def test_a_cluster(masters):
    found = await check_server(masters.url, Mode.CLUSTER)
    assert (found.kind, found.persistence, found.warnings) == ("Redis", "none", ())


async def test_a_job_goes_through_a_cluster(masters):
    for _ in range(4):  # queues on either server
        await check_a_job_goes_through(masters.url)


async def test_a_cluster_with_tls(masters, certificate):
    one = f"rediss+cluster://127.0.0.1:{masters.tls[0]}?ssl_ca_certs={certificate.certificate}"
    await check_server(one, Mode.CLUSTER)


async def test_every_server_of_a_cluster_is_checked(masters):
    with redis.Redis(port=masters.plain[1]) as second:
        second.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert "'allkeys-lru'" in await refusal_of(masters.url)
        finally:
            second.config_set("maxmemory-policy", "noeviction")


async def test_a_wrong_password_of_a_cluster_is_refused_at_start(masters):
    assert "username-password" in await refusal_of(masters.url.replace("://", "://worker:wrong@"))


async def test_a_cluster_and_a_server_are_not_taken_for_each_other(masters, standalone):
    assert "runs as 'cluster'" in await refusal_of(f"redis://127.0.0.1:{masters.plain[0]}")
    assert "it is no Cluster" in await refusal_of(f"redis+cluster://127.0.0.1:{standalone[0]}")


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel"])
async def test_a_client_is_made_before_its_server_is_there(scheme):
    url = f"{scheme}://127.0.0.1:{free_ports(1)[0]}" + ("/main" if scheme == "redis+sentinel" else "")
    with connect(url) as client, pytest.raises(QueueAwayError):
        probe(client)
    async with connect_async(url) as client:
        with pytest.raises(QueueAwayError):
            await probe_async(client)
        await forget_connections_async(client)


def announcement_of(name: str) -> Announcement:
    return Announcement(
        model_id=name,
        revision="1",
        operation=Operation.RERANK,
        native_dimensions=0,
        max_input_tokens=512,
        default_instruction="retrieve",
        tokenizer_digest=tokenizer_digest(TOKENIZER),
        attention_cost=0.25,
        wakeable=True,
        dtype="bfloat16",
        engine="packed",
    )


async def test_models_of_a_cluster_are_seen_wherever_their_queues_live(masters):
    announcements = [announcement_of(f"m-{number}") for number in range(6)]
    with connect(masters.url) as client:
        servers = {client.get_node_from_key(f"{{q:{found.queue}}}:workers").port for found in announcements}
        assert servers == set(masters.plain)
        for announcement in announcements:
            announce(client, announcement, TOKENIZER)
            Consumer(client, announcement.queue, "w", lease_ms=60_000, max_jobs=1).renew(loading=False)
        other = replace(announcements[0], max_input_tokens=64)
        assert find_disagreement(client, other) == "max_input_tokens 64, a live worker has 512"
    async with connect_async(masters.url) as gateway:
        assert is_cluster(gateway)
        sightings = await read_sightings(gateway, report=pytest.fail)
    assert {found.announcement.queue: found.liveness for found in sightings} == {
        found.queue: Liveness.LIVE for found in announcements
    }


async def test_a_server_of_a_cluster_that_is_silent_hides_its_own_queues_only(masters):
    announcements = [announcement_of(f"s-{number}") for number in range(6)]
    with connect(masters.url) as client, redis.Redis(port=masters.plain[1]) as second:
        homes = {found.queue: client.get_node_from_key(f"{{q:{found.queue}}}:lo").port for found in announcements}
        if client.get_node_from_key(MODELS).port == masters.plain[1]:
            pytest.fail("the announcements themselves are to be on the server that answers")
        for announcement in announcements:
            announce(client, announcement, TOKENIZER)
            Consumer(client, announcement.queue, "w", lease_ms=60_000, max_jobs=1).renew(loading=False)
        async with connect_async(masters.url) as gateway:
            await read_sightings(gateway, report=pytest.fail)
            second.client_pause(1200, all=True)
            sightings = await read_sightings(gateway, report=pytest.fail)
            seen = {found.announcement.queue: found.liveness for found in sightings}
            for queue, port in homes.items():
                assert seen[queue] is (Liveness.ABSENT if port == masters.plain[1] else Liveness.LIVE)
            again = await read_sightings(gateway, report=pytest.fail)
            assert {found.liveness for found in again if found.announcement.queue in homes} == {Liveness.LIVE}


async def test_a_slot_that_moves_is_away_until_it_has_moved(masters):
    """Half-way neither server runs a script on several keys of which some do not exist."""
    keys = QueueKeys(f"m-{uuid.uuid4()}@1").of_script()
    with connect(masters.url) as client:
        async with connect_async(masters.url) as gateway:
            assert evaluate(client, "liveness", keys) == await evaluate_async(gateway, "liveness", keys) == 0
            steps = masters.moving(client.keyslot(keys[0]))
            next(steps)
            assert client.get(keys[0]) is await gateway.get(keys[0]) is None, "one key is found on the other server"
            with pytest.raises(QueueAwayError), redis_border():
                evaluate(client, "liveness", keys)
            with pytest.raises(QueueAwayError), redis_border():
                await evaluate_async(gateway, "liveness", keys)
            next(steps)
            assert evaluate(client, "liveness", keys) == await evaluate_async(gateway, "liveness", keys) == 0


async def test_a_clusters_topology_is_learnt_anew_from_the_urls_nodes(masters):
    with connect(masters.url) as client:
        async with connect_async(masters.url) as gateway:
            probe(client)
            await probe_async(gateway)
            for found in (client, gateway):
                found.nodes_manager.slots_cache.clear()
                found.nodes_manager.startup_nodes.clear()  # as if all that was found had moved
            forget_connections(client)
            await forget_connections_async(gateway)
            assert client.get("a") is await gateway.get("a") is None
            assert len(client.get_primaries()) == len(gateway.get_primaries()) == 2
