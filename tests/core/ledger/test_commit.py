"""Commit of a run: each pending record gets its verdict, and the head names what the run read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ledger import needed_segments
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.commit import committed_entries, head_change
from opensearch_batch.core.ledger.head import ClaimLost, Entry, Head, RunLedger, ScopeHead
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RecordState, RowsReader, RowsWriter, with_verdicts
from opensearch_batch.core.ledger.rows_builder import RowsBuilder
from opensearch_batch.core.ledger.verdicts import RecordVerdict
from tests.core.memory_objects import MemoryObjects
from tests.manifests import manifest_of

VERSION = 77
RUN = manifest_of(index="books", index_uuid="u1", fingerprint="f1")
Row = tuple[str, RecordState, int]


def key(name: str) -> bytes:
    """A content key."""
    return name.encode().rjust(16, b"\0")


class Runs:
    """A run of one scope: pending rows, and the prediction store."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()
        self.store = PredictionStore(self.objects, "predictions")
        self.entries: dict[str, Entry] = {}
        self._writer = RowsWriter(self.objects, "run/rows", pack_rows=3)

    def add(self, uri: str, *rows: Row, etag: str = "e", stale: bool = False) -> None:
        """Add the pending rows of an object: id (and content key), state and version."""
        import numpy as np

        builder = RowsBuilder()
        for line, (name, _, _) in enumerate(rows, 1):
            builder.add(name, name.encode(), [key(name)], line=line)
        states = np.array([state for _, state, _ in rows], np.uint8)
        versions = np.array([version for _, _, version in rows], np.int64)
        self._writer.add(uri, with_verdicts(builder.table(), states, versions))
        self.entries[uri] = Entry("", 0, 0, etag=etag, modified=5.0, stale=stale)

    def commit(
        self,
        exceptions: Sequence[RecordVerdict] = (),
        *,
        unread: Sequence[str] = (),
        waiting: Sequence[tuple[str, int]] = (),
    ) -> dict[str, Entry]:
        """Write the rows of the scope."""
        slices = self._writer.close()
        entries = {
            uri: Entry(part.rows, part.first, part.count, part.states, etag=entry.etag, modified=5.0, stale=entry.stale)
            for uri, entry in self.entries.items()
            for part in [slices[uri]]
        }
        ledger = RunLedger(entries, [], list(unread), list(waiting))
        return committed_entries(self.objects, ledger, exceptions, self.store, folder="scope/rows", version=VERSION)

    def rows(self, entry: Entry) -> list[Row]:
        """Return committed rows."""
        tables = RowsReader(self.objects).read(entry)
        rows = [row for table in tables for row in table.select(["id", "state", "version"]).to_pylist()]
        return [(row["id"], RecordState(row["state"]), row["version"]) for row in rows]


@pytest.fixture
def runs() -> Runs:
    """A run."""
    return Runs()


PENDING, INDEXED, DEAD, FILTERED = RecordState.PENDING, RecordState.INDEXED, RecordState.DEAD, RecordState.FILTERED


def test_a_record_without_an_exception_is_indexed(runs: Runs) -> None:
    """The others keep the version of their last write, which tells whether there is a document."""
    runs.add("a", ("one", PENDING, 0), ("two", PENDING, 5), ("three", PENDING, 6), ("four", INDEXED, 7))
    runs.add("b", ("five", PENDING, 0), ("six", RecordState.TOMBSTONE, 0))
    entries = runs.commit([("b", 1, DEAD), ("a", 3, FILTERED), ("a", 2, DEAD), ("a", 4, DEAD), ("c", 1, DEAD)])
    assert runs.rows(entries["a"]) == [
        ("one", INDEXED, VERSION),
        ("two", DEAD, 5),
        ("three", FILTERED, 6),
        ("four", INDEXED, 7),
    ]
    assert runs.rows(entries["b"]) == [("five", DEAD, 0), ("six", RecordState.TOMBSTONE, 0)]
    assert entries["a"].states == {"indexed": 2, "dead": 1, "filtered": 1}
    assert {(entry.etag, entry.modified) for entry in entries.values()} == {("e", 5.0)}


def test_the_last_of_several_verdicts_counts(runs: Runs) -> None:
    """A repaired record had an earlier verdict only if something went wrong before."""
    runs.add("a", ("one", PENDING, 0), ("two", PENDING, 0))
    entries = runs.commit([("a", 1, DEAD), ("a", 2, FILTERED), ("a", 1, FILTERED)])
    assert runs.rows(entries["a"]) == [("one", FILTERED, 0), ("two", FILTERED, 0)]


def test_an_unread_object_stays_pending(runs: Runs) -> None:
    """Its records have no verdict, so the next run opens it again, and writes its documents again."""
    runs.add("a", ("one", PENDING, 3), etag="", stale=True)
    runs.add("b", ("two", PENDING, 3), stale=True)
    entries = runs.commit(unread=["a"])
    assert runs.rows(entries["a"]) == [("one", PENDING, 3)]
    assert (entries["a"].etag, entries["a"].stale) == ("", True)
    assert not entries["b"].stale


def test_a_record_that_waits_stays_pending(runs: Runs) -> None:
    """The other records of its object have verdicts, and are not written again."""
    runs.add("a", ("one", PENDING, 3), ("two", PENDING, 0), ("three", PENDING, 0), etag="", stale=True)
    entries = runs.commit([("a", 3, DEAD)], waiting=[("a", 2)])
    assert runs.rows(entries["a"]) == [("one", INDEXED, VERSION), ("two", PENDING, 0), ("three", DEAD, 0)]
    assert (entries["a"].etag, entries["a"].stale) == ("", False)


def test_an_object_without_records_is_known(runs: Runs) -> None:
    """It is not opened again."""
    runs.add("a")
    assert runs.commit() == {"a": Entry("", 0, 0, etag="e", modified=5.0)}


@pytest.mark.parametrize("lookup_keys", [1, 3, 1_000])
def test_an_entry_counts_its_predictions_by_segment(
    runs: Runs, lookup_keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the store keeps what the head names; keys without an answer have no segment."""
    monkeypatch.setattr(needed_segments, "LOOKUP_KEYS", lookup_keys)
    for job, names in {"j1": ("one", "two", "four"), "j2": ("three",)}.items():
        runs.store.add(job, 1, [(key(name), StoredAnswer(b"1")) for name in names])
    segments = list(runs.store.head().segments)
    runs.add("a", ("one", PENDING, 0), ("two", INDEXED, 1), ("three", PENDING, 0), ("dead", PENDING, 0))
    runs.add("b", ("four", PENDING, 0))
    runs.add("c", ("dead", PENDING, 0))
    entries = runs.commit()
    assert entries["a"].segments == {segments[0]: 2, segments[1]: 1}
    assert (entries["b"].segments, entries["c"].segments) == ({segments[0]: 1}, {})


def test_pending_rows_that_are_lost_fail_the_commit(runs: Runs) -> None:
    """The error names the file."""
    runs.add("a", ("one", PENDING, 0))
    entry = runs.commit()["a"]
    runs.objects.delete(entry.rows)
    ledger = RunLedger({"a": entry})
    with pytest.raises(FatalError, match=r"scope/rows/.*\.parquet: this file of the record ledger is missing"):
        committed_entries(runs.objects, ledger, [], runs.store, folder="f", version=1)


def entry(name: str) -> Entry:
    """An object of the source."""
    return Entry(f"rows/{name}.parquet", 0, 1, {"indexed": 1}, etag=name)


def test_the_head_names_what_the_run_read() -> None:
    """Objects that did not change stay, removed ones go."""
    head = ScopeHead(MemoryObjects(), "head.json")
    first = head.claim(5.0, "r1").claim
    head.commit(first, head_change(RunLedger(), {name: entry(name) for name in "abc"}, RUN))
    second = head.claim(6.0, "r2").claim
    changed = {"b": entry("b2"), "d": entry("d")}
    head.commit(second, head_change(RunLedger(removed=["c", "x"]), changed, RUN))
    assert head.load().objects == {"a": entry("a"), **changed}
    with pytest.raises(ClaimLost, match="run r2 has claimed"):
        head.commit(first, head_change(RunLedger(), {}, RUN))


def test_nothing_of_another_index_stays() -> None:
    """In a new index, only what the run wrote is indexed; with other settings, the rest is written again later."""
    change = head_change(RunLedger(), {"b": entry("b2")}, RUN)
    before = Head(index="books", index_uuid="u1", fingerprint="f0", objects={"a": entry("a"), "b": entry("b")})
    objects = change(before).objects
    assert (objects["a"].stale, objects["a"].etag, objects["b"]) == (True, "", entry("b2"))
    assert change(Head(index_uuid="u0", fingerprint="f1", objects={"a": entry("a")})).objects == {"b": entry("b2")}
