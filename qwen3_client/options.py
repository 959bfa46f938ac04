"""The words a caller writes, and the contract's enum values they stand for."""

from collections.abc import Mapping
from typing import Literal, TypeVar

from qwen3.inference.v1 import common_pb2, embedding_pb2, model_pb2, rerank_pb2

Encoding = Literal["float32", "float16", "int8", "binary"]
InputType = Literal["query", "document"]
Truncation = Literal["error", "end", "start"]
Priority = Literal["interactive", "bulk"]
ScoreType = Literal["probability", "logit"]

ENCODINGS: Mapping[str, embedding_pb2.VectorEncoding.ValueType] = {
    "float32": embedding_pb2.VECTOR_ENCODING_FLOAT32,
    "float16": embedding_pb2.VECTOR_ENCODING_FLOAT16,
    "int8": embedding_pb2.VECTOR_ENCODING_INT8,
    "binary": embedding_pb2.VECTOR_ENCODING_BINARY,
}
# What a model may have beside these: numbers that a reader without bytes can take, which here are never asked for.
MODEL_ENCODINGS: Mapping[str, embedding_pb2.VectorEncoding.ValueType] = {
    **ENCODINGS,
    "float_list": embedding_pb2.VECTOR_ENCODING_FLOAT_LIST,
}
INPUT_TYPES: Mapping[str | None, embedding_pb2.InputType.ValueType] = {
    None: embedding_pb2.INPUT_TYPE_UNSPECIFIED,
    "query": embedding_pb2.INPUT_TYPE_QUERY,
    "document": embedding_pb2.INPUT_TYPE_DOCUMENT,
}
TRUNCATIONS: Mapping[str, common_pb2.TruncationPolicy.ValueType] = {
    "error": common_pb2.TRUNCATION_POLICY_ERROR,
    "end": common_pb2.TRUNCATION_POLICY_END,
    "start": common_pb2.TRUNCATION_POLICY_START,
}
PRIORITIES: Mapping[str | None, common_pb2.Priority.ValueType] = {
    None: common_pb2.PRIORITY_UNSPECIFIED,
    "interactive": common_pb2.PRIORITY_INTERACTIVE,
    "bulk": common_pb2.PRIORITY_BULK,
}
SCORE_TYPES: Mapping[str, rerank_pb2.ScoreType.ValueType] = {
    "probability": rerank_pb2.SCORE_TYPE_PROBABILITY,
    "logit": rerank_pb2.SCORE_TYPE_LOGIT,
}
MODEL_TASKS: Mapping[str, model_pb2.ModelTask.ValueType] = {
    "embedding": model_pb2.MODEL_TASK_EMBEDDING,
    "rerank": model_pb2.MODEL_TASK_RERANK,
}
MODEL_STATES: Mapping[str, model_pb2.ModelState.ValueType] = {
    "loading": model_pb2.MODEL_STATE_LOADING,
    "ready": model_pb2.MODEL_STATE_READY,
    "unavailable": model_pb2.MODEL_STATE_UNAVAILABLE,
}

_Word = TypeVar("_Word", str, str | None)
_Value = TypeVar("_Value", bound=int)


def value_of(option: str, word: _Word, values: Mapping[_Word, _Value]) -> _Value:
    """The enum value of `word`. Raises ValueError naming the option and its words."""
    if word not in values:
        raise ValueError(f"{option} must be one of {', '.join(filter(None, values))}, not {word!r}")
    return values[word]


def word_of(value: _Value, values: Mapping[str, _Value]) -> str:
    """The word of an enum value; "unknown" for one that a newer server knows and this client does not."""
    return next((word for word, known in values.items() if known == value), "unknown")
