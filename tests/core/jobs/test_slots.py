"""At most so many jobs are in flight, whoever dies."""

from __future__ import annotations

import threading

import pytest

from opensearch_batch.core.jobs.slots import GRACE_S, Slots
from opensearch_batch.core.storage.s3 import S3Objects


class Work:
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
            most=most,
            is_at_work=lambda slot: self.known.get(slot.holder),
            clock=lambda: self.now,
        )


@pytest.fixture
def work_prefix(store: S3Objects, bucket: str) -> Work:
    """Slots on a real store."""
    return Work(store, bucket)


def test_so_many_jobs_have_a_slot_and_no_more(work_prefix: Work) -> None:
    """A job that has one finds it again."""
    work_prefix.known = dict.fromkeys("abc", True)
    assert [work_prefix.slots().take(name) for name in "abcab"] == [True, True, False, True, True]


def test_of_racing_jobs_as_many_win_as_there_are_slots(work_prefix: Work) -> None:
    """However many try at once."""
    names = [f"job-{n}" for n in range(8)]
    work_prefix.known = dict.fromkeys(names, True)
    won: list[str] = []

    def race(name: str) -> None:
        if work_prefix.slots(3).take(name):
            won.append(name)

    threads = [threading.Thread(target=race, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 3


def test_a_slot_of_an_ended_job_is_taken_over(work_prefix: Work) -> None:
    """Nobody has to give it back: a killed run frees its slots by its jobs' ends."""
    work_prefix.known = {"a": True, "b": True}
    assert [work_prefix.slots().take(name) for name in "ab"] == [True, True]
    work_prefix.known["a"] = False
    assert [work_prefix.slots().take(name) for name in "cd"] == [True, False]


def test_a_holder_that_never_submitted_loses_its_slot_after_a_while(work_prefix: Work) -> None:
    """It may be uploading; a dead one is not waited for without end."""
    assert work_prefix.slots(1).take("a")
    work_prefix.now += GRACE_S - 1
    assert not work_prefix.slots(1).take("b")
    work_prefix.now += 1
    assert work_prefix.slots(1).take("b")


def test_a_slot_given_back_is_free_at_once(work_prefix: Work) -> None:
    """Giving back what one does not hold does nothing."""
    work_prefix.known = {"a": True}
    slots = work_prefix.slots(1)
    assert slots.take("a")
    slots.give_back("b")
    assert not slots.take("b")
    slots.give_back("a")
    assert slots.take("b")


def test_a_slot_that_is_found_again_is_held_anew(work_prefix: Work) -> None:
    """Its holder is about to submit, so nobody takes it over."""
    assert work_prefix.slots(1).take("a")
    work_prefix.now += GRACE_S - 1
    assert work_prefix.slots(1).take("a")
    work_prefix.now += 2
    assert not work_prefix.slots(1).take("b")
