"""The other side of `benchmarks.gateway`: grpc.aio alone, which answers vectors of zeros at once, as a process."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import uvloop

from qwen3.inference.v1 import embedding_pb2, embedding_pb2_grpc
from runtime.ready import say_ready

ROW = bytes(4096)  # a vector of 1,024 float32 values
MAX_REQUEST_BYTES = 32 * 1024 * 1024


class Echo(embedding_pb2_grpc.EmbeddingServiceServicer):
    async def Embed(self, request: embedding_pb2.EmbedRequest, _: Any) -> embedding_pb2.EmbedResponse:  # noqa: N802 - gRPC's
        return _response(len(request.inputs))

    async def EmbedStream(  # noqa: N802 - gRPC's
        self, request_iterator: AsyncIterator[embedding_pb2.EmbedStreamRequest], _: Any
    ) -> AsyncIterator[embedding_pb2.EmbedStreamResponse]:
        async for request in request_iterator:
            if request.HasField("chunk"):
                chunk = request.chunk
                yield embedding_pb2.EmbedStreamResponse(chunk_id=chunk.chunk_id, result=_response(len(chunk.inputs)))


def _response(num_texts: int) -> embedding_pb2.EmbedResponse:
    rows = [embedding_pb2.Embedding(packed=ROW, token_count=8) for _ in range(num_texts)]
    float32 = embedding_pb2.VECTOR_ENCODING_FLOAT32
    return embedding_pb2.EmbedResponse(
        embeddings=rows, model="echo", model_revision="1", dimensions=1024, encoding=float32
    )


async def serve() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_REQUEST_BYTES)])
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say_ready(f"127.0.0.1:{port}")
    await asyncio.Event().wait()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    uvloop.run(serve())
