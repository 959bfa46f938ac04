"""How channels are opened: retries, a choice among several gateways, and no proxy to this machine."""

import json
from typing import Any

from qwen3_client.security import Tls, is_this_machine

DEFAULT_TARGET = "127.0.0.1:50051"

# UNAVAILABLE is the server's word for "not begun: come back", with grpc-retry-pushback-ms saying when, which grpc
# obeys. CANCELLED is what grpc itself says of calls that reach a server in the moment in which it stops; those that
# we cancel are not tried again. Five attempts are the most that grpc makes.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        },
        # Streams are begun again by the client, which knows what was answered; grpc would send all of it again.
        {"name": [{"service": "qwen3.inference.v1.EmbeddingService", "method": "EmbedStream"}]},
    ]
}
# Where the target names several gateways: to each in turn, and to none that says that it is not serving. With a
# single address the second would only make calls wait, since there is no other gateway to go to.
_MANY = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
_MANY_TARGETS = ("dns:", "ipv4:", "ipv6:")
# grpc gives up retrying a call whose messages outgrow this; its default of 256 KiB is less than 64 long texts.
_RETRY_BUFFER_BYTES = 32 * 1024 * 1024
# A connection that meets a port in the moment in which a process leaves it is reset. grpc would wait a second before
# the next one, and fail calls meanwhile: longer than five attempts may take.
_FIRST_RECONNECT_MS = 100


def channel_options(target: str, tls: Tls | None = None) -> list[tuple[str, Any]]:
    """Options of a sync or async channel to `target`: HOST:PORT is one gateway, dns:///HOST:PORT all behind a name."""
    service_config = {**_RETRIES, **(_MANY if target.startswith(_MANY_TARGETS) else {})}
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER_BYTES),
        ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
    ]
    if is_this_machine(target):
        options.append(("grpc.enable_http_proxy", 0))  # else http_proxy would send local calls away
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options
