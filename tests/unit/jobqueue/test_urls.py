import pytest

from jobqueue.connection import connect, connect_async, is_cluster
from jobqueue.errors import UnsuitableServerError
from jobqueue.urls import Mode, parse_server_url

ELSEWHERE = ("redis://h", "rediss://h:1/2", "unix:///run/redis.sock")


@pytest.mark.parametrize("url", ELSEWHERE)
def test_a_url_of_redis_py_is_one_server(url):
    found = parse_server_url(url)
    assert (found.mode, found.addresses, found.service) == (Mode.STANDALONE, (), "")
    assert found.tls is url.startswith("rediss")


def test_sentinels_are_named_one_by_one_and_have_a_user_of_their_own():
    found = parse_server_url(
        "rediss+sentinel://me:p%40ss%2F@a:1,[::1]:2,c/main/3"
        "?ssl_ca_certs=/ca.crt&ssl_check_hostname=no&sentinel_username=you&sentinel_password=s%40"
    )
    assert found.mode is Mode.SENTINEL
    assert found.tls
    assert found.addresses == (("a", 1), ("::1", 2), ("c", 26379))
    assert found.service == "main"
    shared = {"ssl_ca_certs": "/ca.crt", "ssl_check_hostname": False}
    assert found.options == {**shared, "username": "me", "password": "p@ss/", "db": 3}
    assert found.sentinel_options == {**shared, "username": "you", "password": "s@", "db": 0}


def test_a_password_of_the_master_is_not_told_to_sentinels():
    found = parse_server_url("redis+sentinel://:secret@a:1/main")
    assert "secret" not in str(found.sentinel_options)


def test_nodes_of_a_cluster_are_named_one_by_one():
    found = parse_server_url("redis+cluster://me:secret@a,b:7001/0?socket_connect_timeout=1.5")
    assert (found.mode, found.tls) == (Mode.CLUSTER, False)
    assert found.addresses == (("a", 6379), ("b", 7001))
    assert found.options == {"username": "me", "password": "secret", "socket_connect_timeout": 1.5}


@pytest.mark.parametrize("build", [connect, connect_async])
@pytest.mark.parametrize("url", [*ELSEWHERE, "redis+sentinel://h/main", "redis+cluster://h", "rediss+cluster://h,i:1"])
def test_a_client_is_made_of_each_form(build, url):
    assert is_cluster(build(url)) is ("cluster" in url)


@pytest.mark.parametrize("build", [connect, connect_async])
@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://:secret@localhost",
        "http+sentinel://:secret@localhost/main",
        "redis+other://:secret@localhost",
        "unix+cluster:///secret",
        "redis://:secret@",
        "redis://:secret@localhost:port",
        "redis://:secret@localhost/database",
        "redis://:sec#ret@localhost",
        "redis+sentinel://:secret@a:1,b:2",
        "redis+sentinel://:secret@a:1,b:2/",
        "redis+sentinel://:secret@a:1,/main",
        "redis+sentinel://:secret@a:1/main/database",
        "redis+cluster://:secret@a:port",
        "redis+cluster://:secret@a/1",
        "redis+cluster://:secret@a?db=1",
        "redis+cluster://:secret@/0",
    ],
)
def test_what_is_no_url_of_a_redis_server_is_refused_without_its_password(build, url):
    with pytest.raises(
        UnsuitableServerError, match=r"not a URL of a Redis server: redis://.*redis\+cluster://"
    ) as found:
        build(url)
    assert "sec" not in str(found.value)


@pytest.mark.parametrize("build", [connect, connect_async])
@pytest.mark.parametrize("form", ["redis://h", "redis+sentinel://h/main", "redis+cluster://h", "rediss+cluster://h"])
@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("retry_on_timeout=yes", "may not set retry_on_timeout"),
        ("protocol=3", "may not set protocol"),
        ("decode_responses=1", "may not set decode_responses"),
        ("socket_timeout=1&max_connections=9", "may not set max_connections, socket_timeout"),
        ("secret=1", "options that redis-py does not know"),
    ],
)
def test_an_option_that_is_ours_or_nobodys_is_refused(build, form, option, reason):
    with pytest.raises(UnsuitableServerError, match=reason) as found:
        build(f"{form}?{option}")
    assert "secret" not in str(found.value)
