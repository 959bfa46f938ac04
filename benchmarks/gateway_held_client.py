"""A client of `benchmarks.gateway_held`: it makes calls and streams all at once, and says what came of them."""

import argparse
import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

import grpc.aio

from qwen3.inference.v1.embedding_pb2 import EmbedChunk, EmbedConfig, EmbedRequest, EmbedStreamRequest
from qwen3.inference.v1.embedding_pb2_grpc import EmbeddingServiceStub
from runtime.ready import say_ready

if TYPE_CHECKING:
    from qwen3.inference.v1.embedding_pb2_grpc import EmbeddingServiceAsyncStub

TEXT = "What is the capital of China, and how many people live there?"
CHUNKS = 2  # of each stream
TIMEOUT_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(load(arguments.address, arguments.calls, arguments.streams))


async def load(address: str, num_calls: int, num_streams: int) -> None:
    """Says `ready` with the answered vectors by kind, once all is over."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = EmbeddingServiceStub(channel)
        waiting: Sequence[Awaitable[str]] = [
            *(_call(stub) for _ in range(num_calls)),
            *(_stream(stub) for _ in range(num_streams)),
        ]
        found = Counter(await asyncio.gather(*waiting))
    say_ready(" ".join(f"{name}={number}" for name, number in sorted(found.items())))


async def _call(stub: "EmbeddingServiceAsyncStub") -> str:
    try:
        response = await stub.Embed(EmbedRequest(inputs=[TEXT]), timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return f"call:{error.code().name}"
    return "calls" if len(response.embeddings) == 1 else "call:wrong"


async def _stream(stub: "EmbeddingServiceAsyncStub") -> str:
    chunks = [EmbedChunk(chunk_id=number, inputs=[TEXT]) for number in range(CHUNKS)]
    call = stub.EmbedStream(timeout=TIMEOUT_S)
    try:
        await call.write(EmbedStreamRequest(config=EmbedConfig()))
        for chunk in chunks:
            await call.write(EmbedStreamRequest(chunk=chunk))
        await call.done_writing()
        answered = {answer.chunk_id async for answer in call if answer.HasField("result")}
    except grpc.aio.AioRpcError as error:
        return f"stream:{error.code().name}"
    return "streams" if len(answered) == CHUNKS else "stream:wrong"


if __name__ == "__main__":
    main()
