"""The gateway's life: connect, listen, serve until told to stop, drain."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict

import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.access import identify_nobody
from gateway.config import GatewaySettings
from gateway.health import SERVICES, HealthService
from gateway.interceptors import CallInterceptor
from gateway.observers import CallLog
from gateway.parts import Parts
from gateway.registry import Registry
from gateway.service import add_services
from gateway.tokenization import Tokenization
from gateway.validation import Limits
from jobqueue.connection import AsyncRedis, connect_async, probe_async
from jobqueue.errors import QueueAwayError
from jobqueue.limits import QueueLimits
from jobqueue.producer import Producer
from runtime.errors import SettingError
from runtime.ready import say_ready

MAX_REQUEST_BYTES = 32 * 1024 * 1024
RECONNECT_S = 1.0
LAME_DUCK_S = 0.5
LAST_WORDS_S = 2.0  # for those who outlast the grace and are told so
MOST_PENDING = 2**31 - 1

log = structlog.get_logger()


async def serve(settings: GatewaySettings, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set, then let calls in flight finish within the grace.

    Prints `ready HOST:PORT` once it listens. Raises UnsuitableServerError for a Redis that could lose jobs,
    SettingError for an address that cannot be listened on.
    """
    async with _client(settings.redis) as redis:
        await _await_redis(redis, stopping)
        if stopping.is_set():
            return
        producer = Producer(redis, _queue_limits(settings))
        registry = Registry(redis, pinned=settings.pin)
        tokenization = Tokenization(num_threads=settings.tokenizer_threads)
        draining = asyncio.Event()
        parts = Parts(
            registry=registry,
            tokenization=tokenization,
            producer=producer,
            limits=_limits(settings),
            draining=draining,
        )
        health = HealthService(registry)
        calls = CallInterceptor(
            default_timeout_s=settings.default_timeout_s,
            max_in_flight=settings.max_calls_in_flight,
            identify=identify_nobody,
            observers=[CallLog()],
            draining=draining,
        )
        server, address = _build(settings, parts, health, calls)
        await registry.refresh()
        async with producer, asyncio.TaskGroup() as tasks:
            polling = tasks.create_task(registry.run())
            await server.start()
            say_ready(address)
            await stopping.wait()
            log.info("draining")
            health.drain()
            await _drain(server, calls, settings.drain_grace_s)
            polling.cancel()
        tokenization.close()


async def _drain(server: grpc.aio.Server, calls: CallInterceptor, grace_s: float) -> None:
    """Refuse new calls, first with a time to try again, soon by closing connections; let those in flight finish.

    gRPC cancels what arrives in the moment of closing without a word, so clients get a moment to look elsewhere.
    """
    draining = asyncio.create_task(calls.drain(grace_s))
    await asyncio.sleep(LAME_DUCK_S)
    await server.stop(grace_s + LAST_WORDS_S)
    await draining


@contextlib.asynccontextmanager
async def _client(url: str) -> AsyncIterator[AsyncRedis]:
    redis = connect_async(url)
    try:
        yield redis
    finally:
        await redis.aclose()


async def _await_redis(redis: AsyncRedis, stopping: asyncio.Event) -> None:
    """Wait for a server that answers, or to be stopped: a gateway may start before its Redis does."""
    while not stopping.is_set() and not await _answers(redis):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), RECONNECT_S)


async def _answers(redis: AsyncRedis) -> bool:
    try:
        server = await probe_async(redis)
    except QueueAwayError as error:
        log.warning("waiting for redis", error=str(error))
        return False
    log.info("redis", **asdict(server))
    return True


def _build(
    settings: GatewaySettings, parts: Parts, health: HealthService, calls: CallInterceptor
) -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server(
        interceptors=[calls],
        options=[
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.so_reuseport", 0),
            # Beyond these gRPC cancels calls at random, without a word; our own limit answers them.
            ("grpc.server.max_pending_requests", MOST_PENDING),
            ("grpc.server.max_pending_requests_hard_limit", MOST_PENDING),
        ],
    )
    add_services(server, parts)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection([*SERVICES, health_name, reflection.SERVICE_NAME], server)
    host, _, _ = settings.listen.rpartition(":")
    try:
        port = server.add_insecure_port(settings.listen)
    except RuntimeError as error:
        raise SettingError(f"--listen {settings.listen}: cannot listen there") from error
    return server, f"{host}:{port}"


def _limits(settings: GatewaySettings) -> Limits:
    return Limits(
        max_embed_inputs=settings.max_embed_inputs,
        max_rerank_documents=settings.max_rerank_documents,
        max_text_bytes=settings.max_text_bytes,
        default_embedding_model=settings.default_embedding_model,
        default_rerank_model=settings.default_rerank_model,
    )


def _queue_limits(settings: GatewaySettings) -> QueueLimits:
    return QueueLimits(
        max_tokens=settings.max_queue_tokens,
        max_jobs=settings.max_queue_jobs,
        bulk_share=settings.bulk_share,
        max_job_tokens=settings.max_job_tokens,
        max_wait_ms=int(settings.max_wait_s * 1000),
    )
