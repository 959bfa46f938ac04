"""grpc.health.v1: per service, per model as `model:<id>`, and the whole under the empty name.

SERVING only where a request could succeed. The library's asyncio servicer lacks List, and keeps its own state; ours
derives every answer from the catalog.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.calls import Context
from gateway.errors import CallError
from gateway.reasons import Reason
from gateway.registry import Catalog, Registry
from jobqueue.messages import Operation
from qwen3.inference.v1 import embedding_pb2, model_pb2, rerank_pb2, tokenizer_pb2

_EMBEDDING = embedding_pb2.DESCRIPTOR.services_by_name["EmbeddingService"].full_name
_RERANK = rerank_pb2.DESCRIPTOR.services_by_name["RerankService"].full_name
_TOKENIZER = tokenizer_pb2.DESCRIPTOR.services_by_name["TokenizerService"].full_name
_MODEL = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name

SERVICES = (_EMBEDDING, _RERANK, _TOKENIZER, _MODEL)

_Status = health_pb2.HealthCheckResponse


def health_of(catalog: Catalog, *, draining: bool) -> Mapping[str, bool]:
    """Whether a request to each service and model could succeed."""
    up = catalog.reachable and not draining
    serving = {model.announcement.operation for model in catalog.models.values() if model.serves}
    models = {f"model:{id_}": up and model.serves for id_, model in catalog.models.items()}
    return models | {
        "": up,
        _EMBEDDING: up and Operation.EMBED in serving,
        _RERANK: up and Operation.RERANK in serving,
        _TOKENIZER: not draining and bool(catalog.models),
        _MODEL: not draining,
    }


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the library ships without types
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._draining = False

    def drain(self) -> None:
        """Say NOT_SERVING from now on. Watches go on: clients begin those that end anew, and at once."""
        self._draining = True
        self._registry.notify()

    async def Check(self, request: Any, context: Context) -> Any:
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            raise CallError(reason=Reason.UNKNOWN_SERVICE, message="no such service or model is known")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Any, context: Context) -> Any:
        health = health_of(self._registry.catalog, draining=self._draining)
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=_status(up)) for name, up in health.items()}
        )

    async def Watch(self, request: Any, context: Context) -> AsyncIterator[Any]:
        last = None
        while True:
            update = self._registry.next_update()
            status = self._status(request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
            last = status
            await update.wait()

    def _status(self, service: str) -> int:
        return _status(health_of(self._registry.catalog, draining=self._draining).get(service))


def _status(up: bool | None) -> int:  # noqa: FBT001 - the value that is translated
    """`up` is None for a service that nobody knows."""
    if up is None:
        return int(_Status.SERVICE_UNKNOWN)
    return int(_Status.SERVING if up else _Status.NOT_SERVING)
