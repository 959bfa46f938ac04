"""From a result to the response message."""

import math
import struct
from array import array
from collections.abc import Iterator, Sequence
from functools import partial

from tokenizers import Encoding

from gateway.calls import Call
from gateway.errors import invalid_field
from gateway.registry import Catalog, ServedModel
from gateway.tokenization import SLICE_CHARS, Tokenization, TokenizedPrompt
from gateway.validation import (
    MAX_REPLY_BYTES,
    MIN_DIMENSIONS,
    EmbedTask,
    Limits,
    RerankTask,
    TokenizeTask,
    default_model,
    max_vectors,
)
from jobqueue.announcements import Liveness
from jobqueue.cost import split_by_size
from jobqueue.messages import Operation, Result, TokenIds, VectorEncoding
from qwen3.inference.v1 import common_pb2, embedding_pb2, model_pb2, rerank_pb2, tokenizer_pb2

TOKEN_BYTES = 9  # of an id, a start and an end, as varints of up to 3 bytes

_STATES = {
    Liveness.ABSENT: model_pb2.MODEL_STATE_UNAVAILABLE,
    Liveness.LOADING: model_pb2.MODEL_STATE_LOADING,
    Liveness.LIVE: model_pb2.MODEL_STATE_READY,
}


def embed_response(task: EmbedTask, prompt: TokenizedPrompt, result: Result, call: Call) -> embedding_pb2.EmbedResponse:
    return embedding_pb2.EmbedResponse(
        embeddings=_embeddings(task, prompt, result),
        model=task.model.id,
        model_revision=task.model.announcement.revision,
        dimensions=task.dimensions,
        encoding=embedding_pb2.VectorEncoding.ValueType(task.encoding),
        usage=_usage(prompt, result),
        timing=_timing(prompt, result, call),
    )


def _embeddings(task: EmbedTask, prompt: TokenizedPrompt, result: Result) -> Iterator[embedding_pb2.Embedding]:
    scales = _floats(result.scales) or [0.0] * result.num_rows
    for row, scale, length, truncated in zip(_rows(result), scales, prompt.lengths, prompt.truncated, strict=True):
        if task.encoding is VectorEncoding.FLOAT_LIST:
            yield embedding_pb2.Embedding(values=_floats(row), token_count=length, truncated=truncated)
        else:
            yield embedding_pb2.Embedding(packed=row, scale=scale, token_count=length, truncated=truncated)


def rerank_response(task: RerankTask, prompt: TokenizedPrompt, result: Result, call: Call) -> rerank_pb2.RerankResponse:
    logits = _floats(result.rows)
    scores = logits if task.as_logit else [probability(logit) for logit in logits]
    order: Sequence[int] = range(len(logits))
    if task.by_score:
        order = sorted(order, key=lambda index: (-logits[index], index))
    return rerank_pb2.RerankResponse(
        results=[
            rerank_pb2.RerankResult(
                index=index,
                score=scores[index],
                document=task.documents[index] if task.return_documents else None,
                token_count=prompt.lengths[index],
                truncated=prompt.truncated[index],
            )
            for index in order[: task.top_n or None]
        ],
        model=task.model.id,
        model_revision=task.model.announcement.revision,
        usage=_usage(prompt, result),
        timing=_timing(prompt, result, call),
    )


def probability(logit: float) -> float:
    """softmax([no, yes])[yes] = sigmoid(yes - no), without overflow on either side."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


def count_response(model: ServedModel, prompt: TokenizedPrompt) -> tokenizer_pb2.CountTokensResponse:
    return tokenizer_pb2.CountTokensResponse(
        token_counts=prompt.lengths,
        total_tokens=sum(prompt.lengths),
        max_input_tokens=model.announcement.max_input_tokens,
    )


async def tokenize_response(task: TokenizeTask, tokenization: Tokenization) -> tokenizer_pb2.TokenizeResponse:
    """Encodes too, a slice at a time. Raises CallError as soon as the reply would not fit a client."""
    response, num_tokens = tokenizer_pb2.TokenizeResponse(), 0
    for part in split_by_size([len(text) for text in task.texts], SLICE_CHARS):
        sequences = await tokenization.run(partial(_token_sequences, task, part))
        num_tokens += sum(len(sequence.ids) for sequence in sequences)
        if num_tokens > MAX_REPLY_BYTES // TOKEN_BYTES:
            raise invalid_field("inputs", "the reply would be larger than clients receive; split the call")
        response.sequences.extend(sequences)
    return response


def _token_sequences(task: TokenizeTask, part: range) -> list[tokenizer_pb2.TokenSequence]:
    texts = task.texts[part.start : part.stop]
    appended = task.model.tokenizer.appended if task.appends else array("i")
    encodings = task.model.tokenizer.encode_with_offsets(texts)
    return [_token_sequence(text, encoding, appended) for text, encoding in zip(texts, encodings, strict=True)]


def _token_sequence(text: str, encoding: Encoding, appended: TokenIds) -> tokenizer_pb2.TokenSequence:
    """What NFC joins to a letter belongs to its token, so a token ends no earlier than the next begins."""
    starts = [start for start, _ in encoding.offsets]
    ends = [max(end, after) for (_, end), after in zip(encoding.offsets, [*starts[1:], len(text)], strict=True)]
    nothing = [len(text)] * len(appended)
    return tokenizer_pb2.TokenSequence(ids=[*encoding.ids, *appended], starts=starts + nothing, ends=ends + nothing)


def model_messages(ids: Sequence[str], catalog: Catalog, limits: Limits) -> list[model_pb2.Model]:
    defaults = [default_model(operation, catalog, limits) for operation in Operation]
    default_ids = {model.id for model in defaults if model is not None}
    return [_model_message(catalog.models[id_], limits, is_default=id_ in default_ids) for id_ in ids]


def _model_message(model: ServedModel, limits: Limits, *, is_default: bool) -> model_pb2.Model:
    announcement = model.announcement
    embeds = announcement.operation is Operation.EMBED
    native = announcement.native_dimensions
    most = max_vectors(limits, native, VectorEncoding.FLOAT32) if embeds else limits.max_rerank_documents
    return model_pb2.Model(
        id=model.id,
        task=model_pb2.MODEL_TASK_EMBEDDING if embeds else model_pb2.MODEL_TASK_RERANK,
        revision=announcement.revision,
        state=_STATES[model.liveness],
        native_dimensions=native,
        min_dimensions=MIN_DIMENSIONS if embeds else 0,
        max_input_tokens=announcement.max_input_tokens,
        max_batch_inputs=most,
        encodings=[embedding_pb2.VectorEncoding.ValueType(encoding) for encoding in VectorEncoding] if embeds else [],
        default_instruction=announcement.default_instruction,
        default_for_task=is_default,
    )


def _rows(result: Result) -> Iterator[bytes]:
    size = result.row_bytes
    return (result.rows[start : start + size] for start in range(0, len(result.rows), size))


def _floats(data: bytes) -> Sequence[float]:
    return struct.unpack(f"<{len(data) // 4}f", data)


def _usage(prompt: TokenizedPrompt, result: Result) -> common_pb2.Usage:
    return common_pb2.Usage(input_tokens=sum(prompt.lengths), computed_tokens=result.computed_tokens)


def _timing(prompt: TokenizedPrompt, result: Result, call: Call) -> common_pb2.Timing:
    return common_pb2.Timing(
        queue_us=result.queue_us,
        tokenize_us=prompt.elapsed_us,
        compute_us=result.compute_us,
        total_us=call.elapsed_us,
    )
