"""What no gRPC library sends: each on a connection of its own, to see how the gateway ends it."""

import gzip
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qwen3.inference.v1.embedding_pb2 import EmbedRequest
from tests.support.http2 import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2,
    call_headers,
    data,
    frame,
    headers,
    message,
)

EMBED = "/qwen3.inference.v1.EmbeddingService/Embed"
GOOD = message(EmbedRequest(inputs=["text"]).SerializeToString())
TIMEOUT_S = 60.0

_TIMEOUTS = (b"", b"S", b"abc", b"-1S", b"1X", b"0n", b"1n", b"99999999H", b"999999999999S", b"1 S", b"\xff\xff")
_ENCODINGS = (b"", b"gzip", b"deflate", b"identity", b"br", b"\xff", b"gzip,gzip")
_PATHS = (
    "",
    "/",
    "Embed",
    "/nobody/Nothing",
    "/qwen3.inference.v1.EmbeddingService/",
    EMBED + "/",
    EMBED + "?x=1",
    "/\0",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """Frames to be sent. `calls`: they make a call, stream 1, which has to end."""

    name: str
    frames: Sequence[bytes]
    calls: bool = True


def oddities(*, seed: int, num_random: int) -> Iterator[Oddity]:
    """Always the same ones for a seed."""
    rng = random.Random(seed)
    yield from _odd_headers()
    yield from _odd_messages()
    yield from _odd_frames()
    for number in range(num_random):
        frames = [_random_frame(rng) for _ in range(rng.randint(1, 20))]
        yield Oddity(name=f"random frames {number}", frames=frames, calls=False)


def play(oddity: Oddity, address: str) -> str:
    """How its call, or its connection, ended, as Http2.ending says. Raises TimeoutError where neither has.

    A connection that goes on is `alive`, where there was no call to end.
    """
    with Http2(address, timeout_s=TIMEOUT_S) as connection:
        try:
            connection.send(*oddity.frames)
            if oddity.calls:
                return connection.ending(1)
            return "alive" if connection.answers_ping() else "closed"
        except ConnectionError:
            return "closed"


def _call(name: str, fields: Sequence[tuple[bytes, bytes]], body: bytes = GOOD) -> Oddity:
    return Oddity(name=name, frames=[headers(1, *fields), data(1, body, ends=True)])


def _odd_headers() -> Iterator[Oddity]:
    usual = call_headers(EMBED)
    for value in _TIMEOUTS:
        yield _call(f"grpc-timeout {value!r}", [*usual, (b"grpc-timeout", value)])
    for value in _ENCODINGS:
        yield _call(f"grpc-encoding {value!r}", [*usual, (b"grpc-encoding", value)])
    for path in _PATHS:
        yield _call(f"path {path!r}", call_headers(path))
    for field in usual:
        yield _call(f"without {field[0]!r}", [other for other in usual if other != field])
        yield _call(f"{field[0]!r} twice", [*usual, field])
    yield _call("GET", [(b":method", b"GET"), *usual[1:]])
    yield _call("HTML", [*usual[:-1], (b"content-type", b"text/html")])
    for name in (b"", b":odd", b"UPPER", b"a b", b"\xff", b"x-bin"):
        yield _call(f"header {name!r}", [*usual, (name, b"\0\xff==")])
    for number in (1_000, 10_000, 100_000):
        yield _call(f"a header of {number} bytes", [*usual, (b"x-long", b"y" * (number % 16_000))])
        many = [(b"x-%d" % place, b"y") for place in range(min(number // 10, 1000))]
        yield _call(f"{len(many)} headers", [*usual, *many])


def _odd_messages() -> Iterator[Oddity]:
    usual, packed = call_headers(EMBED), gzip.compress(GOOD[5:])
    yield Oddity(name="no message", frames=[headers(1, *usual, ends=True)])
    yield _call("an empty body", usual, b"")
    yield _call("two messages", usual, GOOD * 2)
    yield _call("a third of the prefix", usual, GOOD[:2])
    yield _call("half a message", usual, message(GOOD[5:], length=10_000))
    yield _call("a message of 4 GiB", usual, message(b"x", length=2**32 - 1))
    yield _call("more than the length says", usual, message(GOOD[5:], length=3))
    yield _call("compressed, nobody says how", usual, message(packed, compressed=1))
    yield _call("gzip", [*usual, (b"grpc-encoding", b"gzip")], message(packed, compressed=1))
    yield _call("no gzip", [*usual, (b"grpc-encoding", b"gzip")], message(b"no gzip", compressed=1))
    yield _call("half of a gzip", [*usual, (b"grpc-encoding", b"gzip")], message(packed[:-9], compressed=1))
    yield _call("an odd flag", usual, message(GOOD[5:], compressed=77))


def _odd_frames() -> Iterator[Oddity]:
    opened = headers(1, *call_headers(EMBED))
    nothing = struct.pack(">I", 0)
    for name, frames in (
        ("data of nobody's", [data(5, GOOD)]),
        ("an even stream", [headers(2, *call_headers(EMBED))]),
        ("stream 0", [headers(0, *call_headers(EMBED))]),
        ("headers within a call", [opened, opened]),
        ("a window of 0", [opened, frame(WINDOW_UPDATE, stream=1, payload=nothing)]),
        ("a window too far", [frame(WINDOW_UPDATE, payload=b"\x7f\xff\xff\xff")] * 2),
        ("a continuation of nothing", [frame(CONTINUATION, stream=1, payload=b"\0")]),
        ("broken compression of headers", [frame(HEADERS, flags=5, stream=1, payload=b"\xff" * 30)]),
        ("settings of 5 bytes", [frame(SETTINGS, payload=b"12345")]),
        ("a ping of 5 bytes", [frame(PING, payload=b"12345")]),
        ("a reset of 5 bytes", [opened, frame(RST_STREAM, stream=1, payload=b"12345")]),
        ("a frame that is too long", [opened, frame(DATA, stream=1, payload=b"x" * 100_000)]),
        (
            "headers without end",
            [frame(HEADERS, stream=1), *[frame(CONTINUATION, stream=1, payload=b"\0\1a\1b")] * 10_000],
        ),
    ):
        yield Oddity(name=name, frames=frames, calls=False)


def _random_frame(rng: random.Random) -> bytes:
    payload = rng.randbytes(rng.randint(0, 40))
    return frame(rng.randint(0, 12), flags=rng.randrange(256), stream=rng.choice((0, 1, 1, 2, 3, 5)), payload=payload)
