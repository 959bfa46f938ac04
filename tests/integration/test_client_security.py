"""Both clients over TLS, with keys and certificates, against real gateways."""

import pytest

from gateway.identity.api_keys import ApiKey
from qwen3_client import AsyncClient, Tls, UnauthenticatedError, UnavailableError
from tests.support.certificates import Authority, TlsFiles
from tests.support.clients import CLIENTS
from tests.support.echo import EchoWorker
from tests.support.processes import gateway

KEY = ApiKey.new()
TEXTS = [f"text {number}" for number in range(300)]


@pytest.fixture(params=CLIENTS)
def connect(request):
    return CLIENTS[request.param]


@pytest.fixture(scope="module")
def worker(redis_url):
    with EchoWorker(redis_url, "client-security"):
        yield ["--default-embedding-model", "client-security", "--await-models", "client-security"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Certificates of the server and the client, their authorities, and another one."""
    found = tmp_path_factory.mktemp("tls")
    servers, clients = Authority(), Authority()
    TlsFiles.written(found, servers.named("gateway.internal", "127.0.0.1"), clients.pem)
    clients.named("client.internal").write(found / "client.crt", found / "client.key")
    (found / "ca.crt").write_bytes(servers.pem)
    (found / "other.crt").write_bytes(Authority().pem)
    (found / "access.toml").write_text(
        f'[tenants.t]\nmodels = ["client-security"]\nkeys.{KEY.id} = {{ sha256 = "{KEY.sha256}" }}\n'
    )
    return found


@pytest.fixture(scope="module")
def address(redis_url, worker, folder):
    """Wants a client's certificate and a key."""
    files = TlsFiles(cert=folder / "tls.crt", key=folder / "tls.key", client_ca=folder / "clients.crt")
    with gateway(redis_url, *worker, *files.options, "--access", str(folder / "access.toml")) as (_, address):
        yield address


def tls(folder, ca="ca.crt", **options) -> Tls:
    return Tls(ca_file=folder / ca, cert_file=str(folder / "client.crt"), key_file=folder / "client.key", **options)


@pytest.mark.parametrize("num_texts", [1, 300])
def test_a_certificate_and_a_key_are_shown_with_every_kind_of_call(address, folder, connect, num_texts):
    with connect(address, tls=tls(folder), token=KEY.reveal()) as client:
        assert len(client.embed(TEXTS[:num_texts]).vectors) == num_texts


def test_a_token_is_asked_for_anew_for_every_call(address, folder, connect):
    tokens = iter(["q3_wrong_key", KEY.reveal()])
    with connect(address, tls=tls(folder), token=lambda: next(tokens)) as client:
        with pytest.raises(UnauthenticatedError):
            client.embed(TEXTS)
        assert len(client.embed(TEXTS).vectors) == 300


async def test_an_async_token_is_awaited(address, folder):
    async def token() -> str:
        return KEY.reveal()

    async with AsyncClient(address, tls=tls(folder), token=token) as client:
        assert len((await client.embed(TEXTS)).vectors) == 300


def test_a_server_under_another_name_is_trusted_where_the_name_is_given(address, folder, connect):
    host = f"localhost:{address.rpartition(':')[2]}"
    with connect(host, tls=tls(folder), token=KEY.reveal()) as client, pytest.raises(UnavailableError):
        client.models()
    with connect(host, tls=tls(folder, server_name="gateway.internal"), token=KEY.reveal()) as client:
        assert client.models()


def test_a_server_that_is_not_trusted_gets_nothing(address, folder, connect):
    with connect(address, tls=tls(folder, ca="other.crt"), token=KEY.reveal()) as client:
        with pytest.raises(UnavailableError):
            client.embed(["text"])
        with pytest.raises(UnavailableError):
            client.embed(TEXTS, timeout_s=1)


def test_a_client_without_a_certificate_is_not_served(address, folder, connect):
    with (
        connect(address, tls=Tls(ca_file=folder / "ca.crt"), token=KEY.reveal()) as client,
        pytest.raises(UnavailableError),
    ):
        client.models()


def test_a_name_stands_for_several_gateways(address, folder, connect):
    port = address.rpartition(":")[2]
    secure = tls(folder, server_name="gateway.internal")
    with connect(f"dns:///localhost:{port}", tls=secure, token=KEY.reveal()) as client:
        assert len(client.embed(TEXTS).vectors) == 300
