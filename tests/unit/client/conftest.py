"""A real gRPC server on port 0 whose answers are computed from the request, and which can be told to fail."""

import queue
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from qwen3.inference.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    rerank_pb2,
    rerank_pb2_grpc,
    tokenizer_pb2,
    tokenizer_pb2_grpc,
)


@dataclass
class Script:
    """What the server was asked, and the failures it answers with first."""

    address: str = ""
    requests: list[Any] = field(default_factory=list)
    failures: list[Callable[[grpc.ServicerContext], None]] = field(default_factory=list)
    revisions: list[str] = field(default_factory=list)
    streams: list[list[int]] = field(default_factory=list)  # ids of the chunks that each stream brought
    ended: queue.SimpleQueue[None] = field(default_factory=queue.SimpleQueue)  # one for each stream that has ended
    chunk_error: Callable[[Any], Any] = lambda _chunk: None
    metadata: list[dict[str, Any]] = field(default_factory=list)
    health: HealthServicer = field(default_factory=HealthServicer)
    width: int = 4  # of the vectors

    def hear(self, request, context):
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.failures:
            self.failures.pop(0)(context)

    def fail_next(self, code, message, *details, trailers=()):
        """Answer the next call with a status and rich details, as the gateway sends them."""

        def fail(context):
            status = Status(code=code.value[0], message=message)
            for detail in details:
                status.details.add().Pack(detail)
            details_bin = ("grpc-status-details-bin", status.SerializeToString())
            context.set_trailing_metadata((details_bin, *trailers))
            context.abort(code, message)

        self.failures.append(fail)


class Embedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self, script):
        self.script = script

    def Embed(self, request, context):  # noqa: N802 - the contract's name
        self.script.hear(request, context)
        counted = np.arange(self.script.width, dtype="<f4").tobytes()
        return embedding_pb2.EmbedResponse(
            embeddings=[
                embedding_pb2.Embedding(
                    packed=np.array([ord(text[0])], dtype="<f4").tobytes() + counted[4:],
                    token_count=len(text),
                    truncated=len(text) > 5,
                )
                for text in request.inputs
            ],
            model="m",
            model_revision=self.script.revisions.pop(0) if self.script.revisions else "r1",
            dimensions=self.script.width,
            encoding=embedding_pb2.VECTOR_ENCODING_FLOAT32,
        )

    def EmbedStream(self, requests, context):  # noqa: N802 - the contract's name
        self.script.streams.append([])
        context.add_callback(lambda: self.script.ended.put(None))
        config = next(requests).config
        for request in requests:
            self.script.streams[-1].append(request.chunk.chunk_id)
            unary = embedding_pb2.EmbedRequest(config=config, inputs=request.chunk.inputs)
            outcome = self.script.chunk_error(request.chunk)
            if outcome is not None:
                yield embedding_pb2.EmbedStreamResponse(chunk_id=request.chunk.chunk_id, error=outcome)
            else:
                result = self.Embed(unary, context)
                yield embedding_pb2.EmbedStreamResponse(chunk_id=request.chunk.chunk_id, result=result)


class Rerank(rerank_pb2_grpc.RerankServiceServicer):
    def __init__(self, script):
        self.script = script

    def Rerank(self, request, context):  # noqa: N802 - the contract's name
        self.script.hear(request, context)
        results = [
            rerank_pb2.RerankResult(
                index=index,
                score=1 / (1 + len(text)),
                document=text if request.return_documents else None,
                token_count=len(text),
            )
            for index, text in enumerate(request.documents)
        ]
        results.sort(key=lambda result: -result.score)
        return rerank_pb2.RerankResponse(results=results[: request.top_n or None], model="r", model_revision="r1")


class Tokenizer(tokenizer_pb2_grpc.TokenizerServiceServicer):
    def __init__(self, script):
        self.script = script

    def CountTokens(self, request, context):  # noqa: N802 - the contract's name
        self.script.hear(request, context)
        counts = [len(text) for text in request.inputs]
        return tokenizer_pb2.CountTokensResponse(token_counts=counts, total_tokens=sum(counts), max_input_tokens=32768)

    def Tokenize(self, request, context):  # noqa: N802 - the contract's name
        self.script.hear(request, context)
        sequences = [
            tokenizer_pb2.TokenSequence(ids=[len(text)], starts=[0], ends=[len(text)]) for text in request.inputs
        ]
        return tokenizer_pb2.TokenizeResponse(sequences=sequences)


class Models(model_pb2_grpc.ModelServiceServicer):
    """Two models on two pages."""

    def __init__(self, script):
        self.script = script

    def ListModels(self, request, context):  # noqa: N802 - the contract's name
        self.script.hear(request, context)
        if request.page_token:
            reranker = model_pb2.Model(
                id="rerank", task=model_pb2.MODEL_TASK_RERANK, state=model_pb2.MODEL_STATE_LOADING
            )
            return model_pb2.ListModelsResponse(models=[reranker])
        embedder = model_pb2.Model(
            id="embed",
            task=model_pb2.MODEL_TASK_EMBEDDING,
            state=model_pb2.MODEL_STATE_READY,
            revision="r1",
            native_dimensions=1024,
            min_dimensions=32,
            max_input_tokens=32768,
            max_batch_inputs=256,
            encodings=[embedding_pb2.VECTOR_ENCODING_FLOAT32, embedding_pb2.VECTOR_ENCODING_FLOAT_LIST, 77],
            default_instruction="Find it",
            default_for_task=True,
        )
        return model_pb2.ListModelsResponse(models=[embedder], next_page_token="2")


@pytest.fixture
def server() -> Iterator[Script]:
    script = Script()
    grpc_server = grpc.server(
        futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 32 * 1024 * 1024)]
    )
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(Embedding(script), grpc_server)
    rerank_pb2_grpc.add_RerankServiceServicer_to_server(Rerank(script), grpc_server)
    tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(Tokenizer(script), grpc_server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(Models(script), grpc_server)
    health_pb2_grpc.add_HealthServicer_to_server(script.health, grpc_server)
    script.health.set("model:embed", health_pb2.HealthCheckResponse.SERVING)
    script.health.set("model:rerank", health_pb2.HealthCheckResponse.NOT_SERVING)
    script.address = f"127.0.0.1:{grpc_server.add_insecure_port('127.0.0.1:0')}"
    grpc_server.start()
    yield script
    grpc_server.stop(grace=None).wait()
