"""Every rpc that a gateway serves, and what is sent to it where nothing is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from qwen3.inference.v1 import embedding_pb2, model_pb2, rerank_pb2, tokenizer_pb2
from qwen3.inference.v1.embedding_pb2 import EmbedChunk, EmbedConfig, EmbedStreamRequest

_FILES = (embedding_pb2, rerank_pb2, tokenizer_pb2, model_pb2, health_pb2, reflection_pb2)
_TEXTS = ["What is the capital of China?", "北京是中国的首都。", "a"]
_CONFIG = EmbedConfig(model="emb", instruction="Given a question, find passages", dimensions=32, encoding=3)

_SAMPLES: Mapping[type[Message], Sequence[Message]] = {
    embedding_pb2.EmbedRequest: [
        embedding_pb2.EmbedRequest(inputs=_TEXTS[:1]),
        embedding_pb2.EmbedRequest(config=_CONFIG, inputs=_TEXTS, request_id="fuzz-1"),
    ],
    EmbedStreamRequest: [
        EmbedStreamRequest(config=_CONFIG),
        EmbedStreamRequest(chunk=EmbedChunk(chunk_id=1, inputs=_TEXTS)),
        EmbedStreamRequest(chunk=EmbedChunk(chunk_id=2, inputs=_TEXTS[:1])),
        EmbedStreamRequest(chunk=EmbedChunk(chunk_id=-(2**63), inputs=_TEXTS[:1])),
    ],
    rerank_pb2.RerankRequest: [
        rerank_pb2.RerankRequest(query=_TEXTS[0], documents=_TEXTS),
        rerank_pb2.RerankRequest(
            model="rer", query=_TEXTS[0], documents=_TEXTS, instruction="Is it?", top_n=2, return_documents=True
        ),
    ],
    tokenizer_pb2.CountTokensRequest: [
        tokenizer_pb2.CountTokensRequest(inputs=_TEXTS),
        tokenizer_pb2.CountTokensRequest(model="rer", query=_TEXTS[0], inputs=_TEXTS, instruction="Is it?"),
    ],
    tokenizer_pb2.TokenizeRequest: [tokenizer_pb2.TokenizeRequest(model="emb", inputs=_TEXTS, add_special_tokens=True)],
    model_pb2.ListModelsRequest: [model_pb2.ListModelsRequest(page_size=1, page_token="emb")],
    model_pb2.GetModelRequest: [model_pb2.GetModelRequest(id="emb")],
    health_pb2.HealthCheckRequest: [health_pb2.HealthCheckRequest(service="model:emb")],
    health_pb2.HealthListRequest: [health_pb2.HealthListRequest()],
    reflection_pb2.ServerReflectionRequest: [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="qwen3.inference.v1.EmbeddingService"),
        reflection_pb2.ServerReflectionRequest(
            file_containing_extension=reflection_pb2.ExtensionRequest(
                containing_type="google.protobuf.MethodOptions", extension_number=1
            )
        ),
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """`samples` are valid. `is_endless`: its responses go on until the client hangs up."""

    path: str
    request: type[Message]
    response: type[Message]
    samples: Sequence[bytes]
    streams_requests: bool
    is_endless: bool

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def all_rpcs() -> list[Rpc]:
    services = [service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()]
    return [_rpc(method) for service in services for method in service.methods]


def _rpc(method: MethodDescriptor) -> Rpc:
    request = GetMessageClass(method.input_type)
    return Rpc(
        path=f"/{method.containing_service.full_name}/{method.name}",
        request=request,
        response=GetMessageClass(method.output_type),
        samples=[sample.SerializeToString() for sample in _SAMPLES[request]],
        streams_requests=method.client_streaming,
        is_endless=method.server_streaming and not method.client_streaming,
    )
