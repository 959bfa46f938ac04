"""The gateway's life: connect, listen, serve until told to stop, drain."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.config import GatewaySettings
from gateway.health import SERVICES, HealthService
from gateway.interceptors import CallInterceptor
from gateway.registry import Registry
from gateway.service import Parts, add_services
from gateway.tokenization import Tokenization
from gateway.validation import Limits
from jobqueue.connection import AsyncRedis, connect_async, probe_async
from jobqueue.errors import QueueAwayError
from jobqueue.producer import Producer, QueueLimits
from runtime.ready import say_ready

MAX_REQUEST_BYTES = 32 * 1024 * 1024
RECONNECT_S = 1.0
LAST_WORDS_S = 5.0  # for streams: every call has been answered by then

log = structlog.get_logger()


async def serve(settings: GatewaySettings, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set, then let calls in flight finish within the grace.

    Prints `ready HOST:PORT` once it listens. Raises UnsuitableServerError for a Redis that could lose jobs.
    """
    async with _client(settings.redis) as redis:
        await _await_redis(redis, stopping)
        if stopping.is_set():
            return
        producer = Producer(redis, _queue_limits(settings))
        registry = Registry(redis, pinned=settings.pin)
        tokenization = Tokenization(num_threads=settings.tokenizer_threads)
        parts = Parts(registry=registry, tokenization=tokenization, producer=producer, limits=_limits(settings))
        health, calls = HealthService(registry), CallInterceptor(default_timeout_s=settings.default_timeout_s)
        server, address = _build(settings, parts, health, calls)
        await registry.refresh()
        async with producer, asyncio.TaskGroup() as tasks:
            polling = tasks.create_task(registry.run())
            await server.start()
            say_ready(address)
            await stopping.wait()
            log.info("draining")
            health.drain()
            await calls.drain(settings.drain_grace_s)
            await server.stop(LAST_WORDS_S)
            polling.cancel()
        tokenization.close()


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
        await probe_async(redis)
    except QueueAwayError as error:
        log.warning("waiting for redis", error=str(error))
        return False
    return True


def _build(
    settings: GatewaySettings, parts: Parts, health: HealthService, calls: CallInterceptor
) -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server(
        interceptors=[calls],
        options=[("grpc.max_receive_message_length", MAX_REQUEST_BYTES), ("grpc.so_reuseport", 0)],
    )
    add_services(server, parts)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection([*SERVICES, health_name, reflection.SERVICE_NAME], server)
    host, _, _ = settings.listen.rpartition(":")
    port = server.add_insecure_port(settings.listen)
    return server, f"{host}:{port}"


def _limits(settings: GatewaySettings) -> Limits:
    return Limits(
        max_embed_inputs=settings.max_embed_inputs,
        max_rerank_documents=settings.max_rerank_documents,
        default_embedding_model=settings.default_embedding_model,
        default_rerank_model=settings.default_rerank_model,
    )


def _queue_limits(settings: GatewaySettings) -> QueueLimits:
    return QueueLimits(
        max_tokens=settings.max_queue_tokens,
        max_jobs=settings.max_queue_jobs,
        bulk_share=settings.bulk_share,
        max_job_tokens=settings.max_job_tokens,
    )
