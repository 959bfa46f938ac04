"""The models this gateway can send calls to, read from what workers announce, twice a second."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby

import structlog

from gateway.tokenization import PromptTokenizer
from jobqueue.announcements import Announcement, Liveness, Sighting, read_sightings, read_tokenizer, tokenizer_digest
from jobqueue.connection import REPLY_TIMEOUT_S, AsyncRedis, ResponseError, redis_border
from jobqueue.errors import QueueAwayError
from jobqueue.messages import Operation

POLL_S = 0.5
MOST_WARNINGS = 1000  # of different announcements
VANISHED_KEPT_S = 10.0  # two leases of the default length

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One model at the revision that new calls go to."""

    announcement: Announcement
    liveness: Liveness
    tokenizer: PromptTokenizer

    @property
    def id(self) -> str:
        return self.announcement.model_id

    @property
    def serves(self) -> bool:
        """Whether a worker lives, or comes when the queue fills."""
        return self.liveness is Liveness.LIVE or self.announcement.wakeable

    @property
    def admits(self) -> bool:
        """Whether a call may wait for an answer: also while a worker loads its weights."""
        return self.serves or self.liveness is Liveness.LOADING


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """A picture of what is served, and whether Redis could be asked for it."""

    models: Mapping[str, ServedModel] = field(default_factory=dict)
    reachable: bool = False

    def of(self, operation: Operation) -> list[ServedModel]:
        """Models that do this, by id."""
        return [model for _, model in sorted(self.models.items()) if model.announcement.operation is operation]


class Registry:
    """Keeps the catalog up to date while `run` runs."""

    def __init__(self, client: AsyncRedis, *, pinned: Iterable[str]) -> None:
        self._redis = client
        self._pinned = dict(queue.split("@") for queue in pinned)
        self._tokenizers: dict[str, PromptTokenizer] = {}
        self._seen: dict[str, tuple[float, ServedModel]] = {}  # when, in seconds of time.monotonic()
        self._warned: set[str] = set()
        self._unreadable: set[str] = set()  # digests of tokenizers
        self._update = asyncio.Event()
        self.catalog = Catalog()

    async def run(self) -> None:
        """Refresh for ever, through losses of the connection, during which the last picture stays."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        before = self.catalog
        try:
            with redis_border():
                self.catalog = await self._read_catalog()
        except (QueueAwayError, ResponseError) as error:
            if self.catalog.reachable:
                log.warning("redis away", error=str(error))
            self.catalog = Catalog(models=self.catalog.models, reachable=False)
        if self.catalog != before:
            self.notify()

    async def _read_catalog(self) -> Catalog:
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            sightings = await read_sightings(self._redis, report=lambda error: self._warn_once(str(error)))
        chosen = choose_revisions(sightings, self._pinned)
        models = {sighting.announcement.model_id: await self._served(sighting) for sighting in chosen}
        catalog = Catalog(
            models=self._with_vanished({id_: model for id_, model in models.items() if model}), reachable=True
        )
        used = {model.announcement.tokenizer_digest for model in catalog.models.values()}
        self._tokenizers = {digest: kept for digest, kept in self._tokenizers.items() if digest in used}
        return catalog

    def notify(self) -> None:
        """Wake everyone who waits for an update."""
        self._update.set()
        self._update = asyncio.Event()

    def next_update(self) -> asyncio.Event:
        """Set at the next update. Ask for it before looking at the catalog, or an update in between is missed."""
        return self._update

    def _with_vanished(self, models: Mapping[str, ServedModel]) -> Mapping[str, ServedModel]:
        """A Redis that lost its data forgets the models until workers announce them again: not found would be wrong."""
        now = time.monotonic()
        self._seen |= {id_: (now, model) for id_, model in models.items()}
        self._seen = {id_: entry for id_, entry in self._seen.items() if now - entry[0] < VANISHED_KEPT_S}
        vanished = {id_: replace(model, liveness=Liveness.ABSENT) for id_, (_, model) in self._seen.items()}
        return vanished | dict(models)

    def _warn_once(self, problem: str) -> None:
        if problem not in self._warned and len(self._warned) < MOST_WARNINGS:
            self._warned.add(problem)
            log.warning("announcement left out", problem=problem)

    async def _served(self, sighting: Sighting) -> ServedModel | None:
        announcement = sighting.announcement
        tokenizer = await self._tokenizer(announcement.tokenizer_digest)
        if tokenizer is None:
            problem = f"{announcement.queue}: tokenizer {announcement.tokenizer_digest} is missing, broken or too new"
            self._warn_once(problem)
            return None
        return ServedModel(announcement=announcement, liveness=sighting.liveness, tokenizer=tokenizer)

    async def _tokenizer(self, digest: str) -> PromptTokenizer | None:
        if digest not in self._tokenizers and digest not in self._unreadable:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                tokenizer_json = await read_tokenizer(self._redis, digest)
            if tokenizer_json is None or tokenizer_digest(tokenizer_json) != digest:
                return None
            try:
                self._tokenizers[digest] = await asyncio.to_thread(PromptTokenizer, tokenizer_json)
            except Exception as error:  # noqa: BLE001 - the library raises what it likes; other models are served on
                self._unreadable.add(digest)
                log.warning("tokenizer cannot be read", digest=digest, error=str(error)[:200])
        return self._tokenizers.get(digest)


def choose_revisions(sightings: Iterable[Sighting], pinned: Mapping[str, str]) -> list[Sighting]:
    """One revision per model: the pinned one, else the newest of those with live workers, with loading ones, of all."""

    def model_id(sighting: Sighting) -> str:
        return sighting.announcement.model_id

    candidates = [
        sighting
        for sighting in sightings
        if pinned.get(model_id(sighting), sighting.announcement.revision) == sighting.announcement.revision
    ]
    return [
        max(group, key=lambda sighting: (sighting.liveness, sighting.first_announced_ms))
        for _, group in groupby(sorted(candidates, key=model_id), key=model_id)
    ]
