"""Who calls, and whether he may: the answer to every call's first question."""

import hmac
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from gateway.calls import Call, Context, Metadata
from gateway.errors import CallError
from gateway.identity.access_file import KnownKey, Rules
from gateway.identity.api_keys import ApiKey
from gateway.identity.callers import ANYBODY, Caller
from gateway.reasons import Reason

Identify: TypeAlias = Callable[[str, Metadata, Context], Caller]
"""From a call's method, as /package.Service/Method, its metadata and its context to the caller. Raises CallError."""

OURS = "/qwen3.inference."
_SERVICES = {
    "health": "/grpc.health.v1.Health/",
    "reflection": "/grpc.reflection.",
}
_EVERY_CALLERS = tuple(_SERVICES.values())
_NOBODYS = KnownKey(sha256="0" * 64, expires_s=0.0, caller=ANYBODY)


def identify_nobody(method: str, metadata: Metadata, context: Context) -> Caller:  # noqa: ARG001 - as Identify
    """Without access control everybody may do everything."""
    return ANYBODY


class AccessControl:
    """Knows callers by the access file's rules, which may be replaced at any time; before, it knows nobody."""

    def __init__(self, *, open_services: Iterable[str]) -> None:
        self._rules = Rules(keys={}, uris={}, dns_names={})
        self._open = tuple(_SERVICES[name] for name in open_services)

    def replace(self, rules: Rules) -> None:
        self._rules = rules

    def identify(self, method: str, metadata: Metadata, context: Context) -> Caller:
        """By the API key where one is sent, else by the certificate. Raises CallError, the same for all reasons."""
        if method.startswith(self._open):
            return ANYBODY
        sent = [value for name, value in metadata if name == "authorization"]
        caller = (
            caller_of_key(sent, self._rules, now_s=time.time())
            if sent
            else caller_of_certificate(context.auth_context() or {}, self._rules)
        )
        if caller is None:
            raise CallError(reason=Reason.UNAUTHENTICATED, message="no valid credentials were sent")
        return caller


def caller_of_key(sent: Sequence[str | bytes], rules: Rules, *, now_s: float) -> Caller | None:
    """By the values of the `authorization` metadata: one, `Bearer KEY`. `now_s` is in seconds since 1970.

    An unknown id takes as long as a wrong secret.
    """
    scheme, _, text = str(sent[0]).partition(" ")
    key = ApiKey.parse(text)
    if len(sent) > 1 or scheme.lower() != "bearer" or key is None:
        return None
    known = rules.keys.get(key.id, _NOBODYS)
    is_right = hmac.compare_digest(key.sha256, known.sha256)
    return known.caller if is_right and now_s < known.expires_s else None


def caller_of_certificate(auth_context: Mapping[str, Iterable[bytes]], rules: Rules) -> Caller | None:
    """By the first known name of the client's certificate, URIs first; the common name says nothing.

    gRPC gives the names of certificates that it has verified only.
    """
    uris = (rules.uris.get(_text(name)) for name in auth_context.get("peer_uri", ()))
    dns_names = (rules.dns_names.get(_text(name).lower()) for name in auth_context.get("peer_dns", ()))
    return next((caller for caller in (*uris, *dns_names) if caller), None)


def _text(name: bytes) -> str:
    return name.decode(errors="replace")


def find_caller(call: Call) -> None:
    """Note who makes the call. Raises CallError where that is nobody known, or one who may not make it."""
    call.caller = call.identify()
    check_method(call.caller, call.method)


def check_method(caller: Caller, method: str) -> None:
    """Raises CallError where the caller may not call `method`, as /package.Service/Method."""
    rpc = method.rpartition("/")[2]
    if method.startswith(OURS):
        if not caller.may_call(rpc):
            raise CallError(reason=Reason.METHOD_NOT_ALLOWED, message=f"{rpc} is not allowed to this caller")
    elif not caller.is_operator and not method.startswith(_EVERY_CALLERS):
        raise CallError(reason=Reason.METHOD_NOT_ALLOWED, message="this service is for operators")
