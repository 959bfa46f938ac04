"""Raw stubs, as a client in any language has them, and the details of a refused call."""

from types import SimpleNamespace

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2

from qwen3.inference.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    model_pb2_grpc,
    rerank_pb2,
    rerank_pb2_grpc,
    tokenizer_pb2_grpc,
)

TIMEOUT_S = 60


class Stubs:
    """All services of one address, over a plaintext channel unless one is given."""

    def __init__(self, address: str, channel: grpc.Channel | None = None) -> None:
        self.channel = channel or grpc.insecure_channel(address)
        self.embedding = embedding_pb2_grpc.EmbeddingServiceStub(self.channel)
        self.rerank = rerank_pb2_grpc.RerankServiceStub(self.channel)
        self.tokenizer = tokenizer_pb2_grpc.TokenizerServiceStub(self.channel)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)

    def embed(self, texts, *, request_id="", timeout_s=TIMEOUT_S, **config) -> embedding_pb2.EmbedResponse:
        config = embedding_pb2.EmbedConfig(**config)
        request = embedding_pb2.EmbedRequest(config=config, inputs=texts, request_id=request_id)
        return self.embedding.Embed(request, timeout=timeout_s)

    def vectors(self, texts, **config) -> np.ndarray:
        """(n, dimensions) float32."""
        return unpack(self.embed(texts, **config))

    def rerank_documents(self, query, documents, *, timeout_s=TIMEOUT_S, **fields) -> rerank_pb2.RerankResponse:
        request = rerank_pb2.RerankRequest(query=query, documents=documents, **fields)
        return self.rerank.Rerank(request, timeout=timeout_s)

    def scores(self, query, documents, **fields) -> np.ndarray:
        """(n,) float64, in the documents' order."""
        response = self.rerank_documents(query, documents, order=rerank_pb2.RERANK_ORDER_INPUT, **fields)
        return np.array([result.score for result in response.results])


def unpack(response: embedding_pb2.EmbedResponse) -> np.ndarray:
    return np.stack([np.frombuffer(embedding.packed, "<f4") for embedding in response.embeddings])


def refusal(error: grpc.RpcError) -> SimpleNamespace:
    """The parts of an error: code, message, reason, metadata, field, retry_s, and the trailers."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    found = SimpleNamespace(
        code=error.code(),
        message=error.details(),
        reason=None,
        metadata={},
        field=None,
        retry_s=None,
        trailers=trailers,
    )
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            found.reason, found.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            found.field = bad.field_violations[0].field
        elif detail.Unpack(retry):
            found.retry_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return found
