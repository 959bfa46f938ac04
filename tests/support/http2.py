"""HTTP/2 frame by frame, for what a gRPC library does not let anybody send."""

import contextlib
import re
import secrets
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
MOST_FRAME_BYTES = 16_384

_NO_TABLE = struct.pack(">HI", 1, 0)  # gRPC then spells all names and values out, and plainly
_OPEN_WINDOW = struct.pack(">HI", 4, 2**31 - 1)
_STATUS = re.compile(rb"grpc-status.(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def status(self) -> int | None:
        """The grpc-status in it."""
        found = _STATUS.search(self.payload) if self.kind == HEADERS else None
        return int(found[1]) if found else None


class Http2:
    """A connection, as a context manager."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self._socket.sendall(PREFACE + frame(SETTINGS, payload=_NO_TABLE + _OPEN_WINDOW))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, *frames: bytes) -> None:
        self._socket.sendall(b"".join(frames))

    def frames(self) -> Iterator[Frame]:
        """Until the connection ends. Raises TimeoutError where nothing comes."""
        while header := self._read(9):
            length, kind, flags, stream = int.from_bytes(header[:3], "big"), *struct.unpack(">BBI", header[3:])
            yield Frame(kind=kind, flags=flags, stream=stream, payload=self._read(length))

    def ending(self, stream: int) -> str:
        """How the call ended: `status 3`, `reset 8`, `goaway 11` or `closed`. Raises TimeoutError where it did not."""
        with contextlib.suppress(ConnectionError):
            for found in self.frames():
                if found.kind == GOAWAY:
                    return f"goaway {int.from_bytes(found.payload[4:8], 'big')}"
                if found.stream == stream and found.kind == RST_STREAM:
                    return f"reset {int.from_bytes(found.payload, 'big')}"
                if found.stream == stream and found.kind == HEADERS and found.flags & END_STREAM:
                    return f"status {found.status}"
        return "closed"

    def answers_ping(self) -> bool:
        """False where the connection ends. Raises TimeoutError where nothing comes."""
        sent = secrets.token_bytes(8)
        with contextlib.suppress(ConnectionError):
            self.send(frame(PING, payload=sent))
            return any(found.kind == PING and found.payload == sent for found in self.frames())
        return False

    def _read(self, length: int) -> bytes:
        parts = b""
        while len(parts) < length:
            part = self._socket.recv(length - len(parts))
            if not part:
                return b""
            parts += part
        return parts


def frame(kind: int, *, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def headers(stream: int, *fields: tuple[bytes, bytes], ends: bool = False) -> bytes:
    """All fields literal, none indexed."""
    block = b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)
    flags = END_HEADERS | (END_STREAM if ends else 0)
    return frame(HEADERS, flags=flags, stream=stream, payload=block)


def call_headers(path: str, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """What every call begins with, and more."""
    start = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"localhost")]
    return [*start, (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more]


def data(stream: int, payload: bytes, *, ends: bool = False) -> bytes:
    """In as many frames as it takes."""
    parts = [payload[at : at + MOST_FRAME_BYTES] for at in range(0, len(payload), MOST_FRAME_BYTES)] or [b""]
    last = len(parts) - 1
    return b"".join(
        frame(DATA, flags=END_STREAM if ends and place == last else 0, stream=stream, payload=part)
        for place, part in enumerate(parts)
    )


def message(payload: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """With gRPC's prefix, which says `length` where it is to lie."""
    return struct.pack(">BI", compressed, len(payload) if length is None else length) + payload


def _string(value: bytes) -> bytes:
    """HPACK's plain form."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, size = len(value) - 127, [127]
    while rest >= 128:
        size.append(rest % 128 + 128)
        rest //= 128
    return bytes([*size, rest]) + value
