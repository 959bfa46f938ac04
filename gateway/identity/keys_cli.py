"""`qwen3-gateway-key`: makes API keys. Only its owner ever has a key; the gateway knows its hash."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from gateway.identity.access_file import TENANT_NAME
from gateway.identity.api_keys import ApiKey

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def commands() -> None:
    """Make API keys for the access file of qwen3-gateway."""


@app.command()
def new(
    *,
    tenant: Annotated[str, typer.Option(help="The key's tenant in the access file.")],
    days: Annotated[int | None, typer.Option(min=1, help="Days until the key expires; without it never.")] = None,
) -> None:
    """Print a new key on standard error, and on standard output what to add to the access file: >> FILE does it."""
    if not re.fullmatch(TENANT_NAME, tenant):
        raise typer.BadParameter("only letters, digits, _ and -", param_hint="--tenant")
    key = ApiKey.new()
    typer.echo("\n".join(_lines(key, tenant, days)))
    typer.echo(f"The key, which is not shown again: {key.reveal()}", err=True)


def _lines(key: ApiKey, tenant: str, days: int | None) -> Iterator[str]:
    yield f"\n[tenants.{tenant}.keys.{key.id}]"
    yield f'sha256 = "{key.sha256}"'
    if days is not None:
        expires = datetime.now(UTC) + timedelta(days=days)
        yield f"expires = {expires:%Y-%m-%dT%H:%M:%SZ}"


def main() -> None:
    app()


if __name__ == "__main__":
    main()
