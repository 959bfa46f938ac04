"""The asyncio client. client.py is its twin: what both decide stands in modules that do no I/O."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Iterable
from types import TracebackType
from typing import Self

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from qwen3.inference.v1.embedding_pb2 import EmbedConfig, EmbedStreamRequest, EmbedStreamResponse
from qwen3.inference.v1.embedding_pb2_grpc import EmbeddingServiceStub
from qwen3.inference.v1.model_pb2_grpc import ModelServiceStub
from qwen3.inference.v1.rerank_pb2_grpc import RerankServiceStub
from qwen3.inference.v1.tokenizer_pb2_grpc import TokenizerServiceStub
from qwen3_client.async_calls import AsyncOptions, call, call_all
from qwen3_client.async_streams import embed_in_bulk
from qwen3_client.batches import (
    COUNT_LIMITS,
    RERANK_LIMITS,
    TOKENIZE_LIMITS,
    Batch,
    Batcher,
    BatchLimits,
    all_in_batches,
    chunk_limits,
    fit_one_call,
)
from qwen3_client.bulk import Bulk
from qwen3_client.channel import DEFAULT_TARGET, channel_options
from qwen3_client.errors import REQUEST_ID_KEY, ModelNotFoundError, closed
from qwen3_client.options import Encoding, InputType, Priority, ScoreType, Truncation
from qwen3_client.requests import (
    CallOptions,
    count_tokens_request,
    embed_config,
    embed_request,
    health_request,
    known_request_id,
    known_timeout_s,
    list_of_texts,
    next_page,
    refuse_single_text,
    rerank_request,
    tokenize_request,
)
from qwen3_client.results import (
    EmbedResult,
    HealthStatus,
    ModelInfo,
    RerankHit,
    TokenCounts,
    TokenSequence,
    decode_all_embeddings,
    decode_hits,
    decode_model,
    decode_token_counts,
    decode_token_sequences,
    joined,
)
from qwen3_client.security import AsyncToken, Tls, authorization, check_token_is_safe
from qwen3_client.tracing import trace_headers


class AsyncClient:
    """A connection to the service at `target`, for the event loop in which it is made.

    Close it, or use it in `async with`.

    `target` is HOST:PORT, or dns:///HOST:PORT where several gateways stand behind a name. `token` is an API key or
    another bearer token, or a function, async or quick, that gives the one to use now; over plain text it goes to
    this machine only, unless `allow_plaintext_token` says that something else protects the way.

    A call fails after `timeout_s` seconds without an answer, retries included; one that is sent in parts takes as
    long as it needs, as long as parts are answered. Methods raise Qwen3Error or one of its subclasses where the call
    fails, ValueError for an option that has no such value, TypeError for texts that are none. `request_id` is what
    the server's logs call the call; without one they get one.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        tls: Tls | None = None,
        token: AsyncToken | None = None,
        allow_plaintext_token: bool = False,
        timeout_s: float = 30.0,
    ) -> None:
        check_token_is_safe(
            target, has_token=token is not None, is_encrypted=tls is not None, may_be_plain=allow_plaintext_token
        )
        self._timeout_s = known_timeout_s(timeout_s)
        self._token = token
        self._is_closed = False
        self._channel = _channel(target, tls)
        self._embedding = EmbeddingServiceStub(self._channel)
        self._rerank = RerankServiceStub(self._channel)
        self._tokenizer = TokenizerServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)
        self._health = HealthStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; calls that still run in other tasks are cancelled."""
        self._is_closed = True
        await self._channel.close()

    async def embed(
        self,
        texts: Iterable[str],
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
        timeout_s: float | None = None,
    ) -> EmbedResult:
        """Vectors of any number of texts, (n, dimensions), in order: float32 unless `encoding` asks for others.

        Queries take `input_type="query"`, documents "document" or nothing. `dimensions=0` is the model's own width.
        Up to 250 texts, or 256 KiB, go in one call; more go over a stream in parts, in the bulk lane unless
        `priority` says otherwise. One text that fails fails the whole.
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
        request_id = known_request_id(request_id)
        texts = list_of_texts(texts)
        if not fit_one_call(texts, config):
            return joined([result async for result in self._bulk(texts, config, request_id, timeout_s)])
        to_request = embed_request(config, request_id=request_id)
        batches = [Batch(texts=texts, first=0)]
        return decode_all_embeddings(
            await call_all(self._embedding.Embed, to_request, batches, self._options(timeout_s))
        )

    def embed_stream(
        self,
        texts: Iterable[str] | AsyncIterable[str],
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
        timeout_s: float | None = None,
    ) -> AsyncGenerator[EmbedResult, None]:
        """Vectors of texts without end, in memory that does not grow: each result is that of the next up to 64 texts.

        Texts are taken as there is room for them. A lost connection is made again, and only what was not answered is
        sent again. Closing the generator cancels the rest: where a loop may be left early, contextlib.aclosing does it
        at once, else the event loop does it soon after.
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
        return self._bulk(texts, config, known_request_id(request_id), timeout_s)

    async def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        model: str = "",
        instruction: str | None = None,
        top_n: int = 0,
        return_documents: bool = False,
        truncation: Truncation = "error",
        score_type: ScoreType = "probability",
        priority: Priority | None = None,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> list[RerankHit]:
        """Score any number of documents against the query; best first, ties by index, all of them for `top_n=0`.

        A score is a probability, 0 to 1, or for "logit" that of yes less that of no.
        """
        documents = list_of_texts(documents, "documents")
        to_request = rerank_request(
            query,
            model=model,
            instruction=instruction,
            top_n=top_n,
            truncation=truncation,
            score_type=score_type,
            priority=priority,
            request_id=known_request_id(request_id),
        )
        batches = all_in_batches(documents, RERANK_LIMITS)
        answers = await call_all(self._rerank.Rerank, to_request, batches, self._options(timeout_s))
        return decode_hits(answers, documents if return_documents else None, top_n=top_n)

    async def count_tokens(
        self,
        texts: Iterable[str],
        *,
        model: str = "",
        input_type: InputType | None = None,
        instruction: str | None = None,
        query: str = "",
        timeout_s: float | None = None,
    ) -> TokenCounts:
        """Tokens that each text would be charged; with `query`, texts are a reranker's documents."""
        to_request = count_tokens_request(model=model, input_type=input_type, instruction=instruction, query=query)
        batches = all_in_batches(list_of_texts(texts), COUNT_LIMITS)
        answers = await call_all(self._tokenizer.CountTokens, to_request, batches, self._options(timeout_s))
        return decode_token_counts(answers)

    async def tokenize(
        self,
        texts: Iterable[str],
        *,
        model: str = "",
        add_special_tokens: bool = True,
        timeout_s: float | None = None,
    ) -> list[TokenSequence]:
        """Token ids of each text as it is, without a template, by the served model's own tokenizer."""
        to_request = tokenize_request(model=model, add_special_tokens=add_special_tokens)
        batches = all_in_batches(list_of_texts(texts), TOKENIZE_LIMITS)
        answers = await call_all(self._tokenizer.Tokenize, to_request, batches, self._options(timeout_s))
        return decode_token_sequences(answers)

    async def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """Every served model, by id."""
        models: list[ModelInfo] = []
        request = next_page(None)
        while request is not None:
            page = await call(self._models.ListModels, request, self._options(timeout_s))
            models += [decode_model(model) for model in page.models]
            request = next_page(page)
        return models

    async def health(self, model: str = "", *, timeout_s: float | None = None) -> HealthStatus:
        """Whether calls to `model`, or to the service as a whole, could succeed now."""
        try:
            reply: HealthCheckResponse = await call(self._health.Check, health_request(model), self._options(timeout_s))
        except ModelNotFoundError:
            return HealthStatus.SERVICE_UNKNOWN
        return HealthStatus(HealthCheckResponse.ServingStatus.Name(reply.status))

    def _bulk(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        config: EmbedConfig,
        request_id: str,
        timeout_s: float | None,
    ) -> AsyncGenerator[EmbedResult, None]:
        async def open_stream(
            requests: AsyncIterator[EmbedStreamRequest],
        ) -> "grpc.aio.StreamStreamCall[EmbedStreamRequest, EmbedStreamResponse]":
            headers = (*await self._headers(), (REQUEST_ID_KEY, request_id))
            return self._embedding.EmbedStream(requests, metadata=headers)

        refuse_single_text(texts)
        batches = _in_batches(texts, chunk_limits(config))
        bulk = Bulk(config, request_id=request_id)
        return embed_in_bulk(batches, bulk, open_stream, timeout_s=self._timeout(timeout_s))

    def _options(self, timeout_s: float | None) -> AsyncOptions:
        async def options() -> CallOptions:
            return {"timeout": self._timeout(timeout_s), "metadata": await self._headers()}

        return options

    async def _headers(self) -> tuple[tuple[str, str], ...]:
        if self._is_closed:
            raise closed()
        headers = trace_headers()
        if self._token is not None:
            token = self._token if isinstance(self._token, str) else self._token()
            headers.append(authorization(await token if isinstance(token, Awaitable) else token))
        return tuple(headers)

    def _timeout(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else known_timeout_s(timeout_s)


def _channel(target: str, tls: Tls | None) -> grpc.aio.Channel:
    options = channel_options(target, tls)
    if tls is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, tls.credentials(), options)


async def _in_batches(texts: Iterable[str] | AsyncIterable[str], limits: BatchLimits) -> AsyncGenerator[Batch, None]:
    """All texts, in order."""
    batcher = Batcher(limits)
    async for text in _each(texts):
        if (full := batcher.add(text)) is not None:
            yield full
    if (rest := batcher.rest()) is not None:
        yield rest


async def _each(texts: Iterable[str] | AsyncIterable[str]) -> AsyncGenerator[str, None]:
    if isinstance(texts, AsyncIterable):
        async for text in texts:
            yield text
    else:
        for text in texts:
            yield text
