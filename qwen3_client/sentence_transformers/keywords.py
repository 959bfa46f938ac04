"""What the library's keywords mean to a service. Those without a meaning there are refused by name. No I/O."""

import re
from collections.abc import Mapping
from typing import Literal, TypeVar

from qwen3_client.options import Encoding

Precision = Literal["float32", "binary", "ubinary"]

_ENCODINGS: Mapping[str, Encoding] = {"float32": "float32", "binary": "binary", "ubinary": "binary"}
_TEMPLATE = re.compile(r"Instruct: (.+)\nQuery:", re.DOTALL)
_Inputs = TypeVar("_Inputs")


def refuse_loading_keywords(class_name: str, keywords: Mapping[str, object]) -> None:
    """Raises TypeError for whatever a constructor does not know: most of the library's say how a model is loaded."""
    if keywords:
        raise TypeError(f"{class_name} has no {', '.join(keywords)} here: the service has loaded the model")


def either_inputs(inputs: _Inputs | None, sentences: _Inputs | None) -> _Inputs:
    """`sentences` is what `inputs` was called until version 6. Raises TypeError unless there is one, and no mapping."""
    given = [each for each in (inputs, sentences) if each is not None]
    if len(given) != 1:
        raise TypeError("give inputs, or sentences as they were called before: one of them")
    if isinstance(given[0], Mapping):
        raise TypeError("inputs must be texts: the model takes nothing else")
    return given[0]


def check_computation(*, batch_size: int, device: object, pool: object, chunk_size: int | None) -> None:
    """A batch size and a device change no result, and the service has its own. Raises ValueError for the others."""
    if batch_size <= 0:
        raise ValueError(f"batch_size must be positive, not {batch_size}")
    several_devices = device if isinstance(device, (list, tuple)) else None
    for name, value in (("device, as a list,", several_devices), ("pool", pool), ("chunk_size", chunk_size)):
        if value is not None:
            raise ValueError(f"{name} is of processes on this machine, but the model runs in the service")


def query_prompt(instruction: str) -> str:
    """What stands before a query, as the model was trained: there is no space at its end."""
    return f"Instruct: {instruction}\nQuery:"


def instruction_of(prompt: str) -> str | None:
    """The instruction in a prompt for embedding; None without a prompt. Raises ValueError for one of another form."""
    if not prompt:
        return None
    found = _TEMPLATE.fullmatch(prompt)
    if found is None:
        raise ValueError(
            f"prompt must be {query_prompt('...')!r}, with no space after the last colon, not {prompt!r}: "
            "the model knows no other. Whatever else belongs before a text is part of the text"
        )
    return found[1]


def encoding_of(precision: str) -> Encoding:
    """How vectors are fetched. Raises ValueError for int8 and uint8: the library's depend on all texts of a call."""
    if precision not in _ENCODINGS:
        raise ValueError(
            f"precision must be one of {', '.join(_ENCODINGS)}, not {precision!r}: give float32 vectors to the "
            "library's quantize_embeddings, or use Client.embed(encoding='int8'), with a scale for each vector"
        )
    return _ENCODINGS[precision]
