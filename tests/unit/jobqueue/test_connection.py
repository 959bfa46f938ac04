import pytest
import redis
from redis.exceptions import RedisClusterException
from redis.sentinel import MasterNotFoundError

from jobqueue.connection import is_away
from jobqueue.errors import UnsuitableServerError
from jobqueue.server import describe_server, weakest
from jobqueue.urls import Mode


def described(version="7.2.4", policy="noeviction", *, mode=Mode.STANDALONE, save="", **info):
    found = {"redis_version": version, "maxmemory_policy": policy, "redis_mode": "standalone", "aof_enabled": 0}
    return describe_server(found | info, mode=mode, save=save)


@pytest.mark.parametrize("version", ["7.0.15", "8.6.1", "9.1.0", "10.0.0"])
def test_a_server_that_keeps_its_jobs_is_taken(version):
    found = described(version)
    assert (found.kind, found.version, found.warnings) == ("Redis", version, ())


@pytest.mark.parametrize("version", ["6.2.14", "6.2"])
def test_a_server_for_the_embedded_default_is_taken_with_a_warning(version):
    assert described(version).warnings == (
        f"Redis {version} is supported as the embedded default only: in production use Redis 7.0, Valkey 7.2 or newer",
    )


def test_valkey_is_called_by_its_own_name():
    found = described("7.2.4", valkey_version="9.1.0", server_name="valkey")
    assert (found.kind, found.version, found.warnings) == ("Valkey", "9.1.0", ())


@pytest.mark.parametrize(
    ("save", "aof_enabled", "persistence"),
    [
        ("", 0, "none"),
        ("3600 1", 0, "rdb"),
        ("3600 1", 1, "aof"),
        ("", 1, "aof"),
        (None, 0, "unknown"),
        (None, 1, "aof"),
    ],
)
def test_what_a_server_keeps_is_said(save, aof_enabled, persistence):
    assert described(save=save, aof_enabled=aof_enabled).persistence == persistence


@pytest.mark.parametrize("version", ["2.8.24", "5.0.14", "6.0.16", "6.1.99"])
def test_a_server_that_is_too_old_is_refused(version):
    with pytest.raises(UnsuitableServerError, match=f"Redis {version} is too old: 6.2 or newer is needed"):
        described(version)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_a_server_that_may_drop_jobs_is_refused(policy):
    with pytest.raises(UnsuitableServerError, match=f"maxmemory-policy is '{policy}'.*set it to noeviction"):
        described(policy=policy)


@pytest.mark.parametrize(
    ("mode", "runs_as"),
    [
        (Mode.STANDALONE, "cluster"),
        (Mode.STANDALONE, "sentinel"),
        (Mode.SENTINEL, "cluster"),
        (Mode.CLUSTER, "standalone"),
    ],
)
def test_a_server_of_another_kind_than_its_url_says_is_refused(mode, runs_as):
    with pytest.raises(UnsuitableServerError, match=rf"runs as '{runs_as}'.*redis\+cluster://"):
        described(mode=mode, redis_mode=runs_as)


def test_a_cluster_is_as_good_as_its_worst_server():
    new, old = described("8.0.1", save="60 1"), described("6.2.14", aof_enabled=1)
    found = weakest([new, old, described("10.0.0", save=None)])
    assert (found.version, found.persistence, found.warnings) == ("6.2.14", "unknown", old.warnings)


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
        redis.exceptions.MovedError("1 127.0.0.1:7000"),
        redis.exceptions.AskError("1 127.0.0.1:7000"),
        redis.exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
        redis.exceptions.ClusterDownError("Hash slot not served"),
        redis.exceptions.SlotNotCoveredError("Slot 1 not covered by the cluster."),
        redis.exceptions.ClusterError("TTL exhausted."),
        redis.exceptions.MaxConnectionsError(),
        RedisClusterException("Redis Cluster cannot be connected. Please provide at least one reachable node: no"),
        RedisClusterException("All slots are not covered after query all startup_nodes. 1 of 16384 covered..."),
        MasterNotFoundError("no Sentinel names a master"),
        redis.asyncio.sentinel.SlaveNotFoundError(),
        redis.ResponseError(
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
        ),
        redis.ResponseError("Script attempted to access a non local key in a cluster node script: 1, on @"),
        redis.ResponseError("Script attempted to execute a write command while the cluster is down and readonly"),
        redis.ResponseError("Error running script: @user_script: 1: Lua script attempted to access a non local key"),
        redis.ResponseError("Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't"),
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
        redis.ResponseError("UNBLOCKED the stream key no longer exists"),
        RedisClusterException("EVALSHA - all keys must map to the same key slot"),
        ValueError("-OOM"),
        "-OOM",
        1,
        None,
    ],
)
def test_what_is_no_error_or_a_mistake_is_not_away(outcome):
    assert not is_away(outcome)
