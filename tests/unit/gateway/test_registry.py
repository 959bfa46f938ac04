"""Which revision of a model new calls go to."""

import random

import pytest

from gateway.registry import choose_revisions
from jobqueue.announcements import Liveness, Sighting
from jobqueue.messages import Operation
from tests.support.echo import announcement


def sighting(queue: str, first_ms: int, liveness: Liveness = Liveness.LIVE) -> Sighting:
    model_id, revision = queue.split("@")
    found = announcement(model_id, Operation.EMBED, revision=revision)
    return Sighting(announcement=found, first_announced_ms=first_ms, liveness=liveness)


def chosen(*sightings: Sighting, pinned=()) -> list[str]:
    """The same whatever order they are seen in."""
    results = set()
    for seed in range(6):
        shuffled = random.Random(seed).sample(sightings, len(sightings))
        results.add(tuple(one.announcement.queue for one in choose_revisions(shuffled, dict(pinned))))
    [result] = results
    return list(result)


def test_every_model_has_one_revision():
    assert chosen(sighting("a@1", 5), sighting("b@1", 3), sighting("a@2", 9)) == ["a@2", "b@1"]


def test_of_live_revisions_the_newest_is_taken_whatever_its_name():
    assert chosen(sighting("a@9", 5), sighting("a@1", 9)) == ["a@1"]


@pytest.mark.parametrize("newer", [Liveness.LOADING, Liveness.ABSENT])
def test_a_newer_revision_waits_until_it_has_live_workers(newer):
    assert chosen(sighting("a@old", 1), sighting("a@new", 9, newer)) == ["a@old"]


def test_a_loading_revision_is_better_than_an_absent_one():
    assert chosen(sighting("a@1", 9, Liveness.ABSENT), sighting("a@2", 1, Liveness.LOADING)) == ["a@2"]


def test_where_none_has_workers_the_newest_is_taken():
    assert chosen(sighting("a@1", 1, Liveness.ABSENT), sighting("a@2", 2, Liveness.ABSENT)) == ["a@2"]


def test_a_pinned_revision_wins_even_without_workers():
    old, new = sighting("a@old", 1, Liveness.ABSENT), sighting("a@new", 9)
    assert chosen(old, new, sighting("b@1", 1), pinned=[("a", "old")]) == ["a@old", "b@1"]


def test_a_model_whose_pinned_revision_was_never_seen_is_not_served():
    assert chosen(sighting("a@1", 1), pinned=[("a", "2")]) == []


def test_nothing_seen_is_nothing_served():
    assert chosen() == []
