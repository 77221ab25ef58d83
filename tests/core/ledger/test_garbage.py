"""Marks of files that no head names: what is marked, when it is deleted, and when a file must not be named any more."""

from __future__ import annotations

from itertools import permutations, product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.ledger.garbage import GRACE_S, LATE_S, MarkedHead, new_name, written_at
from opensearch_batch.core.types.job import DEADLINE_S

DIGEST, NOW, HOUR_S = "0123456789abcdef" * 2, 1_700_000_000.0, 3_600.0
FILES = [new_name(DIGEST, now=NOW + number) for number in range(5)]
some_files = st.sets(st.sampled_from(FILES))


class NamingHead(MarkedHead, frozen=True):
    """A head that names files."""

    names: list[str] = msgspec.field(default_factory=list)

    def files(self) -> set[str]:
        """Return the files that the head names."""
        return set(self.names)


def test_the_grace_period_is_longer_than_a_run() -> None:
    """The jobs of a run, and then the job of its repair, have one deadline each."""
    assert GRACE_S == 2 * DEADLINE_S
    assert GRACE_S / 2 == LATE_S


def test_a_name_has_the_time_of_its_file() -> None:
    """Also in a folder; other names have none."""
    name = new_name(DIGEST, now=NOW + 0.25)
    for full in (name, f"{name}.parquet", f"s3://w/p/rows/{name}.parquet"):
        assert written_at(full) == NOW + 0.25
    for other in ("x.parquet", DIGEST, f"{name}0", f"x{name}", f"{name}/x.parquet", name.upper()):
        assert written_at(other) is None


@given(files=some_files, named=some_files, marks=st.dictionaries(st.sampled_from(FILES), st.floats(0, 9)))
def test_existing_files_without_a_name_are_marked_once(
    files: set[str], named: set[str], marks: dict[str, float]
) -> None:
    """Those that were marked keep their time; what is named or gone has no mark, nor what others have written."""
    head = NamingHead(garbage=marks, names=sorted(named))
    garbage = head.with_garbage({*files, "notes.parquet"}, now=10.0).garbage
    assert garbage.keys() == files - named
    assert all(since == marks.get(name, 10.0) for name, since in garbage.items())


def test_a_mark_expires_at_its_time() -> None:
    """Not before."""
    assert NamingHead(garbage={"a": 0.0, "b": 1.0}).expired(now=GRACE_S) == ["a"]
    assert NamingHead(garbage={"a": 0.0}).expired(now=GRACE_S - 1) == []


def test_a_file_must_not_be_named_after_half_of_the_time() -> None:
    """Whether it has a mark or not; a file that the head before named stays, and its mark goes."""
    before, late = NamingHead(names=FILES[:1]), NOW + 1 + LATE_S
    for garbage in ({}, {FILES[1]: NOW}):
        head = NamingHead(names=FILES[:2], garbage=garbage)
        assert head.after(before, now=late - 1) == NamingHead(names=FILES[:2])
        with pytest.raises(RetriableError, match=f"{FILES[1]}: this process wrote the file so long ago"):
            head.after(before, now=late)
        assert head.after(head, now=late).garbage == {}


class _Model:
    """A head and the files, by steps of a writer, a reader, collections, and one that pauses before it deletes.

    The clock of that one differs from the others by `skew_s`.
    """

    def __init__(self, skew_s: float) -> None:
        self.now, self.skew_s = NOW, skew_s
        self.old, self.new = FILES[0], ""
        self.head = NamingHead(names=[self.old])
        self.files = {self.old}
        self.doomed: list[str] = []
        self.held, self.held_at = set[str](), 0.0
        self.refused = False

    def write(self) -> None:
        self.new = new_name(DIGEST, now=self.now)
        self.files.add(self.new)

    def name(self) -> None:
        try:
            self.head = msgspec.structs.replace(self.head, names=[self.new]).after(self.head, now=self.now)
        except RetriableError:
            self.refused = True

    def hold(self) -> None:
        self.held, self.held_at = self.head.files(), self.now

    def mark(self, skew_s: float | None = None) -> None:
        now = self.now + (self.skew_s if skew_s is None else skew_s)
        self.head = self.head.with_garbage(self.files, now=now)
        self.doomed = self.head.expired(now=now)

    def delete(self) -> None:
        self.files -= set(self.doomed)

    def collect(self) -> None:
        doomed = self.doomed
        self.mark(skew_s=0.0)
        self.delete()
        self.doomed = doomed

    def check(self) -> None:
        assert self.head.files() <= self.files
        if self.now - self.held_at <= LATE_S:
            assert self.held <= self.files


@pytest.mark.parametrize("skew_s", [-2 * HOUR_S, 2 * HOUR_S])
@pytest.mark.parametrize("pause_s", [LATE_S - 60, GRACE_S - 1.5 * HOUR_S, 2 * GRACE_S])
def test_named_and_held_files_stay_in_every_order_of_steps(pause_s: float, skew_s: float) -> None:
    """Whoever pauses where, and although clocks differ by two hours."""
    orders = set(permutations(["write", "name", "hold", "mark", "delete", "collect", "collect"]))
    legal = [order for order in orders if order.index("write") < order.index("name")]
    outcomes = set[bool]()
    for order, paused in product(legal, range(len(legal[0]) - 1)):
        model = _Model(skew_s)
        for at, step in enumerate(order):
            getattr(model, step)()
            model.check()
            model.now += pause_s if at == paused else 1
        outcomes.add(model.refused)
    assert len(legal) == 1_260
    assert outcomes == ({False} if pause_s < LATE_S else {False, True})
