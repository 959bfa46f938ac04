"""The gateway's life: connect, listen, serve until told to stop, drain."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import grpc.aio
import structlog
from opentelemetry.trace import Tracer

from gateway.config import GatewaySettings
from gateway.health import HealthService, health_of
from gateway.identity.security import Security, secure
from gateway.interceptors import CallInterceptor
from gateway.observing.monitoring import Monitoring, monitored
from gateway.observing.observers import CallLog, CallObserver
from gateway.observing.tracing import CallTraces
from gateway.parts import Parts, StreamLimits
from gateway.quotas import Quotas
from gateway.registry import Registry
from gateway.server import build_server
from gateway.sharing.answers import Answers, CachePolicy
from gateway.tokenization import Tokenization
from gateway.validation import Limits
from jobqueue.cache import CacheLimits
from jobqueue.connection import AsyncRedis, connect_async, probe_async
from jobqueue.errors import QueueAwayError
from jobqueue.limits import QueueLimits
from jobqueue.producer import Producer
from runtime.ready import say_ready

RECONNECT_S = 1.0
LAST_WORDS_S = 2.0  # for those who outlast the grace and are told so

log = structlog.get_logger()


async def serve(settings: GatewaySettings, stopping: asyncio.Event, tracer: Tracer | None) -> None:
    """Serve until `stopping` is set, then let calls in flight finish within the grace.

    Prints `ready HOST:PORT` once it listens, and the awaited models are served. Raises UnsuitableServerError for a
    Redis that could lose jobs, SettingError for an address that cannot be listened on or a file that cannot be used.
    """
    security = secure(settings)
    async with _client(settings.redis) as redis, monitored(settings, redis, stopping) as monitoring:
        await _await_redis(redis, stopping)
        if stopping.is_set():
            return
        observers = [*_traces(tracer, settings), *monitoring.observers, CallLog()]
        parts = _parts(settings, redis, observers)
        with contextlib.closing(parts.tokenization):
            await parts.registry.refresh()  # before the kernel lets clients in, who would have to wait for it
            await _serve_calls(settings, parts, security, monitoring, stopping)


async def _serve_calls(
    settings: GatewaySettings, parts: Parts, security: Security, monitoring: Monitoring, stopping: asyncio.Event
) -> None:
    health = HealthService(parts.registry)
    calls = CallInterceptor(
        default_timeout_s=settings.default_timeout_s,
        max_in_flight=settings.max_calls_in_flight,
        identify=security.identify,
        observers=parts.observers,
        draining=parts.draining,
    )
    server, address = build_server(settings, parts, health, calls, security.credentials)
    beside = (parts.registry.run(), security.follow(), monitoring.run())
    async with parts.producer, parts.quotas, _beside(*beside), _started(server, calls):
        monitoring.serves(parts.registry)
        await _announce(address, settings.await_models, parts.registry, stopping)
        _tell_uncached(settings.cache, parts.registry)
        await stopping.wait()
        log.info("draining")
        monitoring.drains()
        await _drain(server, health, calls, settings)


def _parts(settings: GatewaySettings, redis: AsyncRedis, observers: Sequence[CallObserver]) -> Parts:
    return Parts(
        registry=Registry(redis, pinned=settings.pin),
        tokenization=Tokenization(num_threads=settings.tokenizer_threads),
        producer=Producer(redis, _queue_limits(settings)),
        answers=Answers(redis, _cache_policy(settings)),
        quotas=Quotas(redis),
        limits=_limits(settings),
        stream_limits=_stream_limits(settings),
        observers=observers,
        draining=asyncio.Event(),
    )


@contextlib.asynccontextmanager
async def _beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Do the endless `work` inside. Where a part of it fails, so does what is inside, in an ExceptionGroup."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each) for each in work]
        yield
        for task in running:
            task.cancel()


@contextlib.asynccontextmanager
async def _started(server: grpc.aio.Server, calls: CallInterceptor) -> AsyncIterator[None]:
    """Take calls inside. Those in flight where something fails there are told to go elsewhere."""
    await server.start()
    try:
        yield
    finally:
        await _stop(server, calls, grace_s=0)


async def _drain(
    server: grpc.aio.Server, health: HealthService, calls: CallInterceptor, settings: GatewaySettings
) -> None:
    """Leave in three steps, so that nothing is cut that could have finished.

    1. The lame duck says that it is not serving, but serves: balancers, and clients that watch it, go elsewhere.
    2. Connections are closed for new calls, which clients make elsewhere; those in flight get the grace.
    3. Those that outlast it are told to go elsewhere too.

    gRPC cancels, without a word, the calls that arrive before their client has heard of the second step. Clients
    that try CANCELLED ones again, as docs/operations.md asks them to, notice nothing.
    """
    health.drain()
    await asyncio.sleep(settings.lame_duck_s)
    await _stop(server, calls, grace_s=settings.drain_grace_s)


async def _stop(server: grpc.aio.Server, calls: CallInterceptor, *, grace_s: float) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.stop(grace_s + LAST_WORDS_S))
        tasks.create_task(calls.drain(grace_s))


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


async def _announce(address: str, models: Iterable[str], registry: Registry, stopping: asyncio.Event) -> None:
    """Say that we are ready once calls to each of the models could succeed; never, if stopped before."""
    awaited = {f"model:{id_}" for id_ in models}
    while not stopping.is_set():
        update = registry.next_update()
        health = health_of(registry.catalog, draining=False)
        if all(health.get(name) for name in awaited):
            say_ready(address)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(update.wait(), RECONNECT_S)


def _tell_uncached(names: Iterable[str], registry: Registry) -> None:
    """A worker may come later; a typing error stays."""
    if unserved := sorted({*names} - {"*"} - registry.catalog.models.keys()):
        log.warning("cache is for models that nobody serves", models=unserved)


def _traces(tracer: Tracer | None, settings: GatewaySettings) -> Iterator[CallObserver]:
    if tracer is not None:
        yield CallTraces(tracer, share=settings.trace_share)


def _limits(settings: GatewaySettings) -> Limits:
    return Limits(
        max_embed_inputs=settings.max_embed_inputs,
        max_rerank_documents=settings.max_rerank_documents,
        max_text_bytes=settings.max_text_bytes,
        max_request_tokens=settings.max_request_tokens,
        default_embedding_model=settings.default_embedding_model,
        default_rerank_model=settings.default_rerank_model,
    )


def _stream_limits(settings: GatewaySettings) -> StreamLimits:
    return StreamLimits(
        max_chunks=settings.max_stream_chunks,
        config_timeout_s=settings.default_timeout_s,
        chunk_timeout_s=settings.stream_chunk_timeout_s,
        max_age_s=settings.max_connection_age_s,
    )


def _cache_policy(settings: GatewaySettings) -> CachePolicy:
    limits = CacheLimits(max_bytes=settings.cache_max_mib * 2**20, lifetime_ms=int(settings.cache_ttl_s * 1000))
    return CachePolicy(models=frozenset(settings.cache), across_tenants=settings.cache_scope == "all", limits=limits)


def _queue_limits(settings: GatewaySettings) -> QueueLimits:
    return QueueLimits(
        max_tokens=settings.max_queue_tokens,
        max_jobs=settings.max_queue_jobs,
        bulk_share=settings.bulk_share,
        max_job_tokens=settings.max_job_tokens,
        max_wait_ms=int(settings.max_wait_s * 1000),
    )
