"""Connections: how old they may grow, how often they may ask, how much they may carry, and who may look at them."""

import contextlib
import queue
import socket
import struct
import time

import grpc
import psutil
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from gateway.config import GatewaySettings
from gateway.identity.api_keys import ApiKey
from qwen3.inference.v1 import embedding_pb2, model_pb2
from runtime.settings_fields import settings_of
from tests.support.echo import eventually
from tests.support.load import Load
from tests.support.processes import gateway, running
from tests.support.wire import TIMEOUT_S, Stubs, refusal

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ENHANCE_YOUR_CALM = 11


@contextlib.contextmanager
def serving(redis_url: str, *options: str):
    """A gateway: its process and its stubs."""
    with gateway(redis_url, *options) as (process, address):
        stubs = Stubs(address)
        yield process, stubs
        stubs.channel.close()


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, 0]) + bytes(4) + payload


def frames(connection: socket.socket):
    """Each one's kind and payload, until the connection ends."""
    with connection.makefile("rb") as stream:
        while header := stream.read(9):
            yield header[3], stream.read(int.from_bytes(header[:3], "big"))


def clients_of(process) -> set[int]:
    """The ports of those who are connected."""
    found = psutil.Process(process.pid).net_connections("tcp")
    return {connection.raddr.port for connection in found if connection.status == psutil.CONN_ESTABLISHED}


def test_old_connections_are_replaced_and_no_call_fails(redis_url, worker):
    seen = set()
    with gateway(redis_url, "--max-connection-age-s", "0.5") as (process, address):
        with Load(address, num_channels=2) as load:
            while len(seen) < 6:
                load.more(10)
                seen |= clients_of(process)
        assert set(load.codes) == {"OK"}


def test_an_old_connection_stays_for_the_calls_that_it_has(redis_url, worker):
    with serving(redis_url, "--max-connection-age-s", "0.5") as (process, stubs):
        worker.hold()
        call = stubs.embedding.Embed.future(embedding_pb2.EmbedRequest(inputs=["text"]), timeout=TIMEOUT_S)
        eventually(lambda: worker.num_queued() == 1)
        [old] = clients_of(process)
        models = model_pb2.ListModelsRequest()
        eventually(lambda: stubs.models.ListModels(models, timeout=TIMEOUT_S) and clients_of(process) > {old})
        worker.release()
        assert len(call.result().embeddings) == 1


def test_a_call_whose_deadline_is_later_than_the_gateways_own_may_be_cut_with_its_old_connection(redis_url, worker):
    limits = ("--max-connection-age-s", "--stream-chunk-timeout-s", "--default-timeout-s")
    with serving(redis_url, *(word for limit in limits for word in (limit, "0.5"))) as (_, stubs):
        worker.hold()
        eventually(lambda: code_of(stubs) is grpc.StatusCode.UNAVAILABLE)  # or late, on a busy machine


def code_of(stubs: Stubs) -> grpc.StatusCode:
    return stubs.embedding.Embed.future(embedding_pb2.EmbedRequest(inputs=["text"]), timeout=TIMEOUT_S).code()


def test_a_flood_of_pings_ends_the_connection(redis_url):
    with gateway(redis_url) as (_, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
            connection.sendall(PREFACE + frame(SETTINGS) + frame(PING, b"12345678") * 100)
            payload = next(payload for kind, payload in frames(connection) if kind == GOAWAY)
        assert int.from_bytes(payload[4:8], "big") == ENHANCE_YOUR_CALM


@pytest.mark.slow
def test_a_client_that_pings_every_ten_seconds_keeps_its_connection(redis_url):
    keepalive = [("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_permit_without_calls", 1)]
    unlimited = [*keepalive, ("grpc.http2.max_pings_without_data", 0)]
    with gateway(redis_url) as (process, address), grpc.insecure_channel(address, options=unlimited) as channel:
        grpc.channel_ready_future(channel).result(TIMEOUT_S)
        before = clients_of(process)
        time.sleep(60)
        assert clients_of(process) == before


def test_a_message_beyond_the_limit_is_refused(redis_url, worker):
    with serving(redis_url, "--max-request-bytes", "2000") as (_, stubs):
        assert len(stubs.embed(["a" * 1000]).embeddings) == 1
        with pytest.raises(grpc.RpcError) as caught:
            stubs.embed(["a" * 3000])
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_largest_settings_are_taken_by_grpc_and_redis(redis_url, worker):
    bounds = settings_of(GatewaySettings)
    names = ("max_request_bytes", "max_concurrent_streams", "max_connection_age_s", "stream_chunk_timeout_s")
    names += ("default_timeout_s", "lame_duck_s", "drain_grace_s", "max_wait_s", "cache_ttl_s")
    largest = [f"{bounds[name].flag}={bounds[name].bounds.rpartition('<= ')[2]}" for name in names]
    with serving(redis_url, "--cache=*", *largest) as (process, stubs):
        assert len(stubs.embed(["text"]).embeddings) == 1
        assert process.log.count('"level": "error"') == 0


def test_a_call_whose_message_never_comes_ends_whatever_deadline_it_has(redis_url):
    with serving(redis_url, "--default-timeout-s", "0.5") as (_, stubs):
        messages = queue.SimpleQueue()
        embed = stubs.channel.stream_unary("/qwen3.inference.v1.EmbeddingService/Embed")
        call = embed.future(iter(messages.get, None), timeout=3600)
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert refusal(call).reason == "DEADLINE_EXCEEDED"  # the gateway's word
        messages.put(None)


def test_calls_beyond_a_connections_limit_wait_for_their_turn(redis_url, worker):
    with serving(redis_url, "--max-concurrent-streams", "3") as (_, stubs):
        stubs.embed(["text"])  # until the server's settings have come, a client knows of no limit
        worker.hold()
        request = embedding_pb2.EmbedRequest(inputs=["text"])
        calls = [stubs.embedding.Embed.future(request, timeout=TIMEOUT_S) for _ in range(5)]
        eventually(lambda: worker.num_queued() == 3)
        with pytest.raises(grpc.RpcError) as caught:  # in the queue behind the other two
            stubs.models.ListModels(model_pb2.ListModelsRequest(), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert worker.num_queued() == 3
        worker.release()
        assert [len(call.result().embeddings) for call in calls] == [1] * 5


def test_admin_is_refused_where_everybody_would_be_an_operator(redis_url):
    with running("gateway", "--redis", redis_url, "--listen", "127.0.0.1:0", "--admin") as process:
        assert process.wait() == 2
        assert "--admin" in process.log


def test_operators_see_connections(redis_url, tmp_path):
    key = ApiKey.new()
    access = tmp_path / "access.toml"
    access.write_text(
        f'[tenants.ops]\nmodels = ["*"]\noperator = true\n[tenants.ops.keys.{key.id}]\nsha256 = "{key.sha256}"\n'
    )
    with serving(redis_url, "--access", str(access), "--admin") as (_, stubs):
        channelz = channelz_pb2_grpc.ChannelzStub(stubs.channel)
        with pytest.raises(grpc.RpcError) as caught:
            channelz.GetServers(channelz_pb2.GetServersRequest(), timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", f"Bearer {key.reveal()}"),)
        found = channelz.GetServers(channelz_pb2.GetServersRequest(), timeout=TIMEOUT_S, metadata=metadata)
        assert len(found.server) == 1
