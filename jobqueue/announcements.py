"""How workers make models known: one announcement per queue in a hash, and the tokenizer's bytes beside it.

A gateway therefore needs no model files and no list of models, and cannot disagree with its workers.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from typing import cast

from jobqueue.connection import (
    AsyncRedis,
    SyncRedis,
    follow_master,
    follow_master_async,
    forget_connections_async,
    is_away,
    is_cluster,
)
from jobqueue.evaluate import evaluate, evaluate_async
from jobqueue.keys import MODELS, TOKENIZER_TTL_S, QueueKeys, check_queue_name, tokenizer_key
from jobqueue.messages import JOB_VERSION, DecodeError, Operation

ANNOUNCEMENT_VERSION = 1
FORGET_AFTER_MS = 24 * 3600 * 1000
LIVENESS_TIMEOUT_S = 1.0  # for one server of a cluster, so that the others' models are seen in time
_FREE_TO_DIFFER = {"dtype", "engine", "wakeable"}  # answers stay the same within dtype tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a worker serves.

    `attention_cost` c gives the cost of a sequence of n tokens in tokens: n + c n^2. `native_dimensions` is 0 for a
    reranker. `wakeable` says that its pool scales from zero, so jobs may wait for a worker that is not there yet.
    """

    model_id: str
    revision: str
    operation: Operation
    native_dimensions: int
    max_input_tokens: int
    default_instruction: str
    tokenizer_digest: str
    attention_cost: float
    wakeable: bool
    dtype: str
    engine: str
    job_version: int = JOB_VERSION

    def __post_init__(self) -> None:
        """Raises ValueError for a queue name that is not safe in a key, or a field of another type."""
        check_queue_name(self.queue)
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, field.type if isinstance(field.type, type) else object):
                raise ValueError(f"{field.name} is {value!r}")  # noqa: TRY004 - a value from the wire, not a bug

    @property
    def queue(self) -> str:
        return f"{self.model_id}@{self.revision}"


class Liveness(IntEnum):
    """Whether a queue has workers."""

    ABSENT = 0
    LOADING = 1
    LIVE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """An announcement as a gateway finds it. Times are in ms of the one server that keeps the announcements."""

    announcement: Announcement
    first_announced_ms: int
    liveness: Liveness


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    announcement: Announcement
    first_announced_ms: int


def tokenizer_digest(tokenizer_json: bytes) -> str:
    return hashlib.blake2b(tokenizer_json, digest_size=16).hexdigest()


def announce(redis: SyncRedis, announcement: Announcement, tokenizer_json: bytes) -> None:
    """Make a model known, or say again that it is served. The first time it was announced is kept."""
    follow_master(redis)
    key = tokenizer_key(announcement.tokenizer_digest)
    if not redis.expire(key, TOKENIZER_TTL_S):
        redis.set(key, tokenizer_json, ex=TOKENIZER_TTL_S)
    evaluate(redis, "announce", [MODELS], [announcement.queue, _encode(announcement)])


def find_disagreement(redis: SyncRedis, announcement: Announcement) -> str | None:
    """What a live worker of the same queue announces differently, for people; None where they agree.

    Workers of one queue must, or a call's answer would depend on who takes it.
    """
    live = Liveness(evaluate(redis, "liveness", QueueKeys(announcement.queue).of_script()))
    before = _read_record(redis, announcement.queue)
    if before is None or live is not Liveness.LIVE:
        return None
    mine, theirs = asdict(announcement), asdict(before.announcement)
    names = [name for name in mine if mine[name] != theirs[name] and name not in _FREE_TO_DIFFER]
    return "; ".join(f"{name} {mine[name]!r}, a live worker has {theirs[name]!r}" for name in names) or None


def _read_record(redis: SyncRedis, queue: str) -> "_Record | None":
    """What was announced for a queue before; None where nothing was that this process can read."""
    value = cast(bytes | None, redis.hget(MODELS, queue))
    try:
        return _decode(value) if value else None
    except DecodeError:
        return None


async def read_sightings(redis: AsyncRedis, *, report: Callable[[DecodeError], None]) -> list[Sighting]:
    """Every announced model that this process can talk to, and whether it has workers.

    What nobody announced for 24 h is removed from the hash on the way. An announcement that cannot be read is reported
    and left out: one foreign field must not take the other models down. Nor must one server of a cluster: the models
    whose queues are on one that is away have no workers meanwhile.
    """
    await follow_master_async(redis)
    found = await evaluate_async(redis, "models", [MODELS], [FORGET_AFTER_MS])
    records = _readable(dict(zip(found[::2], found[1::2], strict=True)), report)
    liveness = await asyncio.gather(*(_read_liveness(redis, record.announcement.queue) for record in records))
    if None in liveness:
        await forget_connections_async(redis)
    return [
        Sighting(
            announcement=record.announcement,
            first_announced_ms=record.first_announced_ms,
            liveness=Liveness.ABSENT if live is None else live,
        )
        for record, live in zip(records, liveness, strict=True)
    ]


async def read_tokenizer(redis: AsyncRedis, digest: str) -> bytes | None:
    """The bytes of an announced tokenizer.json, or None where they are gone."""
    return cast(bytes | None, await redis.get(tokenizer_key(digest)))


async def _read_liveness(redis: AsyncRedis, queue: str) -> Liveness | None:
    """None where the queue's own server is away, of several."""
    try:
        async with asyncio.timeout(LIVENESS_TIMEOUT_S if is_cluster(redis) else None):
            return Liveness(await evaluate_async(redis, "liveness", QueueKeys(queue).of_script()))
    except Exception as error:
        if is_cluster(redis) and is_away(error):
            return None
        raise


def _encode(announcement: Announcement) -> str:
    return json.dumps({"version": ANNOUNCEMENT_VERSION} | asdict(announcement))


def _readable(models: Mapping[bytes, bytes], report: Callable[[DecodeError], None]) -> list[_Record]:
    records: list[_Record] = []
    for queue, value in models.items():
        try:
            record = _decode(value, queue=queue.decode(errors="replace"))
        except DecodeError as error:
            report(error)
        else:
            records += [record] if record else []
    return records


def _decode(value: bytes, *, queue: str | None = None) -> _Record | None:
    """None for an announcement, or one of jobs, in a version that this process does not read."""
    try:
        first_ms, _, announced = value.split(b" ", 2)
        found = json.loads(announced)
        if found.pop("version") != ANNOUNCEMENT_VERSION or found["job_version"] != JOB_VERSION:
            return None
        announcement = Announcement(operation=Operation(found.pop("operation")), **found)
        record = _Record(announcement=announcement, first_announced_ms=int(first_ms))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DecodeError(f"not a model announcement: {error}") from error
    if queue not in (None, announcement.queue):
        raise DecodeError(f"not a model announcement: {announcement.queue} under {queue}")
    return record
