"""Health per service and model, asked, listed and watched; and reflection."""

import signal

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from jobqueue.messages import Operation
from tests.support.echo import EchoWorker, eventually
from tests.support.processes import gateway
from tests.support.wire import TIMEOUT_S, refusal

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
EMBEDDING, RERANK, TOKENIZER, MODEL = (
    f"qwen3.inference.v1.{name}Service" for name in ("Embedding", "Rerank", "Tokenizer", "Model")
)


@pytest.fixture(scope="module")
def embedder(redis_url):
    with EchoWorker(redis_url, "emb") as worker:
        yield worker


@pytest.fixture(scope="module")
def channel(redis_url, embedder):
    with gateway(redis_url) as (_, address), grpc.insecure_channel(address) as found:
        yield found


@pytest.fixture(scope="module")
def health(channel):
    return health_pb2_grpc.HealthStub(channel)


def check(health, service: str) -> int:
    return health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S).status


def watch(health, service: str):
    return health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)


@pytest.mark.parametrize("service", ["", EMBEDDING, TOKENIZER, MODEL, "model:emb"])
def test_what_could_answer_serves(health, service):
    assert check(health, service) == SERVING


def test_a_service_without_a_model_does_not_serve(health):
    assert check(health, RERANK) == NOT_SERVING


@pytest.mark.parametrize("service", ["model:nope", "emb", "nobody.Service"])
def test_an_unknown_service_is_not_found(health, service):
    with pytest.raises(grpc.RpcError) as caught:
        check(health, service)
    found = refusal(caught.value)
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_SERVICE")


def test_all_are_listed(health):
    statuses = health.List(health_pb2.HealthListRequest(), timeout=TIMEOUT_S).statuses
    assert {EMBEDDING, RERANK, TOKENIZER, MODEL, "", "model:emb"} <= set(statuses)
    assert all(found.status == check(health, name) for name, found in statuses.items())


def test_a_watch_follows_a_model_from_before_it_is_known(health, redis_url):
    statuses = (response.status for response in watch(health, "model:rer"))
    assert next(statuses) == SERVICE_UNKNOWN
    service = (response.status for response in watch(health, RERANK))
    assert next(service) == NOT_SERVING
    with EchoWorker(redis_url, "rer", Operation.RERANK):
        assert next(statuses) == SERVING
        assert next(service) == SERVING
    assert next(statuses) == NOT_SERVING
    assert next(service) == NOT_SERVING
    with EchoWorker(redis_url, "rer", Operation.RERANK):
        assert next(statuses) == SERVING


def test_a_watch_of_what_does_not_change_is_silent(health, redis_url):
    silent, other = watch(health, "model:late"), watch(health, "model:early")
    assert next(silent).status == next(other).status == SERVICE_UNKNOWN
    with EchoWorker(redis_url, "early"):
        assert next(other).status == SERVING
    assert next(other).status == NOT_SERVING
    with EchoWorker(redis_url, "late"):
        assert next(silent).status == SERVING  # and nothing before it


def test_draining_is_told_to_watches_and_ends_them(redis_url, embedder):
    with gateway(redis_url, "--drain-grace-s", "300") as (process, address), grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        streams = [watch(stub, service) for service in ("", "model:emb", MODEL)]
        unknown = watch(stub, "model:nope")
        assert [next(stream).status for stream in streams] == [SERVING] * 3
        assert next(unknown).status == SERVICE_UNKNOWN
        process.signal(signal.SIGTERM)
        assert [next(stream).status for stream in streams] == [NOT_SERVING] * 3
        for stream in (*streams, unknown):
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert refusal(caught.value).reason == "DRAINING"
        assert process.wait() == 0


def test_many_abandoned_watches_do_no_harm(health):
    streams = [watch(health, "") for _ in range(50)]
    assert all(next(stream).status == SERVING for stream in streams)
    for stream in streams:
        stream.cancel()
    eventually(lambda: check(health, "") == SERVING)


def reflect(channel, **request):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(**request)])
    [response] = stub.ServerReflectionInfo(requests, timeout=TIMEOUT_S)
    return response


def test_reflection_lists_all_services(channel):
    response = reflect(channel, list_services="")
    names = {service.name for service in response.list_services_response.service}
    others = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert names == {EMBEDDING, RERANK, TOKENIZER, MODEL} | others


@pytest.mark.parametrize("symbol", [EMBEDDING, RERANK, TOKENIZER, MODEL, "qwen3.inference.v1.EmbedRequest"])
def test_reflection_describes_what_it_lists(channel, symbol):
    response = reflect(channel, file_containing_symbol=symbol)
    files = response.file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(files[0]).package == "qwen3.inference.v1"
