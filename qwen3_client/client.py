"""The synchronous client. async_client.py is its twin: what both decide stands in modules that do no I/O."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar, cast

import grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from qwen3.inference.v1.embedding_pb2 import EmbedConfig, EmbedStreamRequest
from qwen3.inference.v1.embedding_pb2_grpc import EmbeddingServiceStub
from qwen3.inference.v1.model_pb2_grpc import ModelServiceStub
from qwen3.inference.v1.rerank_pb2_grpc import RerankServiceStub
from qwen3.inference.v1.tokenizer_pb2_grpc import TokenizerServiceStub
from qwen3_client.batches import chunk_limits, texts_in_batches
from qwen3_client.channel import DEFAULT_TARGET, channel_options
from qwen3_client.errors import FailedCall, ModelNotFoundError, closed, error_of
from qwen3_client.options import Encoding, InputType, Priority, ScoreType, Truncation
from qwen3_client.requests import (
    MAX_CALLS_IN_FLIGHT,
    Part,
    count_tokens_parts,
    embed_config,
    embed_request,
    health_request,
    list_of_texts,
    next_page,
    refuse_single_text,
    rerank_parts,
    tokenize_parts,
)
from qwen3_client.results import (
    EmbedResult,
    HealthStatus,
    ModelInfo,
    RerankHit,
    TokenCounts,
    TokenSequence,
    decode_embeddings,
    decode_hits,
    decode_model,
    decode_token_counts,
    decode_token_sequences,
    joined,
    with_documents,
)
from qwen3_client.security import Tls, Token, authorization, check_token_is_safe
from qwen3_client.streams import Answers, embed_in_bulk
from qwen3_client.tracing import trace_headers

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")


class Client:
    """A connection to the service at `target`; safe to share between threads. Close it, or use it in `with`.

    `target` is HOST:PORT, or dns:///HOST:PORT where several gateways stand behind a name. `token` is an API key or
    another bearer token, or a function that gives the one to use now; over plain text it goes to this machine only,
    unless `allow_plaintext_token` says that something else protects the way.

    A call fails after `timeout_s` seconds without an answer, retries included; one that is sent in parts takes as
    long as it needs, as long as parts are answered. Methods raise Qwen3Error or one of its subclasses where the call
    fails, ValueError for an option that has no such value, TypeError for texts that are none.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        tls: Tls | None = None,
        token: Token | None = None,
        allow_plaintext_token: bool = False,
        timeout_s: float = 30.0,
    ) -> None:
        check_token_is_safe(
            target, has_token=token is not None, is_encrypted=tls is not None, may_be_plain=allow_plaintext_token
        )
        self._timeout_s = timeout_s
        self._token = token
        self._is_closed = False
        self._channel = _channel(target, tls)
        self._embedding = EmbeddingServiceStub(self._channel)
        self._rerank = RerankServiceStub(self._channel)
        self._tokenizer = TokenizerServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)
        self._health = HealthStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; calls that still run in other threads are cancelled."""
        self._is_closed = True
        self._channel.close()

    def embed(
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
        Up to 250 texts go in one call; more go over a stream in parts, in the bulk lane unless `priority` says
        otherwise, and without `request_id`, which is one call's. One text that fails fails the whole.
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
        texts = list_of_texts(texts)
        request = embed_request(texts, config=config, request_id=request_id)
        if request is None:
            return joined(list(self._bulk(texts, config, timeout_s)))
        return decode_embeddings(self._call(self._embedding.Embed, request, timeout_s))

    def embed_stream(
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
        timeout_s: float | None = None,
    ) -> Generator[EmbedResult, None, None]:
        """Vectors of texts without end, in memory that does not grow: each result is that of the next up to 64 texts.

        Texts are taken as there is room for them, in the thread that takes the results. A lost connection is made
        again, and only what was not answered is sent again. Leaving the loop, or an exception in it, cancels the rest.
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
        return self._bulk(texts, config, timeout_s)

    def rerank(
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
        parts = rerank_parts(
            query,
            documents,
            model=model,
            instruction=instruction,
            top_n=top_n,
            truncation=truncation,
            score_type=score_type,
            priority=priority,
            request_id=request_id,
        )
        hits = decode_hits(parts, self._call_all(self._rerank.Rerank, parts, timeout_s), top_n=top_n)
        return with_documents(hits, documents) if return_documents else hits

    def count_tokens(
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
        parts = count_tokens_parts(
            list_of_texts(texts), model=model, input_type=input_type, instruction=instruction, query=query
        )
        return decode_token_counts(self._call_all(self._tokenizer.CountTokens, parts, timeout_s))

    def tokenize(
        self,
        texts: Iterable[str],
        *,
        model: str = "",
        add_special_tokens: bool = True,
        timeout_s: float | None = None,
    ) -> list[TokenSequence]:
        """Token ids of each text as it is, without a template, by the served model's own tokenizer."""
        parts = tokenize_parts(list_of_texts(texts), model=model, add_special_tokens=add_special_tokens)
        return decode_token_sequences(self._call_all(self._tokenizer.Tokenize, parts, timeout_s))

    def models(self) -> list[ModelInfo]:
        """Every served model, by id."""
        models: list[ModelInfo] = []
        request = next_page(None)
        while request is not None:
            page = self._call(self._models.ListModels, request, None)
            models += [decode_model(model) for model in page.models]
            request = next_page(page)
        return models

    def health(self, model: str = "") -> HealthStatus:
        """Whether calls to `model`, or to the service as a whole, could succeed now."""
        try:
            reply: HealthCheckResponse = self._call(self._health.Check, health_request(model), None)
        except ModelNotFoundError:
            return HealthStatus.SERVICE_UNKNOWN
        return HealthStatus(HealthCheckResponse.ServingStatus.Name(reply.status))

    def _bulk(
        self, texts: Iterable[str], config: EmbedConfig, timeout_s: float | None
    ) -> Generator[EmbedResult, None, None]:
        def open_stream(requests: Iterator[EmbedStreamRequest]) -> Answers:
            return self._embedding.EmbedStream(requests, metadata=self._headers())

        refuse_single_text(texts)
        batches = texts_in_batches(texts, chunk_limits(config))
        return embed_in_bulk(batches, config, open_stream, timeout_s=self._timeout(timeout_s))

    def _call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[_Request, _Reply]",
        request: _Request,
        timeout_s: float | None,
    ) -> _Reply:
        try:
            return method(request, timeout=self._timeout(timeout_s), metadata=self._headers())
        except grpc.RpcError as error:
            raise error_of(cast("FailedCall", error)) from error

    def _call_all(
        self,
        method: "grpc.UnaryUnaryMultiCallable[_Request, _Reply]",
        parts: Sequence[Part[_Request]],
        timeout_s: float | None,
    ) -> list[_Reply]:
        """The replies in order; a few calls are in flight at a time, and none once one has failed."""
        if len(parts) == 1:
            return [self._call(method, parts[0].request, timeout_s)]
        in_flight: deque[tuple[Part[_Request], grpc.Future[_Reply]]] = deque()
        replies: list[_Reply] = []
        try:
            for part in parts:
                if len(in_flight) == MAX_CALLS_IN_FLIGHT:
                    replies.append(_reply(*in_flight.popleft()))
                future = method.future(part.request, timeout=self._timeout(timeout_s), metadata=self._headers())
                in_flight.append((part, future))
            return replies + [_reply(part, call) for part, call in in_flight]
        finally:
            for _, call in in_flight:
                call.cancel()

    def _headers(self) -> tuple[tuple[str, str], ...]:
        if self._is_closed:
            raise closed()
        headers = trace_headers()
        if self._token is not None:
            headers.append(authorization(self._token if isinstance(self._token, str) else self._token()))
        return tuple(headers)

    def _timeout(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else timeout_s


def _channel(target: str, tls: Tls | None) -> grpc.Channel:
    options = channel_options(target, tls)
    if tls is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, tls.credentials(), options)


def _reply(part: Part[_Request], call: "grpc.Future[_Reply]") -> _Reply:
    try:
        return call.result()
    except grpc.RpcError as error:
        raise error_of(cast("FailedCall", error), first=part.first) from error
