"""The RPC methods. Each reads as the life of its request; every verb is a function that another file explains."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc.aio

from gateway.calls import Context, current_call
from gateway.parts import Parts
from gateway.prompts import embed_prompt, rerank_prompt
from gateway.responses import (
    count_response,
    model_messages,
    tokenize_response,
)
from gateway.streams import answer_stream
from gateway.tokenization import Truncation
from gateway.validation import (
    validate_count,
    validate_embed,
    validate_get_model,
    validate_page_size,
    validate_rerank,
    validate_tokenize,
    visible_to,
)
from gateway.work import embed, rerank
from jobqueue.messages import Operation
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


class EmbeddingService(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Embed(self, request: embedding_pb2.EmbedRequest, context: Context) -> embedding_pb2.EmbedResponse:
        call, parts = current_call.get(), self._parts
        task = validate_embed(request, parts.registry.catalog, parts.limits, caller=call.caller)
        return await embed(task, call, parts)

    async def EmbedStream(
        self, request_iterator: AsyncIterator[embedding_pb2.EmbedStreamRequest], context: Context
    ) -> AsyncIterator[embedding_pb2.EmbedStreamResponse]:
        async with aclosing(answer_stream(request_iterator, current_call.get(), self._parts)) as responses:
            async for response in responses:
                yield response


class RerankService(rerank_pb2_grpc.RerankServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Rerank(self, request: rerank_pb2.RerankRequest, context: Context) -> rerank_pb2.RerankResponse:
        call, parts = current_call.get(), self._parts
        task = validate_rerank(request, parts.registry.catalog, parts.limits, caller=call.caller)
        return await rerank(task, call, parts)


class TokenizerService(tokenizer_pb2_grpc.TokenizerServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def CountTokens(
        self, request: tokenizer_pb2.CountTokensRequest, context: Context
    ) -> tokenizer_pb2.CountTokensResponse:
        call, parts = current_call.get(), self._parts
        task = validate_count(request, parts.registry.catalog, parts.limits, caller=call.caller)
        if task.model.announcement.operation is Operation.RERANK:
            prompt = rerank_prompt(task.query, task.texts, instruction=task.instruction or "", field="inputs")
        else:
            prompt = embed_prompt(task.texts, instruction=task.instruction)
        async with parts.quotas.held(call):
            tokenized = await parts.tokenization.tokenize(
                task.model.tokenizer, prompt, policy=Truncation.ERROR, max_tokens=None
            )
        return count_response(task.model, tokenized)

    async def Tokenize(
        self, request: tokenizer_pb2.TokenizeRequest, context: Context
    ) -> tokenizer_pb2.TokenizeResponse:
        call, parts = current_call.get(), self._parts
        task = validate_tokenize(request, parts.registry.catalog, parts.limits, caller=call.caller)
        async with parts.quotas.held(call):
            return await tokenize_response(task, parts.tokenization)


class ModelService(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: Context) -> model_pb2.ListModelsResponse:
        page_size = validate_page_size(request)
        catalog, limits = visible_to(current_call.get().caller, self._parts.registry.catalog), self._parts.limits
        rest = sorted(id_ for id_ in catalog.models if id_ > request.page_token)
        return model_pb2.ListModelsResponse(
            models=model_messages(rest[:page_size], catalog, limits),
            next_page_token=rest[page_size - 1] if len(rest) > page_size else "",
        )

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.GetModelResponse:
        caller, limits = current_call.get().caller, self._parts.limits
        catalog = visible_to(caller, self._parts.registry.catalog)
        model = validate_get_model(request, catalog, caller=caller)
        return model_pb2.GetModelResponse(model=model_messages([model.id], catalog, limits)[0])


def add_services(server: grpc.aio.Server, parts: Parts) -> None:
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingService(parts), server)
    rerank_pb2_grpc.add_RerankServiceServicer_to_server(RerankService(parts), server)
    tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(TokenizerService(parts), server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(parts), server)
