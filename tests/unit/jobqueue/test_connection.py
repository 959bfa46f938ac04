import pytest
import redis

from jobqueue.connection import check_server, connect, connect_async, is_away
from jobqueue.errors import UnsuitableServerError


def info(version="7.2.4", policy="noeviction"):
    return {"redis_version": version, "maxmemory_policy": policy}


@pytest.mark.parametrize("version", ["6.2.14", "6.2", "7.0.15", "8.6.1", "9.1.0", "10.0.0"])
def test_a_server_that_keeps_its_jobs_is_taken(version):
    check_server(info(version))


@pytest.mark.parametrize("version", ["2.8.24", "5.0.14", "6.0.16", "6.1.99"])
def test_a_server_that_is_too_old_is_refused(version):
    with pytest.raises(UnsuitableServerError, match=f"Redis {version} is too old: 6.2 or newer is needed"):
        check_server(info(version))


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_a_server_that_may_drop_jobs_is_refused(policy):
    with pytest.raises(UnsuitableServerError, match=f"maxmemory-policy is '{policy}'.*set it to noeviction"):
        check_server(info(policy=policy))


@pytest.mark.parametrize("build", [connect, connect_async])
def test_what_is_no_url_of_a_redis_server_is_refused_without_its_password(build):
    for url in ("http://:secret@localhost", "redis://:secret@localhost:port", "localhost:6379"):
        with pytest.raises(UnsuitableServerError, match="not a URL of a Redis server") as caught:
            build(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "outcome",
    [
        redis.ConnectionError(),
        redis.BusyLoadingError(),
        redis.ReadOnlyError(),
        redis.OutOfMemoryError(),
        redis.ResponseError("@user_script: 8: -OOM command not allowed when used memory > 'maxmemory'."),
        redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk"),
        redis.ResponseError("BUSY Redis is busy running a script"),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write"),
        redis.exceptions.MasterDownError("Link with MASTER is down"),
        OSError(),
    ],
)
def test_a_server_that_cannot_answer_now_is_away(outcome):
    assert is_away(outcome)


@pytest.mark.parametrize(
    "outcome",
    [
        redis.ResponseError("WRONGTYPE"),
        redis.ResponseError("BUSYGROUP name exists"),
        ValueError("-OOM"),
        "-OOM",
        1,
        None,
    ],
)
def test_what_is_no_error_or_a_mistake_is_not_away(outcome):
    assert not is_away(outcome)
