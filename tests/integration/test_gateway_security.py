"""Who may connect and call: TLS, certificates, API keys and rights, against a real gateway."""

import contextlib
import json
import queue
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.identity.api_keys import ApiKey
from jobqueue.lanes import Lane
from qwen3.inference.v1 import common_pb2, embedding_pb2, model_pb2, tokenizer_pb2
from tests.support.certificates import Authority, TlsFiles, channel_credentials, served_certificate
from tests.support.echo import EchoWorker, eventually
from tests.support.processes import gateway, running
from tests.support.wire import TIMEOUT_S, Stubs, refusal

MARKER = "xyzzy-plugh-plover"
KEYS = {name: ApiKey.new() for name in ("search", "search_old", "search_new", "batch", "counter", "other")}
SPIFFE_ID = "spiffe://example.org/ns/search/sa/api"
ACCESS = f"""
[tenants.search]
models = ["emb"]
certificate_uris = ["{SPIFFE_ID}"]
[tenants.search.keys.{KEYS["search"].id}]
sha256 = "{KEYS["search"].sha256}"
[tenants.search.keys.{KEYS["search_old"].id}]
sha256 = "{KEYS["search_old"].sha256}"
expires = 2020-01-01T00:00:00Z
[tenants.search.keys.{KEYS["search_new"].id}]
sha256 = "{KEYS["search_new"].sha256}"
expires = 2999-01-01T00:00:00Z

[tenants.batch]
models = ["*"]
priorities = ["bulk"]
keys.{KEYS["batch"].id} = {{ sha256 = "{KEYS["batch"].sha256}" }}

[tenants.counter]
models = ["emb"]
rpcs = ["CountTokens"]
operator = true
keys.{KEYS["counter"].id} = {{ sha256 = "{KEYS["counter"].sha256}" }}

[tenants.other]
models = ["other"]
priorities = ["interactive"]
certificate_dns_names = ["Other.Internal"]
keys.{KEYS["other"].id} = {{ sha256 = "{KEYS["other"].sha256}" }}
"""


class Authorization(
    grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor, grpc.UnaryStreamClientInterceptor
):
    """Sends these values of it with every call."""

    def __init__(self, *values: str) -> None:
        self._metadata = [("authorization", value) for value in values]

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(details._replace(metadata=self._metadata), request)

    intercept_unary_stream = intercept_stream_stream = intercept_unary_unary


@pytest.fixture(scope="module")
def emb(redis_url):
    with EchoWorker(redis_url, "emb") as worker:
        yield worker


@pytest.fixture(scope="module")
def other(redis_url):
    with EchoWorker(redis_url, "other") as worker:
        yield worker


@pytest.fixture(scope="module")
def access_file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("access") / "access.toml"
    file.write_text(ACCESS)
    return file


@pytest.fixture(scope="module")
def guarded(redis_url, emb, other, access_file):
    """The address of a gateway with access control, on loopback and without TLS."""
    with gateway(redis_url, "--access", str(access_file), "--await-models", "emb,other") as (_, address):
        yield address


@pytest.fixture(scope="module")
def servers() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def clients() -> Authority:
    return Authority()


@contextlib.contextmanager
def sending(address: str, *authorization: str, credentials: grpc.ChannelCredentials | None = None):
    """Stubs whose calls carry these values of `authorization`, over TLS where credentials are given."""
    # Without a pool of its own a channel takes over the connection of an earlier one to the same address.
    options = [("grpc.use_local_subchannel_pool", 1)]
    plain = grpc.secure_channel(address, credentials, options) if credentials else grpc.insecure_channel(address)
    with grpc.intercept_channel(plain, Authorization(*authorization)) as channel:
        yield Stubs(address, channel)


def bearer(tenant: str) -> str:
    return f"Bearer {KEYS[tenant].reveal()}"


def refused(call, *arguments, **fields):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **fields)
    return refusal(caught.value)


def is_refused(stubs: Stubs) -> bool:
    """Whether the server says that it does not know the caller."""
    return outcome(stubs) is grpc.StatusCode.UNAUTHENTICATED


def connects(address: str, credentials: grpc.ChannelCredentials) -> bool:
    """Whether a new connection comes about."""
    with sending(address, credentials=credentials) as stubs:
        return outcome(stubs) is grpc.StatusCode.OK


def outcome(stubs: Stubs) -> grpc.StatusCode:
    """Of a call: well, no such caller, or no connection."""
    request = embedding_pb2.EmbedRequest(config=embedding_pb2.EmbedConfig(model="emb"), inputs=["text"])
    code = stubs.embedding.Embed.future(request, timeout=TIMEOUT_S).code()
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE)
    return code


def model_ids(stubs: Stubs) -> list[str]:
    listed = stubs.models.ListModels(model_pb2.ListModelsRequest(), timeout=TIMEOUT_S)
    return [model.id for model in listed.models]


def embed_stream(stubs: Stubs, **config) -> list:
    requests = [{"config": config}, {"chunk": {"chunk_id": 1, "inputs": ["text"]}}]
    messages = [embedding_pb2.EmbedStreamRequest(**request) for request in requests]
    return list(stubs.embedding.EmbedStream(iter(messages), timeout=TIMEOUT_S))


def health(stubs: Stubs) -> int:
    stub = health_pb2_grpc.HealthStub(stubs.channel)
    return stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S).status


def reflected(stubs: Stubs) -> list:
    stub = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    return list(stub.ServerReflectionInfo(requests, timeout=TIMEOUT_S))


WRONG_SECRET = ApiKey(id=KEYS["search"].id, secret=KEYS["other"].secret)
UNKNOWN_ID = ApiKey(id="0000000000", secret=KEYS["search"].secret)
WRONG_CREDENTIALS = {
    "none": [],
    "wrong secret": [f"Bearer {WRONG_SECRET.reveal()}"],
    "unknown id": [f"Bearer {UNKNOWN_ID.reveal()}"],
    "expired": [bearer("search_old")],
    "no secret": [f"Bearer q3_{KEYS['search'].id}_"],
    "no key": ["Bearer x"],
    "empty": [""],
    "another scheme": [f"Basic {KEYS['search'].reveal()}"],
    "no scheme": [KEYS["search"].reveal()],
    "the hash": [f"Bearer q3_{KEYS['search'].id}_{KEYS['search'].sha256}"],
    "two keys": [bearer("search"), bearer("search")],
}


@pytest.mark.parametrize("authorization", WRONG_CREDENTIALS.values(), ids=WRONG_CREDENTIALS)
def test_wrong_credentials_are_refused_in_the_same_words_whatever_is_wrong(guarded, authorization):
    with sending(guarded, *authorization) as stubs:
        found = refused(stubs.embed, ["text"], model="emb")
        assert found.code is grpc.StatusCode.UNAUTHENTICATED
        assert (found.reason, found.message) == ("UNAUTHENTICATED", "no valid credentials were sent")
        assert refused(embed_stream, stubs, model="emb").code is grpc.StatusCode.UNAUTHENTICATED
        assert refused(model_ids, stubs).code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "authorization",
    [bearer("search"), bearer("search_new"), f"bEARER {KEYS['search'].reveal()}"],
    ids=["a key", "another key", "in any case"],
)
def test_a_right_key_is_let_in(guarded, authorization):
    with sending(guarded, authorization) as stubs:
        assert len(stubs.embed(["text"], model="emb").embeddings) == 1
        assert embed_stream(stubs, model="emb")[0].HasField("result")


def test_another_tenants_model_cannot_be_used_and_looks_as_if_it_did_not_exist(guarded):
    with sending(guarded, bearer("search")) as stubs:
        for model in ("other", "nowhere"):
            for found in (
                refused(stubs.embed, ["text"], model=model),
                refused(embed_stream, stubs, model=model),
                refused(stubs.rerank_documents, "query", ["text"], model=model),
                refused(stubs.models.GetModel, model_pb2.GetModelRequest(id=model), timeout=TIMEOUT_S),
                refused(
                    stubs.tokenizer.CountTokens,
                    tokenizer_pb2.CountTokensRequest(model=model, inputs=["x"]),
                    timeout=TIMEOUT_S,
                ),
                refused(
                    stubs.tokenizer.Tokenize,
                    tokenizer_pb2.TokenizeRequest(model=model, inputs=["x"]),
                    timeout=TIMEOUT_S,
                ),
            ):
                assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "MODEL_NOT_ALLOWED")
                assert found.message == f"model '{model}' is not allowed to this caller"


def test_a_tenant_sees_its_own_models_and_means_them_by_an_empty_name(guarded):
    for tenant, model in (("search", "emb"), ("other", "other")):
        with sending(guarded, bearer(tenant)) as stubs:
            assert model_ids(stubs) == [model]
            assert stubs.embed(["text"]).model == model
            found = stubs.models.GetModel(model_pb2.GetModelRequest(id=model), timeout=TIMEOUT_S)
            assert found.model.default_for_task
    with sending(guarded, bearer("batch")) as stubs:
        assert model_ids(stubs) == ["emb", "other"]
        assert (
            refused(stubs.embed, ["text"]).message
            == "config.model: is required where several models are served: emb,other"
        )


def test_a_tenant_may_call_only_its_rpcs(guarded):
    with sending(guarded, bearer("counter")) as stubs:
        count = tokenizer_pb2.CountTokensRequest(inputs=["text"])
        assert stubs.tokenizer.CountTokens(count, timeout=TIMEOUT_S).total_tokens == 2
        for call in (lambda: stubs.embed(["text"]), lambda: embed_stream(stubs), lambda: model_ids(stubs)):
            found = refused(call)
            assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "METHOD_NOT_ALLOWED")


def test_a_priority_must_be_allowed_and_an_unset_one_means_one_that_is(guarded, emb, other):
    with sending(guarded, bearer("batch")) as stubs:
        found = refused(stubs.embed, ["text"], model="emb", priority=common_pb2.PRIORITY_INTERACTIVE)
        assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PRIORITY_NOT_ALLOWED")
        stubs.embed(["text"], model="emb")
        assert emb.jobs[-1][0].lane is Lane.BULK
    with sending(guarded, bearer("other")) as stubs:
        found = refused(embed_stream, stubs, priority=common_pb2.PRIORITY_BULK)
        assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PRIORITY_NOT_ALLOWED")
        embed_stream(stubs)
        assert other.jobs[-1][0].lane is Lane.INTERACTIVE


def test_two_tenants_with_one_request_id_at_once_see_only_their_own_answers(guarded, emb):
    texts = {"search": "the first", "batch": "the second"}
    emb.hold()
    with contextlib.ExitStack() as stack:
        stubs = {tenant: stack.enter_context(sending(guarded, bearer(tenant))) for tenant in texts}
        calls = {}
        for tenant, text in texts.items():
            config = embedding_pb2.EmbedConfig(model="emb")
            request = embedding_pb2.EmbedRequest(config=config, inputs=[text], request_id="the same")
            calls[tenant] = stubs[tenant].embedding.Embed.future(request, timeout=TIMEOUT_S)
        eventually(lambda: emb.num_queued() == 2)
        emb.release()
        for tenant, text in texts.items():
            [alone] = stubs[tenant].vectors([text], model="emb")
            answer = calls[tenant].result()
            assert np.frombuffer(answer.embeddings[0].packed, "<f4").tobytes() == alone.tobytes()
    first, second = (calls[tenant].result().embeddings[0].packed for tenant in texts)
    assert first != second


def test_health_is_open_and_reflection_is_closed(guarded):
    with sending(guarded) as stubs:
        assert health(stubs) == health_pb2.HealthCheckResponse.SERVING
        assert refused(reflected, stubs).code is grpc.StatusCode.UNAUTHENTICATED
    with sending(guarded, bearer("search")) as stubs:
        assert len(reflected(stubs)) == 1


def test_health_can_be_closed_and_reflection_opened(redis_url, access_file):
    with (
        gateway(redis_url, "--access", str(access_file), "--open-services", "reflection") as (_, address),
        sending(address) as stubs,
    ):
        assert len(reflected(stubs)) == 1
        assert refused(health, stubs).code is grpc.StatusCode.UNAUTHENTICATED
        assert is_refused(stubs)


def test_only_operators_see_the_admin_services(redis_url, access_file):
    from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc  # noqa: PLC0415 - for this one

    def num_servers(stubs: Stubs) -> int:
        stub = channelz_pb2_grpc.ChannelzStub(stubs.channel)
        return len(stub.GetServers(channelz_pb2.GetServersRequest(), timeout=TIMEOUT_S).server)

    with gateway(redis_url, "--access", str(access_file), "--admin") as (_, address):
        with sending(address) as stubs:
            assert refused(num_servers, stubs).code is grpc.StatusCode.UNAUTHENTICATED
        with sending(address, bearer("search")) as stubs:
            assert refused(num_servers, stubs).reason == "METHOD_NOT_ALLOWED"
        with sending(address, bearer("counter")) as stubs:
            assert num_servers(stubs) == 1


def test_a_changed_access_file_counts_at_once_and_a_broken_one_does_not_count(redis_url, emb, tmp_path):
    file = tmp_path / "access.toml"
    keys = {id_: ApiKey.new() for id_ in ("old", "new")}

    def write(*names: str, more: str = "") -> None:
        lines = [f'[tenants.t.keys.{keys[name].id}]\nsha256 = "{keys[name].sha256}"' for name in names]
        file.write_text("\n".join(['[tenants.t]\nmodels = ["emb"]', *lines, more]))

    write("old")
    with (
        gateway(redis_url, "--access", str(file), "--await-models", "emb") as (process, address),
        sending(address, f"Bearer {keys['old'].reveal()}") as old,
        sending(address, f"Bearer {keys['new'].reveal()}") as new,
    ):
        assert not is_refused(old)
        assert is_refused(new)
        write("old", "new")
        eventually(lambda: not is_refused(new))
        assert not is_refused(old)
        write("new", more="color = 'red'")
        eventually(lambda: "color" in process.log)
        assert not is_refused(old)
        file.write_text("")
        eventually(lambda: "tenants: Field required" in process.log)
        assert not is_refused(old)
        file.unlink()
        eventually(lambda: "No such file" in process.log)
        assert not is_refused(old)
        write("new")
        eventually(lambda: is_refused(old))
        assert not is_refused(new)
        complaints = [line for line in log_lines(process) if line["event"].startswith("changed files cannot be used")]
        assert sum("color" in line["error"] for line in complaints) == 1  # told once, not at every look


def test_a_key_that_is_taken_away_is_of_no_use_to_a_stream_that_has_begun(redis_url, emb, tmp_path):
    file, config = tmp_path / "access.toml", {"model": "emb"}
    file.write_text(ACCESS)
    with (
        gateway(redis_url, "--access", str(file), "--await-models", "emb") as (_, address),
        sending(address, bearer("search")) as stubs,
    ):
        messages = queue.SimpleQueue()
        messages.put(embedding_pb2.EmbedStreamRequest(config=config))
        stream = stubs.embedding.EmbedStream(iter(messages.get, None), timeout=TIMEOUT_S)

        def chunks_code() -> int:
            messages.put(embedding_pb2.EmbedStreamRequest(chunk={"inputs": ["text"]}))
            return next(stream).error.code

        assert chunks_code() == grpc.StatusCode.OK.value[0]
        file.write_text(ACCESS.replace(KEYS["search"].sha256, "0" * 64))
        eventually(lambda: chunks_code() == grpc.StatusCode.UNAUTHENTICATED.value[0])
        messages.put(None)
        stream.cancel()


def log_lines(process) -> list[dict]:
    return [json.loads(line) for line in process.log.splitlines()]


def test_the_rules_may_come_from_the_environment(redis_url, emb):
    command = ["gateway", "--redis", redis_url, "--listen", "127.0.0.1:0", "--await-models", "emb"]
    with running(*command, env={"QWEN3_ACCESS_TOML": ACCESS}) as process:
        address = process.ready()
        with sending(address, bearer("search")) as right, sending(address) as wrong:
            assert len(right.embed(["text"]).embeddings) == 1
            assert is_refused(wrong)


def test_no_key_and_no_text_is_ever_logged_and_every_call_tells_its_tenant(redis_url, emb, tmp_path, servers):
    access = tmp_path / "access.toml"
    access.write_text(ACCESS)
    tls = TlsFiles.written(tmp_path, servers.server())
    options = ["--access", str(access), "--await-models", "emb", "--log-level", "debug", *tls.options]
    with gateway(redis_url, *options) as (process, address):
        credentials = channel_credentials(servers.pem)
        for authorization in [*WRONG_CREDENTIALS.values(), [bearer("batch")], [bearer("search")]]:
            with sending(address, *authorization, credentials=credentials) as stubs, contextlib.suppress(grpc.RpcError):
                stubs.embed([MARKER], model="emb")
                embed_stream(stubs, model="emb", instruction=MARKER)
                stubs.embed([MARKER], model="emb", priority=common_pb2.PRIORITY_INTERACTIVE)
        access.write_text(ACCESS.replace("sha256", KEYS["search"].secret))
        tls.key.write_bytes(servers.server().key)
        eventually(lambda: process.log.count("changed files cannot be used") == 2)
        assert process.stop() == 0
        calls = [line for line in log_lines(process) if line["event"] == "call"]
        assert {line["tenant"] for line in calls if line["code"] != "UNAUTHENTICATED"} == {"batch", "search"}
        assert {line["credential"] for line in calls} == {
            "",
            f"key {KEYS['batch'].id}",
            f"key {KEYS['search'].id}",
        }
        denied = next(line for line in calls if line["reason"] == "PRIORITY_NOT_ALLOWED")
        assert denied["tenant"] == "batch"
        private = [MARKER, "PRIVATE KEY", *(part for key in KEYS.values() for part in (key.secret, key.sha256))]
        assert [text for text in private if text in process.log] == []


def test_a_client_that_trusts_the_authority_is_served_over_tls_and_others_are_not(redis_url, emb, tmp_path, servers):
    tls = TlsFiles.written(tmp_path, servers.server())
    with gateway(redis_url, "--await-models", "emb", *tls.options) as (_, address):
        assert connects(address, channel_credentials(servers.pem))
        assert not connects(address, channel_credentials(Authority().pem))
        with sending(address) as plaintext, pytest.raises(grpc.RpcError) as caught:
            plaintext.embed(["text"])
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_new_certificate_is_shown_to_new_connections_and_a_bad_one_is_not(redis_url, emb, tmp_path, servers):
    tls = TlsFiles.written(tmp_path, servers.server())
    first, second, third = tls.cert.read_text(), servers.server(), servers.server()
    with (
        gateway(redis_url, "--await-models", "emb", *tls.options) as (process, address),
        sending(address, credentials=channel_credentials(servers.pem)) as early,
    ):
        early.embed(["text"], model="emb")
        assert served_certificate(address) == first
        second.write(tls.cert, tls.key)
        eventually(lambda: served_certificate(address) == second.cert.decode())
        num_refused = process.log.count("KEY_VALUES_MISMATCH")  # one, if it was read between its two files
        tls.cert.write_bytes(third.cert)  # and not the key
        eventually(lambda: process.log.count("KEY_VALUES_MISMATCH") > num_refused)
        assert served_certificate(address) == second.cert.decode()
        tls.cert.write_bytes(third.cert[: len(third.cert) // 2])
        eventually(lambda: "PEM" in process.log)
        assert served_certificate(address) == second.cert.decode()
        third.write(tls.cert, tls.key)
        eventually(lambda: served_certificate(address) == third.cert.decode())
        early.embed(["text"], model="emb")  # on the connection of the first certificate
        assert connects(address, channel_credentials(servers.pem))


def test_only_clients_with_a_certificate_of_the_authority_connect(redis_url, emb, tmp_path, servers, clients):
    tls = TlsFiles.written(tmp_path, servers.server(), clients.pem)
    with gateway(redis_url, "--await-models", "emb", *tls.options) as (_, address):
        refused_ones = [
            None,
            clients.expired("search.internal"),
            Authority().named("search.internal"),
            servers.named("search.internal"),
        ]
        for client in refused_ones:
            assert not connects(address, channel_credentials(servers.pem, client))
        assert connects(address, channel_credentials(servers.pem, clients.named("anybody.internal")))


def test_a_certificates_names_tell_the_tenant(redis_url, emb, other, tmp_path, access_file, servers, clients):
    tls = TlsFiles.written(tmp_path, servers.server(), clients.pem)
    options = ["--access", str(access_file), "--await-models", "emb,other", *tls.options]

    def sending_with(client, *authorization):
        return sending(address, *authorization, credentials=channel_credentials(servers.pem, client))

    with gateway(redis_url, *options) as (_, address):
        with sending_with(clients.spiffe(SPIFFE_ID)) as stubs:
            assert model_ids(stubs) == ["emb"]
        with sending_with(clients.named("nobody.internal", "other.internal")) as stubs:
            assert model_ids(stubs) == ["other"]
        strangers = [
            clients.spiffe(f"{SPIFFE_ID}/more"),
            clients.spiffe("spiffe://example.org/x", common_name="other.internal"),
            clients.spiffe("other.internal"),  # a DNS name in the place of a URI
            clients.named("search.internal", "127.0.0.1"),
        ]
        for stranger in strangers:
            with sending_with(stranger) as stubs:
                assert is_refused(stubs)
        with sending_with(strangers[0], bearer("search")) as stubs:  # the key decides
            assert model_ids(stubs) == ["emb"]
        with sending_with(clients.spiffe(SPIFFE_ID), "Bearer x") as stubs:
            assert is_refused(stubs)


def test_a_new_client_authority_counts_for_new_connections(redis_url, emb, tmp_path, servers, clients):
    tls = TlsFiles.written(tmp_path, servers.server(), clients.pem)
    successor = Authority()
    old, new = (channel_credentials(servers.pem, ca.named("a.internal")) for ca in (clients, successor))
    with gateway(redis_url, "--await-models", "emb", *tls.options) as (_, address):
        assert connects(address, old)
        assert not connects(address, new)
        tls.client_ca.write_bytes(clients.pem + successor.pem)
        eventually(lambda: connects(address, new))
        assert connects(address, old)
        tls.client_ca.write_bytes(successor.pem)
        eventually(lambda: not connects(address, old))
        assert connects(address, new)


def test_listening_beyond_this_machine_needs_tls_or_a_word(redis_url, tmp_path, servers):
    tls = TlsFiles.written(tmp_path, servers.server())
    everywhere = ["gateway", "--redis", redis_url, "--listen", "0.0.0.0:0"]
    with running(*everywhere) as process:
        assert process.wait() == 2
        assert "--listen (QWEN3_LISTEN) = '0.0.0.0:0'" in process.log
        assert "--insecure" in process.log
    for options in (["--insecure"], tls.options):
        with running(*everywhere, *options) as process:
            assert process.ready().startswith("0.0.0.0:")


def test_files_that_cannot_be_used_are_told_at_the_start(redis_url, tmp_path, servers):
    tls = TlsFiles.written(tmp_path, servers.server(), b"no certificates")
    broken = tmp_path / "access.toml"
    broken.write_text(ACCESS.replace("sha256 =", "sha1 =", 1))
    other_key = tmp_path / "other.key"
    other_key.write_bytes(servers.server().key)
    pair = ["--tls-cert", str(tls.cert), "--tls-key"]
    for options, reasons in (
        (tls.options, [f"--tls-client-ca {tls.client_ca}"]),
        ([*pair, str(other_key)], [f"--tls-key {other_key}", "KEY_VALUES_MISMATCH"]),
        ([*pair, str(tls.cert)], [f"--tls-key {tls.cert}"]),
        (["--access", str(broken)], [f"--access {broken}", f"tenants.search.keys.{KEYS['search'].id}.sha256"]),
    ):
        with running("gateway", "--redis", redis_url, "--listen", "127.0.0.1:0", *options) as process:
            assert process.wait() == 1
            [line] = log_lines(process)
            assert line["event"] == "cannot serve"
            assert [reason for reason in reasons if reason not in line["error"]] == []
            assert KEYS["search"].sha256 not in process.log
