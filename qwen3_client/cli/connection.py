"""How the service is reached: the options before the command, or the variables in their place."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from qwen3_client.channel import DEFAULT_TARGET
from qwen3_client.client import Client
from qwen3_client.security import Tls, Token, authorization

TOKEN_VARIABLE = "QWEN3_TOKEN"  # noqa: S105 - its name, not a token


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An open client, the seconds that it waits for an answer, and how another target is reached the same way."""

    client: Client
    timeout_s: float
    client_at: Callable[[str], Client] = field(repr=False)  # knows the token


def _file(*, flag: str, variable: str, what: str) -> Any:
    return typer.Option(flag, envvar=variable, exists=True, dir_okay=False, help=what)


def connect(
    context: typer.Context,
    *,
    target: Annotated[
        str, typer.Option(envvar="QWEN3_TARGET", help="HOST:PORT of the service, or dns:///HOST:PORT.")
    ] = DEFAULT_TARGET,
    timeout_s: Annotated[
        float, typer.Option("--timeout", envvar="QWEN3_TIMEOUT", min=0, help="Seconds to wait for an answer.")
    ] = 30.0,
    tls: Annotated[bool, typer.Option("--tls", envvar="QWEN3_TLS", help="Encrypt; so does any file below.")] = False,
    ca_file: Annotated[
        Path | None,
        _file(flag="--ca-file", variable="QWEN3_CA_FILE", what="PEM authorities to trust, not the usual ones."),
    ] = None,
    cert_file: Annotated[
        Path | None, _file(flag="--cert-file", variable="QWEN3_CERT_FILE", what="PEM certificate of this client.")
    ] = None,
    key_file: Annotated[
        Path | None, _file(flag="--key-file", variable="QWEN3_KEY_FILE", what="PEM private key of --cert-file.")
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option(envvar="QWEN3_SERVER_NAME", help="Name in the server's certificate, if not the target's."),
    ] = None,
    token_file: Annotated[
        Path | None,
        _file(
            flag="--token-file",
            variable="QWEN3_TOKEN_FILE",
            what=f"File with the API key or token, read for every call; in place of the variable {TOKEN_VARIABLE}.",
        ),
    ] = None,
    allow_plaintext_token: Annotated[
        bool, typer.Option("--allow-plaintext-token", help="Send the token to other machines without TLS.")
    ] = False,
) -> None:
    """Embed texts and rerank documents with a qwen3-serve service. Options here stand before the command."""
    client_at = partial(
        _client_at,
        tls=_tls(asked=tls, ca_file=ca_file, cert_file=cert_file, key_file=key_file, server_name=server_name),
        token=_token(token_file),
        allow_plaintext_token=allow_plaintext_token,
        timeout_s=timeout_s,
    )
    context.obj = Connection(client=context.with_resource(client_at(target)), timeout_s=timeout_s, client_at=client_at)


def connection_of(context: typer.Context) -> Connection:
    """That of the command under way."""
    found: Connection = context.obj
    return found


def _tls(*, asked: bool, **options: Any) -> Tls | None:
    try:
        return Tls(**options) if asked or any(options.values()) else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _client_at(target: str, **options: Any) -> Client:
    try:
        return Client(target, **options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _token(file: Path | None) -> Token | None:
    """The one of the file, which is read anew for every call, else the variable's."""
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE)
        return None if token is None else _checked(os.fsencode(token), TOKEN_VARIABLE)

    def read() -> str:
        return _checked(file.read_bytes().strip(), str(file))

    read()
    return read


def _checked(encoded: bytes, place: str) -> str:
    """Raises BadParameter, which does not show the token."""
    try:
        token = encoded.decode()
        authorization(token)
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{place}: the token is not UTF-8") from None
    except ValueError as error:
        raise typer.BadParameter(f"{place}: {error}") from error
    return token
