"""Many calls in flight, every answer belonging to its question."""

import asyncio
import random

import grpc.aio
import numpy as np

from qwen3.inference.v1 import embedding_pb2, embedding_pb2_grpc, rerank_pb2, rerank_pb2_grpc
from tests.support.official import OfficialEmbedding, OfficialReranker
from tests.support.wire import unpack


def texts_of(seed: int) -> list[str]:
    chance = random.Random(seed)
    sizes = chance.choices([1, 3, 10, 30, 100], k=chance.choice([1, 1, 2, 8]))
    return [f"call {seed} " + " ".join(str(chance.randrange(1000)) for _ in range(size)) for size in sizes]


async def test_200_calls_of_mixed_sizes_each_get_their_own_answer(address, embedding_checkpoint, rerank_checkpoint):
    async with grpc.aio.insecure_channel(address) as channel:
        embedding = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        rerank = rerank_pb2_grpc.RerankServiceStub(channel)

        async def embed(seed: int) -> np.ndarray:
            return unpack(await embedding.Embed(embedding_pb2.EmbedRequest(inputs=texts_of(seed)), timeout=120))

        async def score(seed: int) -> list[float]:
            request = rerank_pb2.RerankRequest(
                query=f"query {seed}", documents=texts_of(seed), order=rerank_pb2.RERANK_ORDER_INPUT
            )
            return [result.score for result in (await rerank.Rerank(request, timeout=120)).results]

        calls = [score(seed) if seed % 4 == 0 else embed(seed) for seed in range(200)]
        answers = await asyncio.gather(*calls)

    official, reranker = OfficialEmbedding(embedding_checkpoint), OfficialReranker(rerank_checkpoint)
    for seed, answer in enumerate(answers):
        if seed % 4 == 0:
            assert np.abs(answer - reranker.scores(f"query {seed}", texts_of(seed))).max() <= 2e-6
        else:
            assert (answer * official.embed(texts_of(seed))).sum(axis=1).min() >= 0.999999
