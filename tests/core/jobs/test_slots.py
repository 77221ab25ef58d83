"""At most so many jobs are in flight, whoever dies."""

from __future__ import annotations

import threading

import pytest

from opensearch_batch.core.jobs.slots import GRACE_S, Slots
from opensearch_batch.core.storage.s3 import S3Objects


class Holders:
    """What is known of the holders: True at work, False ended, None no job yet."""

    def __init__(self, store: S3Objects, bucket: str) -> None:
        self.known: dict[str, bool | None] = {}
        self.now = 1000.0
        self._store, self._folder = store, f"s3://{bucket}/slots/"

    def slots(self, most: int = 2) -> Slots:
        """Return slots, as any process sees them."""
        return Slots(
            self._store,
            self._folder,
            max_slots=most,
            is_in_flight=lambda slot: self.known.get(slot.holder),
            clock=lambda: self.now,
        )


@pytest.fixture
def holders(store: S3Objects, bucket: str) -> Holders:
    """Slots on a real store."""
    return Holders(store, bucket)


def test_so_many_jobs_have_a_slot_and_no_more(holders: Holders) -> None:
    """A job that has one finds it again."""
    holders.known = dict.fromkeys("abc", True)
    assert [bool(holders.slots().acquire(name)) for name in "abcab"] == [True, True, False, True, True]


def test_of_racing_jobs_as_many_win_as_there_are_slots(holders: Holders) -> None:
    """However many try at once."""
    names = [f"job-{n}" for n in range(8)]
    holders.known = dict.fromkeys(names, True)
    won: list[str] = []

    def race(name: str) -> None:
        if holders.slots(3).acquire(name):
            won.append(name)

    threads = [threading.Thread(target=race, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 3


def test_a_slot_of_an_ended_job_is_taken_over(holders: Holders) -> None:
    """Nobody has to give it back: a killed run frees its slots by its jobs' ends."""
    holders.known = {"a": True, "b": True}
    assert [bool(holders.slots().acquire(name)) for name in "ab"] == [True, True]
    holders.known["a"] = False
    assert [bool(holders.slots().acquire(name)) for name in "cd"] == [True, False]


def test_a_holder_that_never_submitted_loses_its_slot_after_a_while(holders: Holders) -> None:
    """It may be uploading; a dead one is not waited for without end."""
    assert holders.slots(1).acquire("a")
    holders.now += GRACE_S - 1
    assert not holders.slots(1).acquire("b")
    holders.now += 1
    assert holders.slots(1).acquire("b")


def test_a_slot_given_back_is_free_at_once(holders: Holders) -> None:
    """Giving back what one does not hold does nothing."""
    holders.known = {"a": True}
    slots = holders.slots(1)
    assert slots.acquire("a")
    slots.release("b")
    assert not slots.acquire("b")
    slots.release("a")
    assert slots.acquire("b")


def test_a_slot_that_is_found_again_is_held_anew(holders: Holders) -> None:
    """Its holder is about to submit, so nobody takes it over."""
    assert holders.slots(1).acquire("a")
    holders.now += GRACE_S - 1
    assert holders.slots(1).acquire("a")
    holders.now += 2
    assert not holders.slots(1).acquire("b")


def test_a_job_takes_slots_for_the_next_ones(holders: Holders) -> None:
    """The first ones first; those that have a slot keep it, and the others get what is free."""
    holders.known = dict.fromkeys("abcde", True)
    slots = holders.slots(3)
    assert slots.acquire("b") == {"b"}
    assert slots.acquire("a", "b", "c", "d") == {"a", "b", "c"}
    assert slots.acquire("e", "d") == set()
    holders.known["b"] = False
    assert slots.acquire("e", "d") == {"e"}
    slots.release("e", "a")
    assert slots.acquire("d", "b") == {"d", "b"}
    assert {slot.holder for _, slot in slots.held()} == {"c", "d"}
