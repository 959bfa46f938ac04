"""Running a script alone: by its digest, and with its source where the server does not know it."""

from collections.abc import Sequence
from typing import Any, cast

from redis.exceptions import NoScriptError

from jobqueue import scripts
from jobqueue.connection import AsyncRedis, SyncRedis


def evaluate(client: SyncRedis, name: str, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
    """The script's reply."""
    script = scripts.load(name)
    try:
        return client.evalsha(script.digest, len(keys), *keys, *arguments)
    except NoScriptError:
        return client.eval(script.source, len(keys), *keys, *arguments)


async def evaluate_async(client: AsyncRedis, name: str, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
    """The script's reply."""
    script = scripts.load(name)
    try:
        return await cast(Any, client.evalsha(script.digest, len(keys), *keys, *arguments))
    except NoScriptError:
        return await cast(Any, client.eval(script.source, len(keys), *keys, *arguments))
