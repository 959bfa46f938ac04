"""Parts of the queue's tests: a queue of its own for each test, and a worker that is a real Consumer in a thread."""

import asyncio
import contextlib
import os
import struct
import threading
import time
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Self

import pytest
import redis

from jobqueue import scripts
from jobqueue.connection import connect, connect_async
from jobqueue.consumer import Consumer, TakenJob
from jobqueue.keys import GROUP, REPLIES_TTL_S, QueueKeys
from jobqueue.lanes import Lane
from jobqueue.limits import QueueLimits
from jobqueue.messages import Answer, Job, Operation, Result, decode_answer, decode_job, encode_job
from jobqueue.pending import Submission
from jobqueue.producer import Producer

NO_LIMIT = 10**6
MAX_WAIT_MS = 10_000
BLOCK_MS = 20  # an idle take lasts this long instead of half a second
SHORT_TTL_MS = 1000  # a busy machine needs so long for what has to be done before a job expires
GIVE_UP_S = 60.0

_token_ids = count(1)


def job_of(*lengths: int, prefix: int = 0) -> Job:
    """A job whose tails have these lengths; no two jobs have the same token ids."""
    return Job(
        operation=Operation.EMBED,
        prefix=_next_ids(prefix),
        tails=tuple(_next_ids(length) for length in lengths),
    )


def _next_ids(num: int) -> array:
    return array("i", [next(_token_ids) for _ in range(num)])


def echo(job: Job) -> Result:
    """An answer that can be checked by value: a row per sequence, the sum of its ids as int64."""
    sums = [sum(job.prefix) + sum(tail) for tail in job.tails]
    return Result(
        rows=struct.pack(f"<{len(sums)}q", *sums),
        num_rows=len(sums),
        computed_tokens=sum(job.lengths),
        queue_us=1,
        compute_us=2,
    )


def submission(
    queue: str, call: Job, *, lane: Lane = Lane.INTERACTIVE, deadline: float, request_id="req", wakeable=True, tenant=""
) -> Submission:
    return Submission(
        queue=queue,
        call=call,
        lane=lane,
        deadline=deadline,
        request_id=request_id,
        attention_cost=0.0,
        wakeable=wakeable,
        tenant=tenant,
    )


@contextlib.asynccontextmanager
async def producer_at(
    url: str,
    *,
    max_tokens=NO_LIMIT,
    max_jobs=NO_LIMIT,
    max_job_tokens=NO_LIMIT,
    bulk_share=0.5,
    max_wait_ms=MAX_WAIT_MS,
) -> Iterator[Producer]:
    """A gateway's producer with a connection of its own."""
    limits = QueueLimits(
        max_tokens=max_tokens,
        max_jobs=max_jobs,
        bulk_share=bulk_share,
        max_job_tokens=max_job_tokens,
        max_wait_ms=max_wait_ms,
    )
    async with connect_async(url) as client, Producer(client, limits) as producer:
        yield producer


def wait_for(condition: Callable[[], object]) -> None:
    """Come back once `condition` holds."""
    give_up = time.monotonic() + GIVE_UP_S
    while not condition():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.002)


async def until(condition: Callable[[], object]) -> None:
    """Come back once `condition` holds."""
    async with asyncio.timeout(GIVE_UP_S):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in Redis
            await asyncio.sleep(0.002)


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    tokens: int
    jobs: int


class OwnQueue:
    """A queue that no other test uses, and everything that is in it."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.name = f"m-{uuid.uuid4()}@1"
        self.keys = QueueKeys(self.name)
        self.lanes = {lane: self.keys.lane(lane.key) for lane in Lane}

    def consumer(self, name: str, *, lease_ms: int = 60_000, max_jobs: int = 100) -> Consumer:
        consumer = Consumer(self.client, self.name, name, lease_ms=lease_ms, max_jobs=max_jobs)
        consumer.join()
        return consumer

    def dead_consumer(self, name: str) -> Consumer:
        """One whose lease is over as soon as it is given."""
        return self.consumer(name, lease_ms=0)

    def end_lease(self, name: str) -> None:
        """As if its time had come."""
        assert self.client.zadd(self.keys.workers, {name: 0}, xx=True, ch=True) == 1

    def admit(self, *sizes: int, **options) -> list[bytes]:
        """A call of one job per size, in tokens; the entry ids."""
        admitted, *entry_ids = self.try_admit(*sizes, **options)
        assert admitted
        return entry_ids

    def try_admit(
        self,
        *sizes: int,
        lane: Lane = Lane.INTERACTIVE,
        ttl_ms: int = 60_000,
        gateway: str = "gw",
        request_id: str = "req",
        max_tokens: int = NO_LIMIT,
        max_jobs: int = NO_LIMIT,
        wakeable: bool = True,
        again: bool = False,
        is_retry: bool = False,
        tenant: str = "",
        trace: str = "",
        unmeasured_tokens: int = NO_LIMIT,
    ) -> list:
        """The admit script's reply."""
        most = [max_tokens, max_jobs, max_tokens, max_jobs, MAX_WAIT_MS, unmeasured_tokens]
        call = [lane.key, ttl_ms, request_id, tenant, int(wakeable), int(again), int(is_retry), trace, len(sizes)]
        for size in sizes:
            call += [size, size, os.urandom(16), encode_job(job_of(size))]
        (reply,) = self._run("admit", gateway, [gateway, REPLIES_TTL_S, *most, *call])
        self.check_depth()
        return reply

    def known(self, entries: Sequence[tuple[Lane, bytes]], gateway: str = "gw") -> list[int]:
        """Which of these jobs the queue has, as a gateway asks."""
        parts = [part for lane, entry_id in entries for part in (lane.key, entry_id)]
        return self._run("known", gateway, [REPLIES_TTL_S, *parts])

    def cancel(self, entry_id: bytes, tokens: int, lane: Lane = Lane.INTERACTIVE, tenant: str = "") -> int:
        """End a job without an answer, as a gateway does; how many were ended."""
        (num_ended,) = self._run("finish", "gw", [lane.key, entry_id, tokens, tenant, b"", b""])
        return num_ended

    def _run(self, script: str, gateway: str, arguments: Sequence) -> object:
        names = self.keys.of_script(gateway)
        return self.client.eval(scripts.load(script).source, len(names), *names, *arguments)

    def check_depth(self) -> Depth:
        """The invariant of every instant: each lane's depth is the sum over its entries."""
        with self.client.pipeline(transaction=True) as step:
            step.hgetall(self.keys.depth)
            step.hgetall(self.keys.tenants)
            for stream in self.lanes.values():
                step.xrange(stream)
            depth, tenants, *lanes = step.execute()
        assert {name.decode(): int(value) for name, value in tenants.items()} == _held_by_tenants(lanes)
        for lane, entries in zip(Lane, lanes, strict=True):
            tokens = sum(int(fields[b"tokens"]) for _, fields in entries)
            assert int(depth.get(f"{lane.key}_tokens".encode(), 0)) == tokens
            assert int(depth.get(f"{lane.key}_jobs".encode(), 0)) == len(entries)
        return Depth(
            tokens=sum(int(value) for name, value in depth.items() if name.endswith(b"_tokens")),
            jobs=sum(map(len, lanes)),
        )

    def check_idle(self) -> None:
        """Idle means that nothing is in the lanes, pending or counted."""
        assert self.check_depth() == Depth(tokens=0, jobs=0)
        assert self.pending() == {}

    def pending(self) -> dict[tuple[Lane, bytes], tuple[str, int]]:
        """Lane and entry id (two lanes may give the same) -> the consumer that holds it, its deliveries."""
        return {
            (lane, entry["message_id"]): (entry["consumer"].decode(), entry["times_delivered"])
            for lane in self._grouped()
            for entry in self.client.xpending_range(self.lanes[lane], GROUP, "-", "+", NO_LIMIT)
        }

    def answers(self, gateway: str = "gw") -> list[tuple[bytes, Answer]]:
        """Job id and answer, in the order in which the gateway would read them."""
        replies = self.client.xrange(self.keys.replies(gateway))
        return [(job_id, decode_answer(answer)) for _, fields in replies for job_id, answer in fields.items()]

    def dead_letters(self) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in self.client.xrange(self.keys.dead)]

    def group_consumers(self) -> set[str]:
        consumers = [
            found for lane in self._grouped() for found in self.client.xinfo_consumers(self.lanes[lane], GROUP)
        ]
        return {found["name"].decode() for found in consumers}

    def _grouped(self) -> list[Lane]:
        """The lanes that have a consumer group already."""
        return [
            lane
            for lane, stream in self.lanes.items()
            if self.client.exists(stream) and self.client.xinfo_groups(stream)
        ]


def _held_by_tenants(lanes: Sequence) -> Counter[str]:
    """Tokens of each lane's tenants, as its entries say."""
    held = Counter()
    for lane, entries in zip(Lane, lanes, strict=True):
        for _, fields in entries:
            if fields[b"tenant"]:
                held[f"{lane.key}:{fields[b'tenant'].decode()}"] += int(fields[b"tokens"])
    return held


@contextlib.contextmanager
def own_queue(url: str) -> Iterator[OwnQueue]:
    """A queue of its own on the server at `url`; idle takes are short meanwhile."""
    with pytest.MonkeyPatch.context() as patch, connect(url) as client:
        patch.setattr("jobqueue.consumer.BLOCK_MS", BLOCK_MS)
        yield OwnQueue(client)


class WorkerDouble:
    """A real Consumer in a thread, which answers each job with `answer(job)`. Inside the context it works."""

    def __init__(
        self,
        url: str,
        queue: str,
        *,
        answer: Callable[[Job], Answer] = echo,
        budget: int = NO_LIMIT,
        max_jobs: int = 100,
    ) -> None:
        self.ran: list[TakenJob] = []
        self._client = connect(url)
        self._consumer = Consumer(self._client, queue, uuid.uuid4().hex, lease_ms=60_000, max_jobs=max_jobs)
        self._answer = answer
        self._budget = budget
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._consumer.join()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._consumer.leave()
        self._client.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            jobs = self._consumer.take(budget=self._budget, num_held=0).jobs
            self.ran += jobs
            self._consumer.finish([(taken, self._answer(decode_job(taken.payload))) for taken in jobs])


def finish_all(consumer: Consumer, jobs: Sequence[TakenJob]) -> int:
    """Answer the jobs as `echo` does; how many were ended."""
    return consumer.finish([(taken, echo(decode_job(taken.payload))) for taken in jobs])
