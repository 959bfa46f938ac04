"""What a Redis URL says: where the servers are, how they stand together, and redis-py's options for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from redis.connection import SSLConnection, parse_url

from jobqueue.errors import UnsuitableServerError

FORMS = (
    "redis://[USER:PASSWORD@]HOST:PORT[/DB], unix://[USER:PASSWORD@]/PATH, "
    "redis+sentinel://[USER:PASSWORD@]HOST:PORT,.../SERVICE[/DB] and redis+cluster://[USER:PASSWORD@]HOST:PORT,...; "
    "rediss in place of redis for TLS; redis-py's options after a question mark"
)

# Options that answers depend on, or that make redis-py send a command twice.
_OUR_OWN = {
    "connection_class",
    "decode_responses",
    "legacy_responses",
    "max_connections",
    "protocol",
    "retry",
    "retry_on_error",
    "retry_on_timeout",
    "socket_timeout",
}


class Mode(StrEnum):
    """How the servers behind a URL stand together."""

    STANDALONE = "standalone"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_parsed: Callable[[str], dict[str, Any]] = parse_url

_DEFAULT_PORTS = {Mode.STANDALONE: 6379, Mode.SENTINEL: 26379, Mode.CLUSTER: 6379}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUrl:
    """A URL taken apart. `addresses` are of the Sentinels or of Cluster nodes, and empty for a server of its own.

    `options` are redis-py's for a data server, `sentinel_options` those for a Sentinel; neither holds an address where
    `addresses` does.
    """

    mode: Mode
    tls: bool
    addresses: tuple[tuple[str, int], ...]
    service: str
    options: Mapping[str, Any]
    sentinel_options: Mapping[str, Any]


def parse_server_url(url: str) -> ServerUrl:
    """Raises UnsuitableServerError for what is no URL of a Redis server. The error has no part of the URL."""
    scheme, _, rest = url.partition("://")
    base, _, mode = scheme.partition("+")
    try:
        if not mode:
            return _alone(url)
        if base not in {"redis", "rediss"}:
            raise ValueError(scheme)  # noqa: TRY301 - one refusal for every mistake
        return _together(Mode(mode), base, rest)
    except ValueError:  # whose text may hold a part of the password
        raise UnsuitableServerError(f"redis: not a URL of a Redis server: {FORMS}") from None


def _alone(url: str) -> ServerUrl:
    head, _, _ = url.partition("?")
    if not head.startswith("unix://"):
        _check_database(head.partition("://")[2].partition("/")[2])
    options = _checked(_parsed(url))
    tls = options.pop("connection_class", None) is SSLConnection
    return ServerUrl(mode=Mode.STANDALONE, tls=tls, addresses=(), service="", options=options, sentinel_options={})


def _together(mode: Mode, base: str, rest: str) -> ServerUrl:
    """Sentinels or Cluster nodes. Each address is given to redis-py with the rest of the URL, which is the same."""
    head, _, query = rest.partition("?")
    authority, _, path = head.partition("/")
    user, _, hosts = authority.rpartition("@")
    service, _, database = path.partition("/") if mode is Mode.SENTINEL else ("", "", path)
    if (mode is Mode.SENTINEL) != bool(service):
        raise ValueError(path)
    _check_database(database)
    pieces = [_checked(_parsed(f"{base}://{user}@{host}/{database}?{query}")) for host in hosts.split(",")]
    addresses = tuple((piece.pop("host"), piece.pop("port", _DEFAULT_PORTS[mode])) for piece in pieces)
    options = pieces[0]
    if mode is Mode.CLUSTER and options.pop("db", 0):
        raise ValueError("a Cluster has database 0 only")
    tls = options.pop("connection_class", None) is SSLConnection
    sentinel_user = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    return ServerUrl(
        mode=mode,
        tls=tls,
        addresses=addresses,
        service=service,
        options=options,
        sentinel_options={**options, **sentinel_user, "db": 0} if mode is Mode.SENTINEL else {},
    )


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Raises UnsuitableServerError for an option that is ours to set, and ValueError where no server is named."""
    ours = sorted(_OUR_OWN & (options.keys() - {"connection_class"}))
    if ours:
        raise UnsuitableServerError(f"redis: the URL may not set {', '.join(ours)}")
    if not options.get("host") and not options.get("path"):
        raise ValueError("no host")
    return options


def _check_database(text: str) -> None:
    """redis-py takes database 0 for whatever is no number."""
    if text and not text.isdecimal():
        raise ValueError(text)
