"""The access file: TOML that names the tenants, what they may do, and by what they are known.

    [tenants.search]
    models = ["Qwen/Qwen3-Embedding-0.6B"]               # or ["*"]
    rpcs = ["Embed", "ListModels"]                       # all, where absent
    priorities = ["interactive"]                         # both, where absent
    certificate_uris = ["spiffe://example.org/search"]   # with --tls-client-ca
    certificate_dns_names = ["search.internal"]
    quota = { requests_per_s = 50, tokens_per_s = 200000, max_in_flight = 64 }

    [tenants.search.keys.0a1b2c3d4e]                     # any number of keys, as `qwen3-gateway-key new` prints them
    sha256 = "..."
    expires = 2027-01-01T00:00:00Z                       # never, where absent

A file that says anything else is refused as a whole.
"""

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError
from pydantic_core import ErrorDetails

from gateway.identity.callers import EVERY_MODEL, Caller
from jobqueue.lanes import Lane
from jobqueue.quotas import Quota
from runtime.errors import SettingError

TENANT_NAME = r"^[A-Za-z0-9_-]{1,64}$"

Rpc = Literal["Embed", "EmbedStream", "Rerank", "CountTokens", "Tokenize", "ListModels", "GetModel"]
Name = Annotated[str, Field(pattern=TENANT_NAME)]
KeyId = Annotated[str, Field(pattern=r"^[a-z0-9]{1,32}$")]
Text = Annotated[str, Field(min_length=1)]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """What is kept of an API key. `expires_s` is in seconds since 1970."""

    sha256: str
    expires_s: float
    caller: Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By what callers are known: the ids of keys, and the names in certificates."""

    keys: Mapping[str, KnownKey]
    uris: Mapping[str, Caller]
    dns_names: Mapping[str, Caller]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class _Quota(_Table):
    requests_per_s: PositiveFloat | None = None
    tokens_per_s: PositiveFloat | None = None
    max_in_flight: PositiveInt | None = None


class _Key(_Table):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    expires: AwareDatetime | None = None


class _Tenant(_Table):
    models: frozenset[Text] = Field(min_length=1)  # required, so that a mistyped name of a tenant is not a tenant
    rpcs: frozenset[Rpc] | None = Field(None, min_length=1)
    priorities: frozenset[Literal["interactive", "bulk"]] = Field(frozenset({"interactive", "bulk"}), min_length=1)
    operator: bool = False
    certificate_uris: frozenset[Text] = frozenset()
    certificate_dns_names: frozenset[Text] = frozenset()
    quota: _Quota | None = None
    keys: dict[KeyId, _Key] = {}


class _File(_Table):
    tenants: dict[Name, _Tenant] = Field(min_length=1)  # none would be a file that was cut short


def parse_access(data: bytes, *, where: str) -> Rules:
    """Raises SettingError with `where`, the key at fault and the reason, and never with a value."""
    try:
        tenants = _File.model_validate(tomllib.loads(data.decode())).tenants
    except ValidationError as error:
        raise SettingError("; ".join(f"{where}: {_explain(detail)}" for detail in error.errors())) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or a number or nesting beyond Python's limits
        raise SettingError(f"{where}: is not TOML: {error}") from error
    try:
        return _rules([(tenant, _caller(name, tenant)) for name, tenant in tenants.items()])
    except ValueError as error:
        raise SettingError(f"{where}: {error}") from error


def _explain(detail: ErrorDetails) -> str:
    return f"{'.'.join(_shown(str(part)) for part in detail['loc'])}: {detail['msg']}"


def _shown(name: str) -> str:
    """Not all of a long one, which may be an API key in the wrong place."""
    return name if len(name) <= 24 else f"{name[:12]}..."


def _caller(name: str, tenant: _Tenant) -> Caller:
    return Caller(
        tenant=name,
        models=None if EVERY_MODEL in tenant.models else tenant.models,
        rpcs=tenant.rpcs,
        lanes=frozenset(Lane[priority.upper()] for priority in tenant.priorities),
        is_operator=tenant.operator,
        quota=Quota(**tenant.quota.model_dump()) if tenant.quota else None,
    )


def _rules(tenants: Iterable[tuple[_Tenant, Caller]]) -> Rules:
    """Raises ValueError where two tenants are known by the same."""
    keys: dict[str, KnownKey] = {}
    uris: dict[str, Caller] = {}
    dns_names: dict[str, Caller] = {}
    for tenant, caller in tenants:
        _add("key", _keys(tenant, caller), keys)
        _add("certificate URI", _named("uri", tenant.certificate_uris, caller), uris)
        _add("certificate DNS name", _named("dns", map(str.lower, tenant.certificate_dns_names), caller), dns_names)
    return Rules(keys=keys, uris=uris, dns_names=dns_names)


def _keys(tenant: _Tenant, caller: Caller) -> Iterator[tuple[str, KnownKey]]:
    for id_, key in tenant.keys.items():
        expires_s = key.expires.timestamp() if key.expires else math.inf
        known_as = replace(caller, credential=f"key {id_}")
        yield id_, KnownKey(sha256=key.sha256, expires_s=expires_s, caller=known_as)


def _named(kind: str, names: Iterable[str], caller: Caller) -> Iterator[tuple[str, Caller]]:
    for name in names:
        yield name, replace(caller, credential=f"{kind} {name}")


def _add(what: str, known: Iterable[tuple[str, _T]], found: dict[str, _T]) -> None:
    for name, value in known:
        if name in found:
            raise ValueError(f"{what} {name!r} stands in two places")
        found[name] = value
