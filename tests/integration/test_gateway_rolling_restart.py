"""Restarts under load: what a client notices that tries again as docs/operations.md asks it to."""

import contextlib
import signal

import grpc
import pytest

from qwen3.inference.v1 import embedding_pb2, embedding_pb2_grpc
from tests.support.echo import EchoWorker, eventually
from tests.support.load import Load, open_channel
from tests.support.processes import gateway, running
from tests.support.wire import TIMEOUT_S

NUM_RESTARTS = 2


@pytest.fixture
def worker(redis_url):
    with EchoWorker(redis_url, "emb") as worker:
        yield worker


@pytest.mark.parametrize("scheme", ["", "ipv4:"])  # one gateway as far as the client knows; a list of them
def test_no_call_fails_when_the_processes_of_a_gateway_are_replaced(redis_url, worker, scheme):
    with gateway(redis_url, "--processes", "2") as (process, address), Load(scheme + address) as load:
        for number in range(1, NUM_RESTARTS + 1):
            load.more()
            process.signal(signal.SIGHUP)
            eventually(lambda number=number: process.log.count('"restarted"') == number)
        load.more()
    assert set(load.codes) == {"OK"}


def test_no_call_fails_when_one_of_two_gateways_is_stopped_and_comes_back(redis_url, worker):
    with gateway(redis_url) as (_, staying), contextlib.ExitStack() as stack:
        process, address = stack.enter_context(gateway(redis_url))
        with Load(f"ipv4:{staying},{address}") as load:
            for _ in range(NUM_RESTARTS):
                load.more()
                assert process.stop() == 0
                load.more()
                process = stack.enter_context(running("gateway", "--redis", redis_url, "--listen", address))
                process.ready()
            load.more()
    assert set(load.codes) == {"OK"}


@contextlib.contextmanager
def three_gateways(redis_url):
    """Their processes, and the target that names them all."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(gateway(redis_url)) for _ in range(3)]
        yield [process for process, _ in started], "ipv4:" + ",".join(address for _, address in started)


def call(channel: grpc.Channel) -> grpc.Future:
    embed = embedding_pb2_grpc.EmbeddingServiceStub(channel).Embed
    return embed.future(embedding_pb2.EmbedRequest(inputs=["text"]), timeout=TIMEOUT_S)


def one_each(channel: grpc.Channel, processes: list) -> list[grpc.Future]:
    """Calls, among them at least one on each of the gateways; all are answered."""
    calls = []
    while not all('"call"' in process.log for process in processes):
        calls.append(call(channel))
        calls[-1].result()
    return calls


def test_a_killed_gateway_takes_only_its_calls_in_flight_with_it(redis_url, worker):
    round_robin = ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')
    with three_gateways(redis_url) as (processes, target), contextlib.ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(target, options=[round_robin]))
        one_each(channel, processes)
        worker.hold()
        calls = [call(channel) for _ in range(30)]
        eventually(lambda: worker.num_queued() == 30)
        processes[0].kill()
        eventually(lambda: sum(each.done() for each in calls) == 10)
        worker.release()
        assert [each.code() for each in calls if each.exception()] == [grpc.StatusCode.UNAVAILABLE] * 10
        assert all(call(channel).exception() is None for _ in range(30))


def test_calls_on_a_killed_gateway_succeed_when_tried_again(redis_url, worker):
    with three_gateways(redis_url) as (processes, target), contextlib.closing(open_channel(target)) as channel:
        one_each(channel, processes)
        worker.hold()
        calls = [call(channel) for _ in range(30)]
        eventually(lambda: worker.num_queued() == 30)
        processes[0].kill()
        eventually(lambda: worker.num_queued() == 40)  # ten of them for the second time
        worker.release()
        assert [each.exception() for each in calls] == [None] * 30
