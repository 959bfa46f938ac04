"""What `benchmarks.queue` compares with: a bare round trip over redis-py, which promises nothing.

XADD, a blocking read, XADD, a blocking read. No admission, leases, deadlines, acknowledgements or second tries; both
ends read as many entries at once as there are, and the asking end sends what is asked in one tick as one pipeline.
"""

import argparse
import asyncio
import os
import signal
import threading
from types import TracebackType
from typing import Any, Self, cast

import redis
import redis.asyncio

from benchmarks.queue_echo import ROW
from runtime.ready import say_ready

ASKED, ANSWERED = "bare:asked", "bare:answered"
AT_ONCE = 64
KEPT = 10_000
BLOCK_MS = 500


class BareClient:
    """Asks; an async context manager."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(url, protocol=2, socket_timeout=None)
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._to_send: list[tuple[bytes, bytes]] = []
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._redis.aclose()

    async def ask(self, payload: bytes) -> bytes:
        question = os.urandom(16)
        self._waiting[question] = asyncio.get_running_loop().create_future()
        self._to_send.append((question, payload))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return await self._waiting[question]

    async def _send_all(self) -> None:
        while self._to_send:
            entries, self._to_send = self._to_send, []
            pipeline = self._redis.pipeline(transaction=False)
            for question, payload in entries:
                pipeline.xadd(ASKED, {b"id": question, b"payload": payload}, maxlen=KEPT)
            await pipeline.execute()
        self._sender = None

    async def _read_all(self) -> None:
        last: Any = "0"
        while True:
            for _, entries in cast(Any, await self._redis.xread({ANSWERED: last}, count=AT_ONCE, block=BLOCK_MS)):
                for entry_id, fields in entries:
                    last = entry_id
                    for question, answer in fields.items():
                        self._waiting.pop(question).set_result(answer)


def answer_all(url: str, stopping: threading.Event) -> None:
    """The other end: all that was read is answered in one entry."""
    client = redis.Redis.from_url(url, protocol=2)
    last: Any = "0"
    while not stopping.is_set():
        for _, entries in cast(Any, client.xread({ASKED: last}, count=AT_ONCE, block=BLOCK_MS)):
            last = entries[-1][0]
            client.xadd(ANSWERED, {fields[b"id"]: ROW for _, fields in entries}, maxlen=KEPT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("redis")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    arguments = parser.parse_args()
    say_ready("bare")
    answer_all(arguments.redis, stopping)


if __name__ == "__main__":
    main()
