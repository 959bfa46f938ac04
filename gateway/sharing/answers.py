"""Answers to calls: what is kept, what others are finding out already, and what is computed for the rest.

Every sequence of a call is for itself:

1. What another call of this process and lane has asked for is waited for.
2. The rest is looked up in the cache, in one round trip.
3. What is not there is computed, as a smaller job, and kept.
4. Where a call that others waited for has failed, each of them asks for itself; where its client has left, one of
   them asks for all.

A call asks for its own sequences before it waits for others, so that no two wait for each other.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from gateway.identity.callers import EVERY_MODEL
from gateway.sharing.in_flight import Answering, InFlight, Tell
from gateway.sharing.questions import Answered, Compute, Question
from gateway.sharing.sequences import sequence_keys
from jobqueue.announcements import Announcement
from jobqueue.cache import AnswerCache, CacheLimits
from jobqueue.connection import AsyncRedis
from jobqueue.lanes import Lane
from jobqueue.messages import Job

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """Whose answers are kept and shared: those of `models`, and between tenants or not."""

    models: frozenset[str]
    across_tenants: bool
    limits: CacheLimits

    def covers(self, model_id: str) -> bool:
        return model_id in self.models or EVERY_MODEL in self.models


class Answers:
    """One gateway process's."""

    def __init__(self, client: AsyncRedis, policy: CachePolicy) -> None:
        self._redis = client
        self._policy = policy
        self._caches: dict[str, AnswerCache] = {}
        self._in_flight = InFlight()

    async def answer(
        self, call: Job, announcement: Announcement, *, lane: Lane, tenant: str, compute: Compute
    ) -> Answered:
        """A tenant's call, by whatever `compute` need not do. Raises as `compute` does.

        The result's tokens and times are those of what was computed for this call, 0 where nothing was.
        """
        if not self._policy.covers(announcement.model_id):
            return Answered(result=await compute(call))
        owner = None if self._policy.across_tenants else tenant
        question = Question(call, sequence_keys(call, announcement, owner=owner), compute)
        cache = self._cache(announcement.queue)
        while missing := question.missing:
            asked = {} if question.was_let_down else self._in_flight.among(lane, missing)
            if free := [key for key in missing if key not in asked]:
                with self._in_flight.asked(lane, free) as tell:
                    await _ask(question, free, cache, tell)
            if asked:
                await _wait(question, asked)
        return question.answered()

    def _cache(self, queue: str) -> AnswerCache:
        cache = self._caches.get(queue)
        if cache is None:
            cache = self._caches[queue] = AnswerCache(self._redis, queue, self._policy.limits, report=_report)
        return cache


async def _ask(question: Question, keys: Sequence[bytes], cache: AnswerCache, tell: Tell) -> None:
    """Find out about these sequences, and tell."""
    kept = question.add_kept(await cache.read(keys))
    tell(kept)
    if unkept := [key for key in keys if key not in kept]:
        computed = await question.compute(unkept)
        tell(computed)
        cache.keep(computed)


async def _wait(question: Question, asked: Mapping[bytes, Answering]) -> None:
    """Learn what others have found out."""
    await asyncio.wait(asked.values())
    for key, answering in asked.items():
        if answering.cancelled():
            continue
        answer = answering.result()
        if answer is None:
            question.was_let_down = True
        else:
            question.add_shared(key, answer)


def _report(error: Exception) -> None:
    log.warning("cache cannot be read", error=str(error))
