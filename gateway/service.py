"""The RPC methods. Each reads as the life of its request; every verb is a function that another file explains."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import grpc.aio

from gateway.calls import Call, current_call
from gateway.errors import CallError, trailing_metadata
from gateway.prompts import embed_prompt, rerank_prompt
from gateway.registry import Registry, ServedModel
from gateway.responses import (
    count_response,
    embed_response,
    model_messages,
    rerank_response,
    tokenize_response,
)
from gateway.tokenization import Tokenization, TokenizedPrompt, Truncation
from gateway.validation import (
    EmbedTask,
    Limits,
    validate_count,
    validate_embed,
    validate_get_model,
    validate_page_size,
    validate_rerank,
    validate_tokenize,
)
from jobqueue.lanes import Lane
from jobqueue.messages import Job, Operation
from jobqueue.pending import Submission
from jobqueue.producer import Producer
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

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the methods work with."""

    registry: Registry
    tokenization: Tokenization
    producer: Producer
    limits: Limits


class EmbeddingService(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Embed(self, request: embedding_pb2.EmbedRequest, context: Context) -> embedding_pb2.EmbedResponse:
        call, parts = current_call.get(), self._parts
        task = validate_embed(request, parts.registry.catalog, parts.limits)
        prompt = await parts.tokenization.tokenize(
            task.model.tokenizer,
            embed_prompt(task.texts, instruction=task.instruction),
            policy=task.truncation,
            max_tokens=task.model.announcement.max_input_tokens,
        )
        result = await parts.producer.submit(_submission(task.model, _embed_job(task, prompt), task.lane, call))
        return embed_response(task, prompt, result, call)

    async def EmbedStream(  # type: ignore[override]  # grpc.aio takes coroutines too, which the stubs do not know
        self, request_iterator: AsyncIterator[embedding_pb2.EmbedStreamRequest], context: Context
    ) -> None:
        error = CallError(
            code=grpc.StatusCode.UNIMPLEMENTED,
            reason="UNIMPLEMENTED",
            message="EmbedStream is not served yet; Embed is",
        )
        await context.abort(error.code, error.message, tuple(trailing_metadata(error)))


class RerankService(rerank_pb2_grpc.RerankServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def Rerank(self, request: rerank_pb2.RerankRequest, context: Context) -> rerank_pb2.RerankResponse:
        call, parts = current_call.get(), self._parts
        task = validate_rerank(request, parts.registry.catalog, parts.limits)
        prompt = await parts.tokenization.tokenize(
            task.model.tokenizer,
            rerank_prompt(task.query, task.documents, instruction=task.instruction, field="documents"),
            policy=task.truncation,
            max_tokens=task.model.announcement.max_input_tokens,
        )
        result = await parts.producer.submit(_submission(task.model, _rerank_job(prompt), task.lane, call))
        return rerank_response(task, prompt, result, call)


class TokenizerService(tokenizer_pb2_grpc.TokenizerServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def CountTokens(
        self, request: tokenizer_pb2.CountTokensRequest, context: Context
    ) -> tokenizer_pb2.CountTokensResponse:
        parts = self._parts
        task = validate_count(request, parts.registry.catalog, parts.limits)
        if task.model.announcement.operation is Operation.RERANK:
            prompt = rerank_prompt(task.query, task.texts, instruction=task.instruction or "", field="inputs")
        else:
            prompt = embed_prompt(task.texts, instruction=task.instruction)
        tokenized = await parts.tokenization.tokenize(
            task.model.tokenizer, prompt, policy=Truncation.ERROR, max_tokens=None
        )
        return count_response(task.model, tokenized)

    async def Tokenize(
        self, request: tokenizer_pb2.TokenizeRequest, context: Context
    ) -> tokenizer_pb2.TokenizeResponse:
        parts = self._parts
        task = validate_tokenize(request, parts.registry.catalog, parts.limits)
        return await parts.tokenization.run(lambda: tokenize_response(task))


class ModelService(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: Context) -> model_pb2.ListModelsResponse:
        page_size = validate_page_size(request)
        catalog, limits = self._parts.registry.catalog, self._parts.limits
        rest = sorted(id_ for id_ in catalog.models if id_ > request.page_token)
        return model_pb2.ListModelsResponse(
            models=model_messages(rest[:page_size], catalog, limits),
            next_page_token=rest[page_size - 1] if len(rest) > page_size else "",
        )

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.GetModelResponse:
        catalog, limits = self._parts.registry.catalog, self._parts.limits
        model = validate_get_model(request, catalog)
        return model_pb2.GetModelResponse(model=model_messages([model.id], catalog, limits)[0])


def _embed_job(task: EmbedTask, prompt: TokenizedPrompt) -> Job:
    return Job(
        operation=Operation.EMBED,
        prefix=prompt.prefix,
        tails=prompt.tails,
        dimensions=task.dimensions,
        normalize=task.normalize,
        encoding=task.encoding,
    )


def _rerank_job(prompt: TokenizedPrompt) -> Job:
    return Job(operation=Operation.RERANK, prefix=prompt.prefix, tails=prompt.tails)


def _submission(model: ServedModel, job: Job, lane: Lane, call: Call) -> Submission:
    return Submission(
        queue=model.announcement.queue,
        call=job,
        lane=lane,
        deadline=call.deadline,
        request_id=call.request_id,
        attention_cost=model.announcement.attention_cost,
        wakeable=model.announcement.wakeable,
        is_retry=call.is_retry,
    )


def add_services(server: grpc.aio.Server, parts: Parts) -> None:
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingService(parts), server)
    rerank_pb2_grpc.add_RerankServiceServicer_to_server(RerankService(parts), server)
    tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(TokenizerService(parts), server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(parts), server)
