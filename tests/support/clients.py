"""Both clients behind the same blocking methods, so that one test holds for both."""

import asyncio
import inspect
from collections.abc import Generator, Iterator

from qwen3_client import AsyncClient, Client


class BlockingClient:
    """An AsyncClient on an event loop of its own."""

    def __init__(self, *arguments, **options) -> None:
        self._loop = asyncio.new_event_loop()
        try:
            self._client = self._loop.run_until_complete(self._made(*arguments, **options))
        except BaseException:
            self._loop.close()
            raise

    async def _made(self, *arguments, **options) -> AsyncClient:
        return AsyncClient(*arguments, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def __getattr__(self, name):
        def call(*arguments, **options):
            found = getattr(self._client, name)(*arguments, **options)
            return self._each(found) if inspect.isasyncgen(found) else self._loop.run_until_complete(found)

        return call

    def _each(self, results) -> Generator:
        try:
            while (result := self._loop.run_until_complete(anext(results, None))) is not None:
                yield result
        finally:
            self._loop.run_until_complete(results.aclose())


CLIENTS = {"sync": Client, "async": BlockingClient}


def one_by_one(texts) -> Iterator[str]:
    """Texts that have no length."""
    yield from texts
