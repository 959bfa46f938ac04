"""Who the client is to the server, and how both know each other: TLS, certificates and tokens."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

Token: TypeAlias = str | Callable[[], str]
AsyncToken: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]

_THIS_MACHINE = re.compile(r"(127\.[\d.]+|localhost|\[::1\])(:\d+)?|unix:.*")
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """An encrypted connection. All files are PEM, and are read when the client is made.

    `ca_file` has the authorities whose servers are trusted, else gRPC's own list. `cert_file` and `key_file` are the
    client's certificate and private key, for servers that ask for one. `server_name` is the name that the server's
    certificate must have, where it is not the target's.
    """

    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises OSError where a file cannot be read."""
        return grpc.ssl_channel_credentials(_read(self.ca_file), _read(self.key_file), _read(self.cert_file))


def _read(file: str | Path | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()


def is_this_machine(target: str) -> bool:
    """Whether a connection to `target` cannot leave this machine."""
    addresses = re.sub(r"^(dns:(//[^/]*/)?|ipv[46]:)", "", target).split(",")
    return all(_THIS_MACHINE.fullmatch(address) for address in addresses)


def check_token_is_safe(target: str, *, has_token: bool, is_encrypted: bool, may_be_plain: bool) -> None:
    """Raises ValueError where a token could be read on its way."""
    if has_token and not (is_encrypted or may_be_plain or is_this_machine(target)):
        raise ValueError(
            f"a token would be sent to {target} in plain text: give tls=Tls(), or allow_plaintext_token=True "
            "where something else protects the way"
        )


def authorization(token: str) -> tuple[str, str]:
    """The header. Raises ValueError, which does not show the token."""
    if not _TOKEN.fullmatch(token):
        raise ValueError("the token is empty, or has characters that a header cannot carry")
    return "authorization", f"Bearer {token}"
