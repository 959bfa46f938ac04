"""What is sent: valid messages with something done to them, made-up ones, and bytes that are none; always the same.

Every case follows from a seed and its number, so that one that found something can be sent again.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.fuzz.rpcs import Rpc

MOST_MESSAGES = 6  # of a stream
SHORT_S = 0.002

_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "a",
        "<|im_end|>",
        "<|im_start|>system\n",
        "<think>\n\n</think>",
        "emb",
        "rer",
        "nobody",
        "..",
        "%s%n",
    ),
    *(
        "é" * 50,
        "\ufeff",
        "\U0010ffff",
        "👩‍👩‍👧‍👦",
        "\u202e abc",
        "\r\n\r\n",
        "word " * 600,
        "x" * 3000,
        "model:emb",
        "@",
        "*",
    ),
)
_NUMBERS = (0, 1, -1, 2, 3, 7, 32, 64, 99, 2**15, 2**31 - 1, -(2**31))
_METADATA = (
    ("authorization", "Bearer nobody"),
    ("authorization", "Basic YTpi"),
    ("authorization", ""),
    ("authorization", "Bearer " + "k" * 4000),
    ("x-request-id", "i" * 4000),
    ("traceparent", "00-0123"),
    ("traceparent", "00-" + "f" * 32 + "-" + "0" * 16 + "-01"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff"),
    ("tracestate", "=" * 600),
    ("grpc-previous-rpc-attempts", "many"),
    ("x-previous-rpc-attempts", "-1"),
    ("x-previous-rpc-attempts", ""),
    ("x-odd-bin", bytes(range(256))),
    ("x-long", "y" * 5000),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call. `timeout_s` None: as long as it takes. `hangs_up`: without waiting for the answer."""

    rpc: Rpc
    number: int
    messages: Sequence[bytes]
    metadata: Sequence[tuple[str, str | bytes]]
    timeout_s: float | None
    hangs_up: bool


def make_case(rpc: Rpc, number: int, *, seed: int) -> Case:
    rng = random.Random(f"{seed} {rpc.path} {number}")
    return Case(
        rpc=rpc,
        number=number,
        messages=_messages(rpc, rng),
        metadata=tuple(rng.sample(_METADATA, k=1 if rng.random() < 0.1 else 0)),
        timeout_s=SHORT_S if rng.random() < 0.02 else None,
        hangs_up=rng.random() < 0.02,
    )


def _messages(rpc: Rpc, rng: random.Random) -> tuple[bytes, ...]:
    if not rpc.streams_requests:
        number = rng.choices((0, 1, 2), weights=(1, 98, 1))[0]  # others than one break gRPC's own rules
        return tuple(_message(rpc, rng) for _ in range(number))
    first = rpc.samples[:1] if rng.random() < 0.8 else []  # or few streams would come to their second message
    rest = [_message(rpc, rng) for _ in range(rng.randint(0, MOST_MESSAGES - 1))]
    return (*first, *rest)


def _message(rpc: Rpc, rng: random.Random) -> bytes:
    how = rng.choices(("valid", "mutated", "made up", "bytes"), weights=(1, 4, 4, 1))[0]
    if how == "made up":
        return _made_up(rpc.request, rng).SerializeToString()
    if how == "bytes":
        return rng.randbytes(rng.randint(0, 300))
    sample = rng.choice(rpc.samples)
    return _mutated(sample, rpc.samples, rng) if how == "mutated" else sample


def _mutated(message: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 4)):
        message = rng.choice(_MUTATIONS)(message, rng)
    return message + rng.choice(others) if rng.random() < 0.1 else message  # which protobuf merges


def _place(message: bytes, rng: random.Random) -> int:
    return rng.randint(0, len(message))


def _flip(message: bytes, rng: random.Random) -> bytes:
    place = _place(message, rng)
    return (
        message[:place]
        + bytes(byte ^ 1 << rng.randrange(8) for byte in message[place : place + 1])
        + message[place + 1 :]
    )


def _replace(message: bytes, rng: random.Random) -> bytes:
    place = _place(message, rng)
    return message[:place] + rng.randbytes(1) + message[place + 1 :]


def _insert(message: bytes, rng: random.Random) -> bytes:
    place = _place(message, rng)
    return message[:place] + rng.randbytes(rng.randint(1, 8)) + message[place:]


def _remove(message: bytes, rng: random.Random) -> bytes:
    place = _place(message, rng)
    return message[:place] + message[place + rng.randint(1, 8) :]


def _cut(message: bytes, rng: random.Random) -> bytes:
    return message[: _place(message, rng)]


def _repeat(message: bytes, rng: random.Random) -> bytes:
    start, end = sorted((_place(message, rng), _place(message, rng)))
    return message[:end] + message[start:end] * rng.randint(1, 20) + message[end:]


_MUTATIONS: Sequence[Callable[[bytes, random.Random], bytes]] = (_flip, _replace, _insert, _remove, _cut, _repeat)


def _made_up(kind: type[Message], rng: random.Random) -> Message:
    """Of the right form, with odd values."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if rng.random() < 0.5:
            _fill(message, field, rng)
    return message


def _fill(message: Message, field: FieldDescriptor, rng: random.Random) -> None:
    if field.is_repeated:
        number = rng.choice((1, 2, 3, 20, 300))
        getattr(message, field.name).extend(_value(field, rng) for _ in range(number))
    elif field.message_type:
        getattr(message, field.name).CopyFrom(_made_up(GetMessageClass(field.message_type), rng))
    else:
        setattr(message, field.name, _value(field, rng))


def _value(field: FieldDescriptor, rng: random.Random) -> object:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(_TEXTS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice((0, 1, 2, 3, 4, 5, 99, -1))
    return rng.choice(_NUMBERS)
