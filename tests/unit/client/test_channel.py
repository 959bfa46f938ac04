import json

import grpc
import pytest

from qwen3_client.channel import channel_options


def service_config(target):
    return json.loads(dict(channel_options(target))["grpc.service_config"])


@pytest.mark.parametrize("target", ["127.0.0.1:50051", "gateway:50051", "dns:///gateway:50051"])
def test_what_the_server_has_not_begun_is_tried_again(target):
    methods, streams = service_config(target)["methodConfig"]
    assert methods["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
    assert streams.keys() == {"name"}


@pytest.mark.parametrize("target", ["dns:///gateway:50051", "ipv4:127.0.0.1:50051,127.0.0.1:50052"])
def test_calls_go_round_robin_to_healthy_gateways_where_the_target_names_several(target):
    config = service_config(target)
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    assert config["healthCheckConfig"] == {"serviceName": ""}


@pytest.mark.parametrize("target", ["127.0.0.1:50051", "gateway:50051", "unix:/run/gateway.sock"])
def test_a_single_address_is_called_whatever_its_health_says(target):
    assert service_config(target).keys() == {"methodConfig"}


def test_the_options_are_understood_by_grpc():
    with grpc.insecure_channel("dns:///localhost:1", options=channel_options("dns:///localhost:1")) as channel:
        call = channel.unary_unary("/any/Call").future(b"", timeout=0.05)
        assert call.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
