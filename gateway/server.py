"""The gRPC server: its options, its services, its address."""

from collections.abc import Sequence
from typing import Any

import grpc.aio
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.config import GatewaySettings
from gateway.health import SERVICES, HealthService
from gateway.interceptors import CallInterceptor
from gateway.parts import Parts
from gateway.service import add_services
from runtime.errors import SettingError

MOST_PENDING = 2**31 - 1
# A key, a token of some proxy and a trace are a few KiB. gRPC's own limits take 90 KiB, and refuse less by chance.
MAX_METADATA_BYTES = 16 * 1024
# A client may ask every 10 s, with some jitter, whether we live; one that asks in a flood is cut off.
MIN_PING_INTERVAL_MS = 5_000
# We ask of our own accord, so that a client whose machine is gone does not hold a connection for hours.
PING_EVERY_MS = 60_000
PING_TIMEOUT_MS = 20_000


def build_server(
    settings: GatewaySettings,
    parts: Parts,
    health: HealthService,
    calls: CallInterceptor,
    credentials: grpc.ServerCredentials | None,
) -> tuple[grpc.aio.Server, str]:
    """A server that is bound but not started, and its HOST:PORT. Raises SettingError."""
    server = grpc.aio.server(interceptors=[calls], options=_options(settings))
    add_services(server, parts)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection([*SERVICES, health_name, reflection.SERVICE_NAME], server)
    if settings.admin:
        channelz.add_channelz_servicer(server)
    return server, _bind(server, settings, credentials)


def _options(settings: GatewaySettings) -> Sequence[tuple[str, Any]]:
    return [
        ("grpc.so_reuseport", int(settings.processes > 1)),
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        # Beyond these gRPC cancels calls at random, without a word; our own limit answers them.
        ("grpc.server.max_pending_requests", MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", MOST_PENDING),
        ("grpc.keepalive_time_ms", PING_EVERY_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
        ("grpc.enable_channelz", int(settings.admin)),
        *_age_options(settings),
    ]


def _age_options(settings: GatewaySettings) -> Sequence[tuple[str, Any]]:
    """An old connection takes no new calls; those it has get as long as any may take by our own settings.

    A stream, which may have begun when its connection was old, ends by itself when it is as old, and after its chunks.
    A call whose client sets a later deadline is cut with its connection.
    """
    if settings.max_connection_age_s is None:
        return []
    grace_s = max(settings.default_timeout_s, settings.max_connection_age_s + settings.stream_chunk_timeout_s)
    return [
        ("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", int(grace_s * 1000)),
    ]


def _bind(server: grpc.aio.Server, settings: GatewaySettings, credentials: grpc.ServerCredentials | None) -> str:
    host, _, _ = settings.listen.rpartition(":")
    try:
        if credentials:
            port = server.add_secure_port(settings.listen, credentials)
        else:
            port = server.add_insecure_port(settings.listen)
    except RuntimeError as error:
        raise SettingError(f"--listen {settings.listen}: cannot listen there") from error
    return f"{host}:{port}"
