"""How channels are opened: retries of what the server has not begun, and no proxy to this machine."""

import json
from typing import Any

DEFAULT_TARGET = "127.0.0.1:50051"

# UNAVAILABLE is the server's word for "not begun: come back", with grpc-retry-pushback-ms saying when, which grpc
# obeys. Five attempts are the most that grpc makes.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
# grpc gives up retrying a call whose messages outgrow this; its default of 256 KiB is less than 64 long texts.
_RETRY_BUFFER_BYTES = 32 * 1024 * 1024
_THIS_MACHINE = ("127.", "localhost:", "[::1]:", "0.0.0.0:", "[::]:", "unix:")


def channel_options(target: str) -> list[tuple[str, Any]]:
    """Options of a sync or async channel to `target`."""
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER_BYTES),
    ]
    if target.startswith(_THIS_MACHINE):
        options.append(("grpc.enable_http_proxy", 0))  # else http_proxy would send local calls away
    return options
