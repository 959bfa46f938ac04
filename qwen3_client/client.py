"""The synchronous client."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar, cast

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from qwen3.inference.v1.embedding_pb2_grpc import EmbeddingServiceStub
from qwen3.inference.v1.model_pb2 import ListModelsRequest
from qwen3.inference.v1.model_pb2_grpc import ModelServiceStub
from qwen3.inference.v1.rerank_pb2_grpc import RerankServiceStub
from qwen3.inference.v1.tokenizer_pb2_grpc import TokenizerServiceStub
from qwen3_client.channel import DEFAULT_TARGET, channel_options
from qwen3_client.errors import FailedCall, ModelNotFoundError, error_of
from qwen3_client.options import Encoding, InputType, Priority, ScoreType, Truncation
from qwen3_client.requests import count_tokens_request, embed_config, embed_requests, rerank_request
from qwen3_client.results import (
    EmbedResult,
    HealthStatus,
    ModelInfo,
    RerankHit,
    TokenCounts,
    decode_embeddings,
    decode_hits,
    decode_model,
    decode_token_counts,
)

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")


class Client:
    """A connection to the service at `target`; safe to share between threads. Close it, or use it in `with`.

    Every method ends within `timeout_s` seconds, retries and the parts of a long call included. Methods raise
    Qwen3Error or one of its subclasses where the call fails, ValueError for an option that has no such value.
    """

    def __init__(self, target: str = DEFAULT_TARGET, *, timeout_s: float = 30.0) -> None:
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(target, options=channel_options(target))
        self._embedding = EmbeddingServiceStub(self._channel)
        self._rerank = RerankServiceStub(self._channel)
        self._tokenizer = TokenizerServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)
        self._health = HealthStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; calls that still run in other threads are cancelled."""
        self._channel.close()

    def embed(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        input_type: InputType | None = None,
        instruction: str | None = None,
        dimensions: int = 0,
        normalize: bool = True,
        encoding: Encoding = "float32",
        truncation: Truncation = "error",
        priority: Priority | None = None,
        request_id: str = "",
    ) -> EmbedResult:
        """Embed any number of texts, in calls of at most 64, and return their vectors in order.

        Queries take `input_type="query"`, documents "document" or nothing. `dimensions=0` is the model's own width.
        The first part that fails fails the whole.
        """
        config = embed_config(
            model=model,
            input_type=input_type,
            instruction=instruction,
            dimensions=dimensions,
            normalize=normalize,
            encoding=encoding,
            truncation=truncation,
            priority=priority,
        )
        deadline_s = self._deadline_s()
        requests = embed_requests(texts, config=config, request_id=request_id)
        return decode_embeddings([_call(self._embedding.Embed, request, deadline_s) for request in requests])

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str = "",
        instruction: str | None = None,
        top_n: int = 0,
        return_documents: bool = False,
        truncation: Truncation = "error",
        score_type: ScoreType = "probability",
        priority: Priority | None = None,
        request_id: str = "",
    ) -> list[RerankHit]:
        """Score each document against the query; best first, all of them for `top_n=0`."""
        request = rerank_request(
            query,
            documents,
            model=model,
            instruction=instruction,
            top_n=top_n,
            return_documents=return_documents,
            truncation=truncation,
            score_type=score_type,
            priority=priority,
            request_id=request_id,
        )
        return decode_hits(_call(self._rerank.Rerank, request, self._deadline_s()))

    def count_tokens(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        input_type: InputType | None = None,
        instruction: str | None = None,
        query: str = "",
    ) -> TokenCounts:
        """Tokens that each text would be charged; with `query`, texts are a reranker's documents."""
        request = count_tokens_request(texts, model=model, input_type=input_type, instruction=instruction, query=query)
        return decode_token_counts(_call(self._tokenizer.CountTokens, request, self._deadline_s()))

    def models(self) -> list[ModelInfo]:
        """Every served model, by id."""
        deadline_s = self._deadline_s()
        models: list[ModelInfo] = []
        request = ListModelsRequest()
        while True:
            page = _call(self._models.ListModels, request, deadline_s)
            models += [decode_model(model) for model in page.models]
            if not page.next_page_token:
                return models
            request = ListModelsRequest(page_token=page.next_page_token)

    def health(self, model: str = "") -> HealthStatus:
        """Whether calls to `model`, or to the service as a whole, could succeed now."""
        request = HealthCheckRequest(service=f"model:{model}" if model else "")
        try:
            reply: HealthCheckResponse = _call(self._health.Check, request, self._deadline_s())
        except ModelNotFoundError:
            return HealthStatus.SERVICE_UNKNOWN
        return HealthStatus(HealthCheckResponse.ServingStatus.Name(reply.status))

    def _deadline_s(self) -> float:
        return time.monotonic() + self._timeout_s


def _call(method: "grpc.UnaryUnaryMultiCallable[_Request, _Reply]", request: _Request, deadline_s: float) -> _Reply:
    try:
        return method(request, timeout=max(0.0, deadline_s - time.monotonic()))
    except grpc.RpcError as error:
        raise error_of(cast("FailedCall", error)) from error
