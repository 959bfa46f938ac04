"""What clients may do to a gateway that mean no good, or know no better: all of it ends, and takes little."""

import struct
import zlib

import grpc
import psutil
import pytest

from gateway.identity.api_keys import ApiKey
from qwen3.inference.v1.embedding_pb2 import EmbedRequest
from tests.support.echo import EchoWorker, eventually
from tests.support.http2 import (
    RST_STREAM,
    Http2,
    call_headers,
    data,
    frame,
    headers,
    message,
)
from tests.support.processes import gateway
from tests.support.redis_servers import embedded_binary, redis_server
from tests.support.wire import TIMEOUT_S, Stubs, refusal

SERVICE = "/qwen3.inference.v1.EmbeddingService"
MIB = 2**20


@pytest.fixture(scope="module")
def redis_url():
    with redis_server(embedded_binary()) as url:
        yield url


@pytest.fixture(scope="module", autouse=True)
def worker(redis_url):
    with EchoWorker(redis_url, "emb") as found:
        yield found


@pytest.fixture(scope="module")
def service(redis_url):
    with gateway(redis_url, "--default-timeout-s", "1", "--max-request-bytes", str(MIB)) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(redis_url, tmp_path_factory):
    """The address of a gateway that knows one key."""
    access, key = tmp_path_factory.mktemp("access") / "access.toml", ApiKey.new()
    access.write_text(f'[tenants.a]\nmodels = ["*"]\n[tenants.a.keys.{key.id}]\nsha256 = "{key.sha256}"\n')
    with gateway(redis_url, "--access", str(access)) as (_, address):
        yield address


@pytest.fixture
def connection(service):
    with Http2(service[1], timeout_s=TIMEOUT_S) as found:
        yield found


def rss(service) -> int:
    return psutil.Process(service[0].pid).memory_info().rss


def serves(service) -> bool:
    stubs = Stubs(service[1])
    found = stubs.embed(["text"], timeout_s=TIMEOUT_S)
    stubs.channel.close()
    return len(found.embeddings) == 1


def status(code: grpc.StatusCode) -> str:
    return f"status {code.value[0]}"


@pytest.mark.parametrize("rpc", ["Embed", "EmbedStream"])
def test_nobodys_message_is_not_waited_for(guarded, rpc):
    with Http2(guarded, timeout_s=TIMEOUT_S) as connection:
        connection.send(headers(1, *call_headers(f"{SERVICE}/{rpc}")), data(1, message(b"half", length=1000)))
        assert connection.ending(1) == status(grpc.StatusCode.UNAUTHENTICATED)


def test_whoever_sends_much_without_a_key_is_told_so(guarded):
    stubs = Stubs(guarded)
    with pytest.raises(grpc.RpcError) as caught:
        stubs.embed(["x" * 1_000_000] * 20)
    assert refusal(caught.value).reason == "UNAUTHENTICATED"
    stubs.channel.close()


@pytest.mark.parametrize("sent", [b"", message(b"half", length=1000)], ids=["nothing", "half of it"])
@pytest.mark.parametrize("rpc", ["Embed", "EmbedStream"])
def test_a_message_that_does_not_come_ends_its_call_at_the_usual_deadline(connection, rpc, sent):
    connection.send(headers(1, *call_headers(f"{SERVICE}/{rpc}")), *([data(1, sent)] if sent else []))
    assert connection.ending(1) == status(grpc.StatusCode.DEADLINE_EXCEEDED)


def test_a_call_without_its_message_is_malformed(connection):
    connection.send(headers(1, *call_headers(f"{SERVICE}/Embed"), ends=True))
    assert connection.ending(1) == status(grpc.StatusCode.INVALID_ARGUMENT)


def test_a_message_that_inflates_beyond_the_limit_is_refused_and_takes_little(service, connection):
    assert serves(service)
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(MIB)
    packed = b"".join([*(packer.compress(zeros) for _ in range(60)), packer.flush()])  # within the first window
    before = rss(service)
    connection.send(
        headers(1, *call_headers(f"{SERVICE}/Embed", (b"grpc-encoding", b"gzip"))),
        data(1, message(packed, compressed=1), ends=True),
    )
    assert connection.ending(1) == status(grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert rss(service) - before < 30 * MIB


def test_metadata_have_a_limit(service):
    stubs, request = Stubs(service[1]), EmbedRequest(inputs=["text"])
    metadata = [(f"x-{number}", "y" * 1000) for number in range(18)]
    assert stubs.embedding.Embed(request, metadata=metadata[:14], timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as caught:
        stubs.embedding.Embed(request, metadata=metadata, timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    stubs.channel.close()


def test_calls_that_are_reset_at_once_leave_nothing_behind(service, worker):
    with Http2(service[1], timeout_s=TIMEOUT_S) as connection:
        for stream in range(1, 4000, 2):
            reset = frame(RST_STREAM, stream=stream, payload=struct.pack(">I", 8))
            connection.send(headers(stream, *call_headers(f"{SERVICE}/Embed")), reset)
        assert connection.answers_ping()
    assert serves(service)
    eventually(lambda: worker.num_queued() == 0)


def test_connections_that_say_nothing_keep_nobody_out(service):
    idle = [Http2(service[1], timeout_s=TIMEOUT_S) for _ in range(300)]
    assert serves(service)
    for connection in idle:
        connection.__exit__(None, None, None)
    connected = psutil.Process(service[0].pid)
    eventually(lambda: len(connected.net_connections("tcp")) < 20)


def test_a_broken_header_is_not_in_the_log(service, connection):
    fields = call_headers(f"{SERVICE}/Embed", (b"authorization", b"Bearer sesame\xff"))
    body = message(EmbedRequest(inputs=["text"]).SerializeToString())
    connection.send(headers(1, *fields), data(1, body, ends=True))
    assert connection.ending(1) == "status 0"
    assert "sesame" not in service[0].log
    assert all(line.startswith("{") for line in service[0].log.splitlines())
