"""The worker's end of a queue: take jobs up to a budget, answer them, give back what was not run.

Blocking, and safe to call from several threads. Every call raises QueueAwayError while Redis cannot be reached, and
may then be repeated: a job taken twice is answered once, since only the one who deletes the entry ends it.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import redis

from jobqueue import keys
from jobqueue.away import is_elsewhere
from jobqueue.connection import SyncRedis, forget_connections, redis_border
from jobqueue.errors import QueueAwayError
from jobqueue.evaluate import evaluate
from jobqueue.keys import GROUP, QueueKeys
from jobqueue.lanes import Lane
from jobqueue.messages import Answer, Failure, FailureReason, encode_answer

MAX_DELIVERIES = 3
LOW_LANE_FIRST_EVERY = 4  # strict priority starved the bulk lane
BLOCK_MS = 500

_POISON_ANSWER = encode_answer(
    Failure(
        reason=FailureReason.POISON_INPUT,
        message="every worker that ran the job has died, and it was set aside",
    )
)

# How servers say it: to most commands, to a read that was blocked meanwhile (6.2), to XINFO.
_GROUP_IS_GONE = ("NOGROUP", "UNBLOCKED", "no such key")

_SUSPECTS_WAIT, _PAUSED = 1, 2  # why take.lua gives no more

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenJob:
    """A job that this worker holds. Times: `waited_us` in the queue; `expires_at` in seconds of time.monotonic().

    `trace` is the traceparent of who sent it, empty where nobody traces it.
    """

    lane: Lane
    entry_id: bytes
    deliveries: int
    tokens: int
    cost: int
    job_id: bytes
    gateway: bytes
    tenant: str
    request_id: str
    payload: bytes
    must_run_alone: bool
    waited_us: int
    expires_at: float
    trace: str = ""

    @property
    def is_suspect(self) -> bool:
        """Whether it must run alone: it was running when a worker died, or an operator wants to see what it does."""
        return self.must_run_alone or self.deliveries > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """What a take brought. `suspects_wait`: there is work only for a worker that holds nothing else.

    `is_paused`: an operator has paused the queue.
    """

    jobs: tuple[TakenJob, ...]
    suspects_wait: bool
    is_paused: bool = False


class Consumer:
    """One worker's view of its queue, under a name that no other worker has."""

    def __init__(
        self, client: SyncRedis, queue: str, name: str, *, lease_ms: int, max_jobs: int, keep_payloads: bool = True
    ) -> None:
        """`keep_payloads`: dead letters hold the job's token ids, which are text, and not only what is known of it."""
        self._redis = client
        self._keys = QueueKeys(queue)
        self._name = name
        self._lease_ms = lease_ms
        self.max_jobs = max_jobs
        self._keep_payloads = keep_payloads
        self._takes = itertools.count(1)
        self._first = Lane.INTERACTIVE
        self._take_was_cut_off = False

    def join(self) -> None:
        """Make sure that the consumer group exists, from the first entry on."""
        for lane in Lane:
            self._guarded(partial(self._create_group, self._keys.lane(lane.key)))

    def take(self, *, budget: int, num_held: int) -> Take:
        """Jobs up to `budget` cost, at least one if any waits; an empty take after half a second of silence.

        `num_held` is how many batches the worker holds already: a suspect comes to an idle worker only. After a take
        that raised, what it may have brought is given back by the next one of an idle worker.
        """
        if self._take_was_cut_off and num_held:
            return Take(jobs=(), suspects_wait=True)  # once it holds nothing, it gives back all that it has in Redis
        self._first = Lane.BULK if next(self._takes) % LOW_LANE_FIRST_EVERY == 0 else Lane.INTERACTIVE
        return self._uncut(lambda: self._take_or_wait(budget=budget, num_held=num_held))

    def take_more(self, *, budget: int, num_taken: int, num_held: int) -> Take:
        """More jobs for the batch of the last take, `num_taken` so far: what fits in `budget` and waits already.

        None after a take that raised, for only `take` gives back what that one may have brought.
        """
        if self._take_was_cut_off:
            return Take(jobs=(), suspects_wait=False)
        return self._uncut(lambda: self._take(budget=budget, num_held=num_held, num_taken=num_taken))

    def confirm(self, jobs: Sequence[TakenJob]) -> list[TakenJob]:
        """Those of `jobs` that are still this worker's to run: not expired, cancelled or given to another since."""
        references = itertools.chain.from_iterable((job.lane.key, job.entry_id) for job in jobs)
        reply = self._run("confirm", [self._name, *references])
        mine = [job for job, is_mine in zip(jobs, reply, strict=True) if is_mine]
        now = time.monotonic()
        self._end((job, b"") for job in mine if job.expires_at <= now)  # its gateway may be gone, and never do so
        return [job for job in mine if job.expires_at > now]

    def finish(self, answers: Iterable[tuple[TakenJob, Answer]]) -> int:
        """Send the answers, one message a gateway, and end their jobs in the same step; how many were ended here."""
        return self._end((job, encode_answer(answer)) for job, answer in answers)

    def renew(self, *, loading: bool, tokens_per_s: int = 0) -> None:
        """Say that this worker lives: that it takes jobs, or that it will once its weights are loaded.

        `tokens_per_s` is how many it ends when it has enough to do, 0 while that is unknown: admission follows it.
        """
        self._run("renew", [self._name, self._lease_ms, int(loading), tokens_per_s])

    def reap(self) -> int:
        """Hand the jobs of dead workers to the living; how many dead consumers were removed."""
        return cast(int, self._run("reap", []))

    def leave(self) -> int:
        """Give back what was taken and not answered, deliveries uncounted, and be forgotten; how many jobs."""
        return cast(int, self._run("leave", [self._name]))

    def _has_group(self, stream: str) -> bool:
        try:
            groups = self._redis.xinfo_groups(stream)
        except redis.ResponseError as error:
            if "no such key" not in str(error):
                raise
            return False
        return any(group["name"] == GROUP.encode() for group in groups)

    def _uncut(self, take: Callable[[], Take]) -> Take:
        self._take_was_cut_off = True
        taken = take()
        self._take_was_cut_off = False
        return taken

    def _take_or_wait(self, *, budget: int, num_held: int) -> Take:
        taken = self._take(budget=budget, num_held=num_held)
        if taken.jobs or taken.suspects_wait:
            return taken
        if taken.is_paused:
            time.sleep(BLOCK_MS / 1000)
            return taken
        arrived = self._wait()
        if any(b"alone" in fields for *_, fields in arrived) and num_held + len(arrived) > 1:
            self._run("set_aside", [part for lane, entry_id, *_ in arrived for part in (lane.key, entry_id)])
            return Take(jobs=(), suspects_wait=True)
        if not arrived:
            return taken
        spent = sum(int(fields[b"cost"]) for *_, fields in arrived)
        return self._take(budget=budget - spent, num_held=num_held, before=arrived)

    def _take(self, *, budget: int, num_held: int, num_taken: int = 0, before: "Sequence[_Arrival]" = ()) -> Take:
        arguments = [
            self._name,
            self._lease_ms,
            budget,
            self.max_jobs,
            self._first.key,
            num_held,
            num_taken + len(before),
            self._keys.replies(""),
            _POISON_ANSWER,
            MAX_DELIVERIES,
            keys.DEAD_TTL_S,
            keys.DEAD_MAX_ENTRIES,
            int(self._keep_payloads),
        ]
        now_us, reason, *entries = self._run("take", arguments)
        arrived = [*before, *(_arrival(entry) for entry in entries)]
        return Take(
            jobs=tuple(_taken(arrival, now_us=now_us) for arrival in arrived),
            suspects_wait=reason == _SUSPECTS_WAIT,
            is_paused=reason == _PAUSED,
        )

    def _end(self, answers: Iterable[tuple[TakenJob, bytes]]) -> int:
        """End jobs, each with its encoded answer or, where that is empty, without one; how many were ended."""
        num_ended = 0
        by_gateway = sorted(answers, key=lambda pair: pair[0].gateway)
        for gateway, pairs in itertools.groupby(by_gateway, key=lambda pair: pair[0].gateway):
            arguments: list[Any] = []
            for job, answer in pairs:
                arguments += [job.lane.key, job.entry_id, job.tokens, job.tenant, job.job_id, answer]
            num_ended += sum(self._run("finish", arguments, gateway=gateway.decode()))
        return num_ended

    def _create_group(self, stream: str) -> None:
        """Look first: a full server refuses to create even what is there."""
        if self._has_group(stream):
            return
        try:
            self._redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _wait(self) -> "list[_Arrival]":
        """Block until a job arrives in either lane; at most one job a lane, or none after half a second."""
        streams: Any = {self._keys.lane(lane.key): ">" for lane in Lane}
        replies = cast(
            list[Any],
            self._in_group(lambda: self._redis.xreadgroup(GROUP, self._name, streams, count=1, block=BLOCK_MS)) or [],
        )
        lanes = {self._keys.lane(lane.key).encode(): lane for lane in Lane}
        return [(lanes[name], entry_id, 1, fields) for name, entries in replies for entry_id, fields in entries]

    def _run(self, name: str, arguments: Sequence[Any], *, gateway: str | None = None) -> Any:
        script_keys = self._keys.of_script(gateway)
        return self._in_group(lambda: evaluate(self._redis, name, script_keys, arguments))

    def _in_group(self, call: Callable[[], T]) -> T:
        """The call, once more with new groups where the server has lost its data."""
        try:
            return self._guarded(call)
        except redis.ResponseError as error:
            if not any(word in str(error) for word in _GROUP_IS_GONE):
                raise
        self.join()
        return self._guarded(call)

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            with redis_border():
                return call()
        except QueueAwayError as error:
            if is_elsewhere(error.__cause__):
                forget_connections(self._redis)
            raise


_Arrival = tuple[Lane, bytes, int, dict[bytes, bytes]]  # lane, entry id, deliveries, fields


def _arrival(entry: list[Any]) -> _Arrival:
    lane, entry_id, deliveries, flat = entry
    return Lane.from_key(lane.decode()), entry_id, deliveries, dict(zip(flat[::2], flat[1::2], strict=True))


def _taken(arrival: _Arrival, *, now_us: int) -> TakenJob:
    lane, entry_id, deliveries, fields = arrival
    admitted_ms = int(entry_id.partition(b"-")[0])
    waited_us = max(now_us - admitted_ms * 1000, 0)
    return TakenJob(
        lane=lane,
        entry_id=entry_id,
        deliveries=deliveries,
        tokens=int(fields[b"tokens"]),
        cost=int(fields[b"cost"]),
        job_id=fields[b"job_id"],
        gateway=fields[b"gateway"],
        tenant=fields[b"tenant"].decode(),
        request_id=fields[b"request_id"].decode(),
        payload=fields[b"payload"],
        must_run_alone=b"alone" in fields,
        waited_us=waited_us,
        expires_at=time.monotonic() + int(fields[b"ttl_ms"]) / 1000 - waited_us / 1e6,
        trace=fields.get(b"trace", b"").decode(),
    )
