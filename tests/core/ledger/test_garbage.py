"""Marks of files that no head names: what is marked, when it is deleted, and when it must not be named any more."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.ledger.garbage import GRACE_S, LATE_S, expired, named_too_late, with_marks
from opensearch_batch.core.types.job import DEADLINE_S

names = st.sampled_from("abcde")


def test_the_grace_period_is_longer_than_a_run() -> None:
    """The jobs of a run, and then the job of its repair, have one deadline each."""
    assert GRACE_S == 2 * DEADLINE_S
    assert GRACE_S / 2 == LATE_S


@given(files=st.sets(names), named=st.sets(names), marks=st.dictionaries(names, st.floats(0, 9)))
def test_existing_files_without_a_name_are_marked_once(
    files: set[str], named: set[str], marks: dict[str, float]
) -> None:
    """Those that were marked keep their time; what is named or gone has no mark."""
    found = with_marks(marks, files, named, now=10.0)
    assert found.keys() == files - named
    assert all(since == marks.get(name, 10.0) for name, since in found.items())


def test_a_mark_expires_at_its_time() -> None:
    """Not before."""
    assert expired({"a": 0.0, "b": 1.0}, now=GRACE_S) == ["a"]
    assert expired({"a": 0.0}, now=GRACE_S - 1) == []


def test_a_file_must_not_be_named_after_half_of_the_time() -> None:
    """The rest is for clocks that differ."""
    marks = {"a": 0.0, "b": 1.0, "c": 0.0}
    assert named_too_late(marks, {"a", "b"}, now=LATE_S) == ["a"]
    assert named_too_late(marks, {"b"}, now=LATE_S) == []


class _Model:
    """A head, its marks and the files, by steps of a writer, a reader and two collections; days pass in between."""

    def __init__(self) -> None:
        self.now = 0.0
        self.files, self.named = {"old"}, {"old"}
        self.marks: dict[str, float] = {}
        self.doomed: list[str] = []
        self.held = set[str]()
        self.held_at = 0.0
        self.refused = False

    def write(self) -> None:
        self.files.add("new")

    def name(self) -> None:
        if named_too_late(self.marks, {"new"}, now=self.now):
            self.refused = True
            return
        self.named = {"new"}
        self.marks = {name: since for name, since in self.marks.items() if name not in self.named}

    def hold(self) -> None:
        self.held, self.held_at = set(self.named), self.now

    def mark(self) -> None:
        self.marks = with_marks(self.marks, self.files, self.named, now=self.now)
        self.doomed = expired(self.marks, now=self.now)

    def delete(self) -> None:
        self.files -= set(self.doomed)

    def check(self) -> None:
        assert self.named <= self.files
        if self.now - self.held_at < GRACE_S:
            assert self.held <= self.files


@pytest.mark.parametrize("day_s", [0.0, GRACE_S / 8, GRACE_S / 3, GRACE_S])
def test_named_and_held_files_stay_in_every_order_of_steps(day_s: float) -> None:
    """A writer, a reader, and collections that mark and then delete; there is a pause after each step."""
    orders = set(permutations(["write", "name", "hold", "mark", "delete", "mark", "delete"]))
    legal = [order for order in orders if order.index("write") < order.index("name")]
    outcomes = set[bool]()
    for order in legal:
        model = _Model()
        for step in order:
            getattr(model, step)()
            model.check()
            model.now += day_s
        outcomes.add(model.refused)
    assert len(legal) == 630
    assert outcomes == ({False} if day_s < LATE_S / 5 else {False, True})
