"""From a request to a task that can be done, or the field that is wrong. Only this file makes tasks.

Nothing expensive happens before a request has passed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.calls import REQUEST_ID
from gateway.errors import CallError, invalid_field, unavailable
from gateway.identity.callers import Caller
from gateway.reasons import Reason
from gateway.registry import Catalog, ServedModel
from gateway.tokenization import Truncation
from jobqueue.lanes import Lane
from jobqueue.messages import Operation, VectorEncoding, vector_bytes
from qwen3.inference.v1 import common_pb2, embedding_pb2, model_pb2, rerank_pb2, tokenizer_pb2

MIN_DIMENSIONS = 32  # below it the authors claim no quality
# What every gRPC client receives by default, less room for metadata.
MAX_REPLY_BYTES = 4 * 1024 * 1024 - 64 * 1024
VECTOR_OVERHEAD_BYTES = 32  # an Embedding's tags, lengths, scale, token_count and truncated
RESULT_OVERHEAD_BYTES = 40  # likewise a RerankResult's
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100
MOST_IDS_SHOWN = 20

_TASKS = {Operation.EMBED: "embedding", Operation.RERANK: "reranking"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call may ask for, and which model it means when it names none."""

    max_embed_inputs: int
    max_rerank_documents: int
    max_text_bytes: int
    max_request_tokens: int
    default_embedding_model: str = ""
    default_rerank_model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedTask:
    """Texts to embed. `instruction` None means no template."""

    model: ServedModel
    texts: Sequence[str]
    instruction: str | None
    dimensions: int
    normalize: bool
    encoding: VectorEncoding
    truncation: Truncation
    lane: Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankTask:
    """Documents to score against a query. `top_n` 0 means all."""

    model: ServedModel
    query: str
    documents: Sequence[str]
    instruction: str
    top_n: int
    return_documents: bool
    by_score: bool
    as_logit: bool
    truncation: Truncation
    lane: Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTask:
    """Texts to count as they would be embedded, or, with a query, reranked."""

    model: ServedModel
    texts: Sequence[str]
    instruction: str | None
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeTask:
    model: ServedModel
    texts: Sequence[str]
    appends: bool


def validate_embed(
    request: embedding_pb2.EmbedRequest,
    catalog: Catalog,
    limits: Limits,
    *,
    caller: Caller,
    usual_lane: Lane = Lane.INTERACTIVE,
) -> EmbedTask:
    """`usual_lane` is an unset priority's. Raises CallError with the field at fault, or what the caller may not use."""
    config = request.config
    _check_request_id(request.request_id)
    model = _admitting(_find_model(config.model, Operation.EMBED, catalog, limits, caller, field="config.model"))
    instruction = _embed_instruction(config, model, limits, prefix="config.")
    dimensions = _dimensions(config.dimensions, model)
    wire_encoding = _enum(config.encoding, embedding_pb2.VectorEncoding, "config.encoding", default=1)
    encoding = VectorEncoding(wire_encoding)
    _check_texts(request.inputs, "inputs", most=max_vectors(limits, dimensions, encoding), limits=limits)
    return EmbedTask(
        model=model,
        texts=request.inputs,
        instruction=instruction,
        dimensions=dimensions,
        normalize=config.normalize if config.HasField("normalize") else True,
        encoding=encoding,
        truncation=_truncation(config.truncation_policy, "config.truncation_policy"),
        lane=_lane(config.priority, "config.priority", caller, usual=usual_lane),
    )


def validate_rerank(
    request: rerank_pb2.RerankRequest, catalog: Catalog, limits: Limits, *, caller: Caller
) -> RerankTask:
    """Raises CallError with the field at fault, or what the caller may not use."""
    _check_request_id(request.request_id)
    model = _admitting(_find_model(request.model, Operation.RERANK, catalog, limits, caller, field="model"))
    _check_text(request.query, "query", limits)
    _check_texts(request.documents, "documents", most=limits.max_rerank_documents, limits=limits)
    order = _enum(request.order, rerank_pb2.RerankOrder, "order", default=rerank_pb2.RERANK_ORDER_SCORE_DESCENDING)
    score_type = _enum(
        request.score_type, rerank_pb2.ScoreType, "score_type", default=rerank_pb2.SCORE_TYPE_PROBABILITY
    )
    if request.top_n < 0:
        raise invalid_field("top_n", "must not be negative")
    if request.top_n and order == rerank_pb2.RERANK_ORDER_INPUT:
        raise invalid_field("order", "INPUT does not go with top_n")
    if request.return_documents:
        _check_documents_fit(request.documents, request.top_n)
    return RerankTask(
        model=model,
        query=request.query,
        documents=request.documents,
        instruction=_rerank_instruction(request, model, limits),
        top_n=request.top_n,
        return_documents=request.return_documents,
        by_score=order == rerank_pb2.RERANK_ORDER_SCORE_DESCENDING,
        as_logit=score_type == rerank_pb2.SCORE_TYPE_LOGIT,
        truncation=_truncation(request.truncation_policy, "truncation_policy"),
        lane=_lane(request.priority, "priority", caller, usual=Lane.INTERACTIVE),
    )


def validate_count(
    request: tokenizer_pb2.CountTokensRequest, catalog: Catalog, limits: Limits, *, caller: Caller
) -> CountTask:
    """Raises CallError with the field at fault, or what the caller may not use."""
    operation = Operation.RERANK if request.query else Operation.EMBED
    model = _find_any_model(request.model, operation, catalog, limits, caller)
    reranks = model.announcement.operation is Operation.RERANK
    if reranks:
        _check_text(request.query, "query", limits)
        if request.input_type:
            raise invalid_field("input_type", "does not go with a reranker")
    elif request.query:
        raise invalid_field("query", f"{model.id} is an embedding model")
    _check_texts(request.inputs, "inputs", most=limits.max_rerank_documents, limits=limits)
    instruction = (
        _rerank_instruction(request, model, limits)
        if reranks
        else _embed_instruction(request, model, limits, prefix="")
    )
    return CountTask(model=model, texts=request.inputs, instruction=instruction, query=request.query)


def validate_tokenize(
    request: tokenizer_pb2.TokenizeRequest, catalog: Catalog, limits: Limits, *, caller: Caller
) -> TokenizeTask:
    """Raises CallError with the field at fault, or what the caller may not use."""
    model = _find_any_model(request.model, Operation.EMBED, catalog, limits, caller)
    _check_texts(request.inputs, "inputs", most=limits.max_rerank_documents, limits=limits)
    appends = request.add_special_tokens if request.HasField("add_special_tokens") else True
    return TokenizeTask(model=model, texts=request.inputs, appends=appends)


def validate_get_model(request: model_pb2.GetModelRequest, catalog: Catalog, *, caller: Caller) -> ServedModel:
    """Raises CallError with the field at fault, or what the caller may not use."""
    if not request.id:
        raise invalid_field("id", "is required")
    return _named_model(request.id, visible_to(caller, catalog), caller)


def validate_page_size(request: model_pb2.ListModelsRequest) -> int:
    """Raises CallError with the field at fault."""
    if request.page_size < 0:
        raise invalid_field("page_size", "must not be negative")
    return min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def visible_to(caller: Caller, catalog: Catalog) -> Catalog:
    """The catalog as if only those models were served that the caller may use."""
    if caller.models is None:
        return catalog
    return replace(catalog, models={id_: model for id_, model in catalog.models.items() if caller.may_use(id_)})


def max_vectors(limits: Limits, dimensions: int, encoding: VectorEncoding) -> int:
    """The most vectors in one unary reply: the setting, or fewer where that many do not fit into a reply."""
    return min(limits.max_embed_inputs, MAX_REPLY_BYTES // (vector_bytes(dimensions, encoding) + VECTOR_OVERHEAD_BYTES))


def default_model(operation: Operation, catalog: Catalog, limits: Limits) -> ServedModel | None:
    """The model that an empty name means: the one set, else the only one of its task."""
    named = _default_name(operation, limits)
    served = catalog.of(operation)
    if named:
        return next((model for model in served if model.id == named), None)
    return served[0] if len(served) == 1 else None


def _default_name(operation: Operation, limits: Limits) -> str:
    return limits.default_embedding_model if operation is Operation.EMBED else limits.default_rerank_model


def _find_model(
    name: str, operation: Operation, catalog: Catalog, limits: Limits, caller: Caller, *, field: str
) -> ServedModel:
    """The named model, which must do `operation`; or the operation's default one."""
    catalog = visible_to(caller, catalog)
    if not name:
        return _default_or_error(operation, catalog, limits, caller, field=field)
    model = _named_model(name, catalog, caller)
    if model.announcement.operation is not operation:
        raise _wrong_task(model, operation, catalog, field)
    return model


def _find_any_model(
    name: str, default_operation: Operation, catalog: Catalog, limits: Limits, caller: Caller
) -> ServedModel:
    """The named model, whatever it does; or the default one of `default_operation`."""
    catalog = visible_to(caller, catalog)
    if name:
        return _named_model(name, catalog, caller)
    return _default_or_error(default_operation, catalog, limits, caller, field="model")


def _default_or_error(
    operation: Operation, catalog: Catalog, limits: Limits, caller: Caller, *, field: str
) -> ServedModel:
    named = _default_name(operation, limits)
    if named and not caller.may_use(named):  # whose name is not told
        raise CallError(reason=Reason.MODEL_NOT_ALLOWED, message="the default model is not allowed to this caller")
    default = default_model(operation, catalog, limits)
    if default is not None:
        return default
    if len(catalog.of(operation)) > 1 and not named:
        served = _some([model.id for model in catalog.of(operation)])
        raise invalid_field(field, f"is required where several models are served: {served}")
    raise unavailable(Reason.NO_WORKER, f"no default model for {_TASKS[operation]} is served now")


def _named_model(name: str, catalog: Catalog, caller: Caller) -> ServedModel:
    _check_may_use(name, caller)
    model = catalog.models.get(name)
    if model is None:
        raise CallError(
            reason=Reason.MODEL_NOT_FOUND,
            message=f"no model {name[:100]!r} is served",
            metadata={"served": _some(sorted(catalog.models))},
        )
    return model


def _check_may_use(name: str, caller: Caller) -> None:
    """Also before it is known whether there is such a model, which would tell what others are served."""
    if not caller.may_use(name):
        raise CallError(reason=Reason.MODEL_NOT_ALLOWED, message=f"model {name[:100]!r} is not allowed to this caller")


def _some(ids: Sequence[str]) -> str:
    """The first of them: a status travels in headers, which have room for a few thousand bytes."""
    shown = [id_[:100] for id_ in ids[:MOST_IDS_SHOWN]]
    return ",".join([*shown, f"and {len(ids) - len(shown)} more"] if len(ids) > len(shown) else shown)


def _wrong_task(model: ServedModel, operation: Operation, catalog: Catalog, field: str) -> CallError:
    found, asked = _TASKS[model.announcement.operation], _TASKS[operation]
    return CallError(
        reason=Reason.WRONG_TASK,
        message=f"{field}: {model.id} is a model for {found}, not for {asked}",
        field=field,
        metadata={"served": _some([served.id for served in catalog.of(operation)])},
    )


def _admitting(model: ServedModel) -> ServedModel:
    if not model.admits:
        raise unavailable(Reason.NO_WORKER, f"no worker serves {model.id} now")
    return model


def _check_request_id(request_id: str) -> None:
    if request_id and not REQUEST_ID.fullmatch(request_id):
        raise invalid_field("request_id", "must be at most 128 printable ASCII characters")


def _check_texts(texts: Sequence[str], field: str, *, most: int, limits: Limits) -> None:
    if not texts:
        raise invalid_field(field, "is empty")
    if len(texts) > most:
        raise invalid_field(field, f"{len(texts)} where {most} fit in one call; split the call")
    for index, text in enumerate(texts):
        _check_text(text, f"{field}[{index}]", limits)


def _check_text(text: str, field: str, limits: Limits) -> None:
    """Bounds what is tokenised: a text of any size would hold a thread for seconds."""
    if not text or text.isspace():
        raise invalid_field(field, "is empty or white space only")
    if len(text) > limits.max_text_bytes or len(text.encode()) > limits.max_text_bytes:
        raise invalid_field(field, f"is larger than {limits.max_text_bytes} bytes, with or without truncation")


def _check_documents_fit(documents: Sequence[str], top_n: int) -> None:
    """The largest reply that may come out of it must fit, since the scores decide which documents are sent back."""
    sizes = sorted((len(document.encode()) + RESULT_OVERHEAD_BYTES for document in documents), reverse=True)
    if sum(sizes[: top_n or None]) > MAX_REPLY_BYTES:
        raise invalid_field(
            "return_documents", "the documents are too large for one reply; match them by index instead"
        )


def _enum(value: int, enum: Any, field: str, *, default: int) -> int:
    if value not in enum.DESCRIPTOR.values_by_number:
        raise invalid_field(field, f"{value} is not a value of {enum.DESCRIPTOR.name}")
    return value or default


def _truncation(value: int, field: str) -> Truncation:
    return Truncation(_enum(value, common_pb2.TruncationPolicy, field, default=Truncation.ERROR))


def _lane(value: int, field: str, caller: Caller, *, usual: Lane) -> Lane:
    """The one asked for; else the usual one, or the only one that the caller may use."""
    default = usual if usual in caller.lanes else next(iter(caller.lanes))
    lane = Lane(_enum(value, common_pb2.Priority, field, default=default))
    if lane not in caller.lanes:
        raise CallError(
            reason=Reason.PRIORITY_NOT_ALLOWED, message=f"{field}: {lane.name} is not allowed to this caller"
        )
    return lane


def _dimensions(asked: int, model: ServedModel) -> int:
    native = model.announcement.native_dimensions
    if asked and not MIN_DIMENSIONS <= asked <= native:
        raise invalid_field("config.dimensions", f"{asked} is not between {MIN_DIMENSIONS} and {native}")
    return asked or native


def _embed_instruction(
    config: embedding_pb2.EmbedConfig | tokenizer_pb2.CountTokensRequest,
    model: ServedModel,
    limits: Limits,
    *,
    prefix: str,
) -> str | None:
    """None for no template: a document's, an unset type's without an instruction, and an empty instruction's."""
    field = f"{prefix}instruction"
    input_type = _enum(config.input_type, embedding_pb2.InputType, f"{prefix}input_type", default=0)
    if not config.HasField("instruction"):
        is_query = input_type == embedding_pb2.INPUT_TYPE_QUERY
        return model.announcement.default_instruction if is_query else None
    if input_type == embedding_pb2.INPUT_TYPE_DOCUMENT:
        raise invalid_field(field, "does not go with DOCUMENT; leave input_type unset for a symmetric task")
    if config.instruction:
        _check_text(config.instruction, field, limits)
    return config.instruction or None


def _rerank_instruction(
    request: rerank_pb2.RerankRequest | tokenizer_pb2.CountTokensRequest, model: ServedModel, limits: Limits
) -> str:
    if not request.HasField("instruction"):
        return model.announcement.default_instruction
    _check_text(request.instruction, "instruction", limits)
    return request.instruction
