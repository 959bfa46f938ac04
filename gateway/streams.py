"""EmbedStream: any number of chunks over one stream."""

from collections.abc import AsyncGenerator, AsyncIterator

import grpc

from gateway.calls import Call
from gateway.errors import CallError
from gateway.parts import Parts
from qwen3.inference.v1 import embedding_pb2


async def answer_stream(
    requests: AsyncIterator[embedding_pb2.EmbedStreamRequest], call: Call, parts: Parts
) -> AsyncGenerator[embedding_pb2.EmbedStreamResponse]:
    """Raises CallError."""
    async for _ in requests:
        raise CallError(
            code=grpc.StatusCode.UNIMPLEMENTED, reason="UNIMPLEMENTED", message="EmbedStream is not served yet"
        )
        yield embedding_pb2.EmbedStreamResponse()
