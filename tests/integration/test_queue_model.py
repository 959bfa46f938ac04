"""Any order of the queue's steps keeps its promises, against a model in Python."""

from dataclasses import dataclass
from itertools import islice

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from jobqueue.consumer import MAX_DELIVERIES
from jobqueue.lanes import Lane
from tests.support.queues import Depth, OwnQueue, finish_all, own_queue

MAX_TOKENS, MAX_JOBS = 60, 8
ORPHANS = "orphans"
NAMES = ("a", "b", "c")
TENANTS = ("", "x", "y")
SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=3)
UNMEASURED_RETRY_MS = 1000


@dataclass(slots=True)
class Entry:
    """A job that has not ended: who holds it (nobody: it waits), and how often it was given out."""

    entry_id: bytes
    lane: Lane
    tokens: int
    tenant: str
    holder: str = ""
    deliveries: int = 0

    @property
    def is_suspect(self) -> bool:
        return self.holder == ORPHANS and self.deliveries > 0


class QueueMachine(RuleBasedStateMachine):
    """The real scripts beside a list of entries."""

    taken = Bundle("taken")  # also of jobs that ended or changed hands since: a zombie's

    def __init__(self, queue: OwnQueue) -> None:
        super().__init__()
        self.queue = queue
        self.consumers = {name: queue.consumer(name, max_jobs=3) for name in NAMES}
        self.entries: dict[tuple[Lane, bytes], Entry] = {}
        self.num_answers = 0
        self.num_dead = 0
        self.is_paused = False

    @rule(lane=st.sampled_from(Lane), sizes=SIZES, tenant=st.sampled_from(TENANTS))
    def admit(self, lane, sizes, tenant):
        options = {"lane": lane, "tenant": tenant, "max_tokens": MAX_TOKENS, "max_jobs": MAX_JOBS}
        admitted, *rest = self.queue.try_admit(*sizes, **options)
        assert admitted == self.fits(lane, sizes, tenant)
        if admitted:
            self.note(rest, lane, sizes, tenant)
        else:
            depth = self.depth()
            assert rest == [depth.tokens, depth.jobs, UNMEASURED_RETRY_MS]

    @rule(lane=st.sampled_from(Lane), sizes=SIZES, tenant=st.sampled_from(TENANTS))
    def admit_again(self, lane, sizes, tenant):
        admitted, *rest = self.queue.try_admit(*sizes, lane=lane, tenant=tenant, max_tokens=0, max_jobs=0, again=True)
        assert admitted
        self.note(rest, lane, sizes, tenant)

    @rule(pause=st.booleans())
    def pause(self, pause):
        self.is_paused = pause
        if pause:
            self.queue.client.hset(self.queue.keys.control, "paused", 1)
        else:
            self.queue.client.hdel(self.queue.keys.control, "paused")

    @rule(gone=st.lists(st.sampled_from(Lane), max_size=2))
    def ask(self, gone):
        asked = [*self.entries, *((lane, b"1-1") for lane in gone)]
        assert self.queue.known(asked) == [1] * len(self.entries) + [0] * len(gone)

    @rule(target=taken, name=st.sampled_from(NAMES), budget=st.integers(1, 40), num_held=st.integers(0, 1))
    def take(self, name, budget, num_held):
        take = self.consumers[name]._take(budget=budget, num_held=num_held, before=())
        if not num_held and not self.is_paused:
            self.give_back(name)  # an idle worker holds nothing, whatever it is said to
        self.bury()
        if self.is_paused:
            assert take.is_paused
            assert not take.jobs
            return ()
        jobs = [(self.entries[job.lane, job.entry_id], job) for job in take.jobs]
        self.check_batch(jobs, budget)
        if take.suspects_wait or any(job.is_suspect for job in take.jobs):
            assert num_held == 0 or not any(job.is_suspect for job in take.jobs)
        elif not jobs:
            assert not self.available()
        for entry, job in jobs:
            entry.holder, entry.deliveries = name, entry.deliveries + 1
            assert job.deliveries == entry.deliveries
        return take.jobs

    @rule(jobs=taken, name=st.sampled_from(NAMES))
    def finish(self, jobs, name):
        alive = [job for job in jobs if self.entries.pop((job.lane, job.entry_id), None)]
        assert finish_all(self.consumers[name], jobs) == len(alive)
        self.num_answers += len(alive)

    @rule(jobs=consumes(taken), name=st.sampled_from(NAMES))
    def confirm(self, jobs, name):
        assert self.consumers[name].confirm(jobs) == [job for job in jobs if self.holds(name, job)]

    @rule(place=st.integers(0, MAX_JOBS - 1))
    def cancel(self, place):
        key = next(islice(self.entries, place, None), None)
        if key is not None:
            entry = self.entries.pop(key)
            assert self.queue.cancel(entry.entry_id, entry.tokens, entry.lane, entry.tenant) == 1
            assert self.queue.cancel(entry.entry_id, entry.tokens, entry.lane, entry.tenant) == 0

    @rule(name=st.sampled_from(NAMES))
    def die(self, name):
        self.queue.client.zadd(self.queue.keys.workers, {name: 0})
        next(consumer for other, consumer in self.consumers.items() if other != name).reap()
        for entry in self.held_by(name):
            entry.holder = ORPHANS

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name):
        assert self.consumers[name].leave() == len(self.held_by(name))
        self.give_back(name)

    @invariant()
    def the_depth_is_the_sum_over_the_entries(self):
        assert self.queue.check_depth() == self.depth()

    @invariant()
    def every_entry_is_with_its_holder(self):
        held = {key: (entry.holder, entry.deliveries) for key, entry in self.entries.items() if entry.holder}
        pending = self.queue.pending()
        assert {key: value for key, value in pending.items() if key in self.entries} == held

    @invariant()
    def every_job_that_ended_was_answered_once_or_cancelled(self):
        answers = self.queue.answers()
        assert len(answers) == len({job_id for job_id, _ in answers}) == self.num_answers + self.num_dead
        assert len(self.queue.dead_letters()) == self.num_dead

    def give_back(self, name):
        for entry in self.held_by(name):
            entry.holder, entry.deliveries = ORPHANS, entry.deliveries - 1

    def bury(self):
        """Drop from the model what this take has set aside; only what failed three times may be."""
        letters = self.queue.dead_letters()[self.num_dead :]
        for letter in letters:
            entry = self.entries.pop((Lane.from_key(letter[b"lane"].decode()), letter[b"entry_id"]))
            assert (entry.holder, entry.deliveries) == (ORPHANS, MAX_DELIVERIES)
        self.num_dead += len(letters)

    def check_batch(self, jobs, budget):
        assert len(jobs) <= 3
        assert all(entry.holder in ("", ORPHANS) for entry, _ in jobs)
        assert len(jobs) <= 1 or sum(entry.tokens for entry, _ in jobs) <= budget
        assert len(jobs) <= 1 or not any(entry.is_suspect for entry, _ in jobs)
        for lane in Lane:
            fresh = [entry.entry_id for entry, _ in jobs if entry.lane is lane and not entry.holder]
            assert fresh == [entry.entry_id for entry in self.waiting(lane)][: len(fresh)]
        if any(not entry.holder for entry, _ in jobs):
            assert not self.left_behind(jobs)  # orphans come first

    def left_behind(self, jobs):
        chosen = [entry for entry, _ in jobs]
        return [entry for entry in self.held_by(ORPHANS) if entry not in chosen]

    def available(self):
        return [entry for entry in self.entries.values() if entry.holder in ("", ORPHANS)]

    def waiting(self, lane):
        return [entry for entry in self.entries.values() if entry.lane is lane and not entry.holder]

    def holds(self, name, job):
        entry = self.entries.get((job.lane, job.entry_id))
        return entry is not None and entry.holder == name

    def held_by(self, name):
        return [entry for entry in self.entries.values() if entry.holder == name]

    def fits(self, lane, sizes, tenant):
        depth = self.depth()
        ahead = self.tokens_of(lane)
        held = self.tokens_of(lane, tenant) if tenant else 0
        has_room = depth.tokens + sum(sizes) <= MAX_TOKENS and depth.jobs + len(sizes) <= MAX_JOBS
        return has_room and (not held or held + sum(sizes) <= MAX_TOKENS - ahead)

    def note(self, entry_ids, lane, sizes, tenant):
        for entry_id, size in zip(entry_ids, sizes, strict=True):
            self.entries[lane, entry_id] = Entry(entry_id=entry_id, lane=lane, tokens=size, tenant=tenant)

    def tokens_of(self, lane, *tenants):
        chosen = [entry for entry in self.entries.values() if entry.lane is lane]
        return sum(entry.tokens for entry in chosen if not tenants or entry.tenant in tenants)

    def depth(self):
        return Depth(tokens=sum(entry.tokens for entry in self.entries.values()), jobs=len(self.entries))


def test_any_order_of_steps_keeps_the_promises(any_redis_url):
    with own_queue(any_redis_url) as first:
        run_state_machine_as_test(
            lambda: QueueMachine(OwnQueue(first.client)),
            settings=settings(
                max_examples=40,
                stateful_step_count=40,
                deadline=None,
                database=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            ),
        )
