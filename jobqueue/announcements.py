"""How workers make models known: one announcement per queue in a hash, and the tokenizer's bytes beside it.

A gateway therefore needs no model files and no list of models, and cannot disagree with its workers.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from typing import Any, cast

from jobqueue.connection import AsyncRedis, SyncRedis
from jobqueue.keys import MODELS, TOKENIZER_TTL_S, QueueKeys, check_queue_name, tokenizer_key
from jobqueue.messages import JOB_VERSION, DecodeError, Operation

ANNOUNCEMENT_VERSION = 1
FORGET_AFTER_MS = 24 * 3600 * 1000
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
    """An announcement as a gateway finds it. Times are the server's, in ms."""

    announcement: Announcement
    first_announced_ms: int
    liveness: Liveness


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    announcement: Announcement
    first_announced_ms: int
    announced_ms: int


def tokenizer_digest(tokenizer_json: bytes) -> str:
    return hashlib.blake2b(tokenizer_json, digest_size=16).hexdigest()


def announce(redis: SyncRedis, announcement: Announcement, tokenizer_json: bytes) -> None:
    """Make a model known, or say again that it is served. The first time it was announced is kept."""
    key = tokenizer_key(announcement.tokenizer_digest)
    if not redis.expire(key, TOKENIZER_TTL_S):
        redis.set(key, tokenizer_json, ex=TOKENIZER_TTL_S)
    now_ms = _milliseconds(redis.time())
    before = _read_record(redis, announcement.queue)
    first_ms = before.first_announced_ms if before else now_ms
    redis.hset(MODELS, announcement.queue, _encode(announcement, first_ms=first_ms, now_ms=now_ms))


def find_disagreement(redis: SyncRedis, announcement: Announcement) -> str | None:
    """What a live worker of the same queue announces differently, for people; None where they agree.

    Workers of one queue must, or a call's answer would depend on who takes it.
    """
    workers_key = QueueKeys(announcement.queue).workers
    now_ms = _milliseconds(redis.time())
    before = _read_record(redis, announcement.queue)
    if before is None or not redis.zcount(workers_key, f"({now_ms}", "+inf"):
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
    and left out: one foreign field must not take the other models down.
    """
    pipeline: Any = redis.pipeline(transaction=False)
    server_time, models = await pipeline.time().hgetall(MODELS).execute()
    now_ms = _milliseconds(server_time)
    records = _readable(models, report)
    stale = [record for record in records if record.announced_ms < now_ms - FORGET_AFTER_MS]
    if stale:
        await cast(Any, redis.hdel(MODELS, *[record.announcement.queue for record in stale]))
    fresh = [record for record in records if record not in stale]
    liveness = await _read_liveness(redis, [record.announcement.queue for record in fresh], now_ms)
    return [
        Sighting(announcement=record.announcement, first_announced_ms=record.first_announced_ms, liveness=live)
        for record, live in zip(fresh, liveness, strict=True)
    ]


async def read_tokenizer(redis: AsyncRedis, digest: str) -> bytes | None:
    """The bytes of an announced tokenizer.json, or None where they are gone."""
    return cast(bytes | None, await redis.get(tokenizer_key(digest)))


async def _read_liveness(redis: AsyncRedis, queues: Iterable[str], now_ms: int) -> list[Liveness]:
    pipeline = redis.pipeline(transaction=False)
    for queue in queues:
        pipeline.zcount(QueueKeys(queue).workers, f"({now_ms}", "+inf")
        pipeline.zcount(QueueKeys(queue).loading, f"({now_ms}", "+inf")
    counts = await pipeline.execute()
    return [_liveness(live, loading) for live, loading in zip(counts[::2], counts[1::2], strict=True)]


def _liveness(num_live: int, num_loading: int) -> Liveness:
    if num_live:
        return Liveness.LIVE
    return Liveness.LOADING if num_loading else Liveness.ABSENT


def _milliseconds(server_time: tuple[int, int]) -> int:
    seconds, microseconds = server_time
    return seconds * 1000 + microseconds // 1000


def _encode(announcement: Announcement, *, first_ms: int, now_ms: int) -> str:
    stamps = {"version": ANNOUNCEMENT_VERSION, "first_announced_ms": first_ms, "announced_ms": now_ms}
    return json.dumps(stamps | asdict(announcement))


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
        found = json.loads(value)
        if found.pop("version") != ANNOUNCEMENT_VERSION or found["job_version"] != JOB_VERSION:
            return None
        stamps = {name: int(found.pop(name)) for name in ("first_announced_ms", "announced_ms")}
        announcement = Announcement(operation=Operation(found.pop("operation")), **found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DecodeError(f"not a model announcement: {error}") from error
    if queue not in (None, announcement.queue):
        raise DecodeError(f"not a model announcement: {announcement.queue} under {queue}")
    return _Record(announcement=announcement, **stamps)
