"""What kind of Redis server this is, and whether the protocol is safe on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from jobqueue.errors import UnsuitableServerError
from jobqueue.urls import Mode

Persistence: TypeAlias = Literal["none", "rdb", "aof", "unknown"]

OLDEST_VERSION = (6, 2)
OLDEST_IN_PRODUCTION = {"Redis": (7, 0), "Valkey": (7, 2)}

_WEAKEST_FIRST: tuple[Persistence, ...] = ("none", "unknown", "rdb", "aof")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """A server; of a cluster's primaries the oldest version and the weakest persistence.

    `persistence` is unknown where the server keeps its configuration to itself. `warnings` are sentences for people.
    """

    kind: Literal["Redis", "Valkey"]
    version: str
    mode: Mode
    persistence: Persistence
    warnings: tuple[str, ...]


def describe_server(info: Mapping[str, Any], *, mode: Mode, save: str | None) -> ServerInfo:
    """What INFO says, and the setting `save`, None where that is kept secret.

    Raises UnsuitableServerError unless the protocol is safe there and `mode` is what the server runs in.
    """
    kind: Literal["Redis", "Valkey"] = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info["valkey_version" if kind == "Valkey" else "redis_version"])
    _check_mode(mode, str(info["redis_mode"]))
    _check_version(kind, version)
    _check_eviction(str(info["maxmemory_policy"]))
    return ServerInfo(
        kind=kind,
        version=version,
        mode=mode,
        persistence=_persistence(info, save),
        warnings=_warnings(kind, version),
    )


def weakest(servers: Sequence[ServerInfo]) -> ServerInfo:
    """Several servers as one, which is as good as the worst of them; there is at least one."""
    oldest = min(servers, key=lambda server: _numbers(server.version))
    return ServerInfo(
        kind=oldest.kind,
        version=oldest.version,
        mode=oldest.mode,
        persistence=min((server.persistence for server in servers), key=_WEAKEST_FIRST.index),
        warnings=tuple(dict.fromkeys(warning for server in servers for warning in server.warnings)),
    )


def _check_version(kind: str, version: str) -> None:
    if _numbers(version) < OLDEST_VERSION:
        raise UnsuitableServerError(f"{kind} {version} is too old: 6.2 or newer is needed")


def _check_eviction(policy: str) -> None:
    if policy != "noeviction":
        raise UnsuitableServerError(
            f"the Redis server's maxmemory-policy is {policy!r}, under which it may drop jobs: set it to noeviction"
        )


def _check_mode(mode: Mode, runs_as: str) -> None:
    expected = "cluster" if mode is Mode.CLUSTER else "standalone"
    if runs_as != expected:
        raise UnsuitableServerError(
            f"the Redis server runs as {runs_as!r}, the URL is for {expected!r}: "
            "redis+cluster:// is for a Cluster, redis+sentinel://HOST:PORT/SERVICE for Sentinels"
        )


def _persistence(info: Mapping[str, Any], save: str | None) -> Persistence:
    if info.get("aof_enabled"):
        return "aof"
    if save is None:
        return "unknown"
    return "rdb" if save else "none"


def _warnings(kind: str, version: str) -> tuple[str, ...]:
    if _numbers(version) >= OLDEST_IN_PRODUCTION[kind]:
        return ()
    return (
        f"{kind} {version} is supported as the embedded default only: in production use Redis 7.0, Valkey 7.2 or newer",
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
