"""From a call's credentials to its caller, and to what the caller may call."""

from types import SimpleNamespace

import grpc
import pytest

from gateway.errors import CallError
from gateway.identity.access import (
    AccessControl,
    caller_of_certificate,
    caller_of_key,
    check_method,
    identify_nobody,
)
from gateway.identity.access_file import KnownKey, Rules
from gateway.identity.api_keys import ApiKey
from gateway.identity.callers import ANYBODY, Caller

KEY = ApiKey.new()
NOW_S = 1000.0
A, B = Caller(tenant="a"), Caller(tenant="b", rpcs=frozenset({"Embed"}))
RULES = Rules(
    keys={KEY.id: KnownKey(sha256=KEY.sha256, expires_s=NOW_S, caller=A)},
    uris={"spiffe://x/a": A},
    dns_names={"b.internal": B},
)
EMBED = "/qwen3.inference.v1.EmbeddingService/Embed"
RERANK = "/qwen3.inference.v1.RerankService/Rerank"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CHANNELZ = "/grpc.channelz.v1.Channelz/GetServers"


def context(**names):
    return SimpleNamespace(auth_context=lambda: names)


def caller_of(*sent: str, now_s: float = 0.0) -> Caller | None:
    return caller_of_key(sent, RULES, now_s=now_s)


def test_a_key_tells_its_caller_until_it_expires():
    sent = f"Bearer {KEY.reveal()}"
    assert caller_of(sent) is A
    assert caller_of(sent, now_s=NOW_S - 0.001) is A
    assert caller_of(sent, now_s=NOW_S) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer  {key}",
        "Bearer {key} ",
        "Bearer {key}x",
        "Bearer {cut}",
        "Bearer {secret}",
        "Bearer q3__{secret}",
        "Bearer Q3_{id}_{secret}",
        "Bearer q3_{id}_é",
        "Bearer q3_zzz_{secret}",
    ],
)
def test_anything_else_tells_nobody(pattern):
    key = KEY.reveal()
    sent = pattern.format(key=key, cut=key[:-1], secret=KEY.secret, id=KEY.id)
    assert caller_of(sent) is None


def test_an_unknown_id_and_the_hash_of_nobody_tell_nobody():
    nobodys = ApiKey(id="zzz", secret="0" * 64)
    assert caller_of(f"Bearer {nobodys.reveal()}") is None


def test_a_key_is_not_shown_by_accident():
    assert KEY.secret not in repr(KEY)
    assert ApiKey.parse(KEY.reveal()) == KEY


def test_a_certificates_known_name_tells_its_caller_whichever_of_them_it_is():
    assert caller_of_certificate({"peer_uri": [b"spiffe://x/other", b"spiffe://x/a"]}, RULES) is A
    assert caller_of_certificate({"peer_dns": [b"B.Internal"]}, RULES) is B
    assert caller_of_certificate({"peer_uri": [b"spiffe://x/a"], "peer_dns": [b"b.internal"]}, RULES) is A


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"peer_uri": [b"b.internal"]},
        {"peer_dns": [b"spiffe://x/a"]},
        {"x509_common_name": [b"b.internal"], "peer_email": [b"b.internal"], "peer_dns": [b"\xff", b"x.b.internal"]},
    ],
)
def test_other_names_tell_nobody(names):
    assert caller_of_certificate(names, RULES) is None


def test_a_key_that_is_sent_decides_whatever_the_certificate_says():
    control = AccessControl(open_services=[])
    control.replace(RULES)
    certificate = context(peer_dns=[b"b.internal"])
    assert control.identify(EMBED, [], certificate) is B
    with pytest.raises(CallError) as caught:
        control.identify(EMBED, [("authorization", "Bearer x")], certificate)
    assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_nobody_is_known_before_there_are_rules():
    control = AccessControl(open_services=["health"])
    with pytest.raises(CallError):
        control.identify(EMBED, [("authorization", f"Bearer {KEY.reveal()}")], context())


def test_open_services_ask_nobody_and_closed_ones_everybody():
    opened, closed = AccessControl(open_services=["health", "reflection"]), AccessControl(open_services=[])
    for method in (HEALTH, REFLECTION):
        assert opened.identify(method, [], context()) is ANYBODY
        with pytest.raises(CallError):
            closed.identify(method, [], context())
    for method in (EMBED, CHANNELZ):
        with pytest.raises(CallError):
            opened.identify(method, [], context())


def test_without_access_control_everybody_may_call_everything():
    for method in (EMBED, RERANK, HEALTH, REFLECTION, CHANNELZ):
        check_method(identify_nobody(method, [], context()), method)


def test_rights_are_to_the_rpcs_of_the_service_and_admin_services_are_for_operators():
    for method in (EMBED, HEALTH, REFLECTION):
        check_method(B, method)
    for method in (RERANK, CHANNELZ, "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus"):
        with pytest.raises(CallError) as caught:
            check_method(B, method)
        assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
