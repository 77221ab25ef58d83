"""The diff against a model of dictionaries: whatever happens to the source, the index is a function of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ledger.classes import Deletion, DiffCounts, refuse_mass_removal
from opensearch_batch.core.ledger.diff import diff, listed_changes
from opensearch_batch.core.ledger.difference import Difference
from opensearch_batch.core.ledger.head import Entry
from opensearch_batch.core.ledger.resolve import Mode
from opensearch_batch.core.ledger.rows import RecordState, RowsReader
from opensearch_batch.core.types.object_info import ObjectInfo
from tests.core.ledger.model import Ledger, Model, Record, Source, deletions_of, table_of

records = st.builds(
    Record,
    st.sampled_from(["1", "2", "3", "4", ""]),
    st.sampled_from(["a", "b", "a b", ""]),
    st.integers(0, 1),
    st.sampled_from([None, None, "r", "s"]),
    st.sampled_from([False, False, False, True]),
)


class Step(msgspec.Struct, frozen=True):
    """What happens to the source before a run: new contents of objects, None for deleted ones."""

    contents: dict[str, list[Record] | None]
    back: int = 0
    pending: frozenset[str] = frozenset()
    refingerprint: bool = False


steps = st.lists(
    st.builds(
        Step,
        st.dictionaries(
            st.sampled_from(["a", "b", "c"]),
            st.one_of(st.none(), st.lists(records, max_size=4), st.lists(records, max_size=4)),
            max_size=3,
        ),
        st.sampled_from([0, 0, 0, 15]),
        st.frozensets(st.sampled_from(["1", "2"]), max_size=1),
        st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=5,
)
modes: st.SearchStrategy[Mode] = st.sampled_from(["snapshot", "append"])
limits = st.fixed_dictionaries(
    {
        "part_rows": st.sampled_from([1, 1000]),
        "memory_rows": st.sampled_from([1, 3, 1000]),
        "max_joined_rows": st.sampled_from([0, 2, 1000]),
        "pack_rows": st.sampled_from([1, 6]),
    }
)


def source_after(source: dict[str, Source], step: Step, number: int) -> dict[str, Source]:
    """The source after a step; its objects are changed at the time 10 * number, or earlier."""
    changed = dict(source)
    for uri, content in step.contents.items():
        changed.pop(uri, None)
        if content is not None:
            changed[uri] = Source(f"{uri}{number}", 10.0 * number - step.back, content)
    return changed


@given(mode=modes, history=steps, limit=limits)
@settings(max_examples=200)
def test_the_ledger_is_what_the_model_says(mode: Mode, history: list[Step], limit: dict[str, int]) -> None:
    """Rows, counts of the classes and documents, after each run."""
    ledger, model, source = Ledger(mode, **limit), Model(mode), dict[str, Source]()
    for number, step in enumerate([*history, Step({})], 1):
        source = source_after(source, step, number)
        if step.refingerprint:
            ledger.head = ledger.head.for_target(index="", index_uuid="", fingerprint=f"f{number}")
            model.stale = set(model.rows)
        result = ledger.run(source, number, step.pending)
        counts = model.run(source, ledger.opened, number, step.pending)
        assert result.counts == counts
        assert counts.before == counts.kept + counts.removed
        assert counts.read == counts.promoted + sum(len(source[uri].records) for uri in ledger.opened)
        assert ledger.head.documents == sum(
            row.state.name in {"INDEXED", "PENDING"} for rows in model.rows.values() for row in rows
        )
        assert ledger.head.objects.keys() == model.rows.keys()
        for uri, rows in model.rows.items():
            expected = [(row.record.id, row.record.routing, row.line, int(row.state), row.version) for row in rows]
            found = [(row["id"], row["routing"], row["line"], row["state"], row["version"]) for row in ledger.rows(uri)]
            assert sorted(found, key=str) == sorted(expected, key=str)
        undecided = model.undecided()
        assert undecided <= step.pending or mode == "append" or not source
        decided = {key: record for key, record in ledger.index.items() if key[0] not in undecided}
        assert decided == model.documents()


def run(ledger: Ledger, number: int, **contents: list[Record]) -> Difference:
    """A run over objects, of which those whose content is other than before have changed."""
    source = {
        uri: Source(str(hash(tuple(content))), float(number), content) for uri, content in sorted(contents.items())
    }
    return ledger.run(source, number)


def classes_of(result: DiffCounts) -> dict[str, int]:
    """The classes of a result, without those that have no record."""
    names = ("new", "input_changed", "other_changed", "unchanged", "removed", "duplicate", "tombstone")
    return {name: count for name in names if (count := getattr(result, name))}


ONE, TWO, THREE = Record("1", "a"), Record("2", "b"), Record("3", "c")


@pytest.mark.parametrize("mode", ["snapshot", "append"])
def test_classes_and_operations(mode: Mode) -> None:
    """One inserted on top, two edited: three operations; the next run has none."""
    ledger = Ledger(mode)
    assert classes_of(run(ledger, 1, a=[ONE, TWO, THREE]).counts) == {"new": 3}
    edited = [Record("0", "z"), ONE, TWO._replace(price=1), THREE._replace(text="d")]
    ledger.operations = 0
    counts = run(ledger, 2, a=edited).counts
    assert classes_of(counts) == {"new": 1, "unchanged": 1, "other_changed": 1, "input_changed": 1}
    assert (counts.before, counts.kept, ledger.operations) == (3, 3, 3)
    assert [row["version"] for row in ledger.rows("a")] == [2, 1, 2, 2]
    counts = run(ledger, 3, a=edited).counts
    assert (classes_of(counts), counts.kept, ledger.operations) == ({}, 4, 3)


@pytest.mark.parametrize("memory_rows", [0, 1000])
def test_a_move_is_no_change(memory_rows: int) -> None:
    """Neither to another object, nor of all records, nor under another name of the object."""
    ledger = Ledger("snapshot", memory_rows=memory_rows)
    run(ledger, 1, a=[ONE, TWO], b=[THREE])
    ledger.operations = 0
    assert classes_of(run(ledger, 2, a=[ONE], b=[TWO, THREE]).counts) == {"unchanged": 3}
    assert classes_of(run(ledger, 3, c=[THREE, ONE], d=[TWO]).counts) == {"unchanged": 3}
    assert classes_of(run(ledger, 4, c=[THREE, ONE], e=[TWO]).counts) == {"unchanged": 1}
    assert ledger.operations == 0
    assert classes_of(run(ledger, 5, c=[ONE], e=[TWO, THREE._replace(text="d")]).counts) == {
        "unchanged": 2,
        "input_changed": 1,
    }


def test_a_removed_record_is_deleted_with_its_routing() -> None:
    """An absent object removes all its records; an empty listing removes none."""
    ledger = Ledger("snapshot")
    routed = THREE._replace(routing="r")
    run(ledger, 1, a=[ONE, TWO], b=[routed])
    result = run(ledger, 2, a=[ONE])
    assert classes_of(result.counts) == {"unchanged": 1, "removed": 2}
    assert (result.counts.before, result.counts.kept) == (3, 1)
    assert deletions_of(result) == [("2", None, 1, Deletion.ABSENT), ("3", "r", 1, Deletion.ABSENT)]
    assert ledger.index == {("1", None): ONE}
    assert classes_of(run(ledger, 3).counts) == {}
    assert ledger.index == {("1", None): ONE}


def test_in_append_mode_nothing_is_removed_by_absence() -> None:
    """The ledger remembers what left its object, as a row of line 0, until another record has its id."""
    ledger = Ledger("append")
    run(ledger, 1, a=[ONE, TWO], b=[THREE])
    counts = run(ledger, 2, a=[TWO]).counts
    assert (classes_of(counts), counts.retained, counts.kept) == ({"unchanged": 1}, 1, 3)
    assert sorted((row["id"], row["line"]) for row in ledger.rows("a")) == [("1", 0), ("2", 1)]
    assert len(ledger.index) == 3
    assert classes_of(run(ledger, 3, a=[TWO], c=[ONE]).counts) == {"unchanged": 1}
    assert [row["state"] for row in ledger.rows("a") if row["id"] == "1"] == [RecordState.DUPLICATE]


@pytest.mark.parametrize("mode", ["snapshot", "append"])
def test_the_last_record_of_an_id_wins(mode: Mode) -> None:
    """In one object, and among objects: by name in a snapshot, by time in append mode."""
    ledger = Ledger(mode)
    first, second = ONE._replace(text="x"), ONE._replace(text="y")
    assert classes_of(run(ledger, 1, b=[ONE, first, TWO]).counts) == {"new": 2, "duplicate": 1}
    assert ledger.index["1", None] == first
    result = run(ledger, 2, a=[second], b=[ONE, first, TWO])
    if mode == "snapshot":
        assert classes_of(result.counts) == {"duplicate": 1}
        assert ledger.index["1", None] == first
    else:
        assert (classes_of(result.counts), result.counts.demoted) == ({"input_changed": 1}, 1)
        assert ledger.index["1", None] == second


def test_a_loser_is_promoted_when_the_winner_goes() -> None:
    """Its object did not change; only this row of it is given out, and read again if it differs from the winner."""
    ledger = Ledger("snapshot")
    run(ledger, 1, a=[TWO, ONE, THREE], b=[ONE._replace(text="x"), THREE])
    result = run(ledger, 2, a=[TWO, ONE, THREE])
    assert (classes_of(result.counts), result.counts.promoted) == ({"input_changed": 1, "unchanged": 1}, 2)
    assert (result.counts.before, result.counts.kept) == (3, 3)
    assert ledger.opened == set()
    assert ledger.index == {(record.id, None): record for record in (ONE, TWO, THREE)}
    assert [row["version"] for row in ledger.rows("a")] == [1, 2, 1]


def test_a_changed_routing_deletes_the_old_document() -> None:
    """Also when the record moves; a winner with the old routing deletes nothing."""
    ledger = Ledger("snapshot")
    routed = ONE._replace(routing="r")
    run(ledger, 1, a=[ONE], b=[TWO])
    result = run(ledger, 2, a=[routed], b=[TWO])
    assert (classes_of(result.counts), deletions_of(result)) == (
        {"other_changed": 1},
        [("1", None, 1, Deletion.ROUTING)],
    )
    result = run(ledger, 3, a=[TWO], c=[ONE])
    assert deletions_of(result) == [("1", "r", 2, Deletion.ROUTING)]
    result = run(ledger, 4, a=[TWO], c=[routed], d=[ONE])
    assert (classes_of(result.counts), deletions_of(result)) == ({"unchanged": 1, "duplicate": 1}, [])
    assert set(ledger.index) == {("1", None), ("2", None)}


def test_a_tombstone_deletes_with_the_routing_of_the_document() -> None:
    """Once; an unknown id is deleted too, because another scope may have written it."""
    ledger = Ledger("append")
    run(ledger, 1, a=[ONE._replace(routing="r"), TWO])
    gone = [Record("1", deleted=True), Record("9", deleted=True)]
    result = run(ledger, 2, b=gone)
    assert (classes_of(result.counts), result.counts.removed_by_tombstone) == ({"removed": 1, "tombstone": 2}, 1)
    assert deletions_of(result) == [("1", "r", 1, Deletion.TOMBSTONE), ("9", None, 0, Deletion.TOMBSTONE)]
    result = run(ledger, 3, b=[*gone, THREE])
    assert (classes_of(result.counts), deletions_of(result)) == ({"new": 1, "unchanged": 2}, [])
    assert classes_of(run(ledger, 4, c=[ONE]).counts) == {"new": 1}
    assert set(ledger.index) == {("1", None), ("2", None), ("3", None)}


def test_only_ids_that_come_or_go_make_it_read_other_objects() -> None:
    """An edit reads the rows of the edited object only; a new id reads the ids of the others."""
    ledger = Ledger("snapshot", pack_rows=1)
    run(ledger, 1, a=[ONE, TWO, TWO], b=[THREE, ONE])
    reads: list[tuple[str, tuple[str, ...]]] = []
    locations = {entry.rows: uri for uri, entry in ledger.head.objects.items()}

    def read(entry: Entry, columns: Sequence[str]) -> Iterator[pa.Table]:
        reads.append((locations[entry.rows], tuple(columns)))
        return RowsReader(ledger.store).read(entry, columns)

    def compare(*content: Record) -> DiffCounts:
        reads.clear()
        item = ObjectInfo("a", 1, "other")
        return diff([(item, table_of(content))], ledger.head.objects, read, mode="snapshot").counts

    assert classes_of(compare(ONE, TWO._replace(price=1))) == {"duplicate": 1, "other_changed": 1}
    assert reads == [("a", ())]
    assert classes_of(compare(ONE, TWO, Record("5"))) == {"duplicate": 1, "unchanged": 1, "new": 1}
    assert reads == [("a", ()), ("b", ("id",)), ("b", ())]


def test_a_listing_is_compared_by_etags() -> None:
    """An object without a verdict of all its records has no ETag, so it is opened again."""
    entries = {uri: Entry("rows", 0, 1, etag=etag) for uri, etag in (("a", "1"), ("b", "1"), ("c", ""), ("d", "1"))}
    listed = [ObjectInfo("a", 1, "1"), ObjectInfo("b", 1, "2"), ObjectInfo("c", 1, "1"), ObjectInfo("e", 1, "1")]
    changed = [item.uri for item in listed_changes(entries, listed, "snapshot").changed]
    assert changed == ["b", "c", "e"]
    assert listed_changes(entries, listed, "snapshot").vanished == ["d"]
    assert listed_changes(entries, listed, "append") == (listed[1:], [])
    assert listed_changes(entries, [], "snapshot") == ([], [])


@pytest.mark.parametrize(
    ("removed", "before", "max_removed"),
    [(0, 0, "20%"), (100, 100, "0%"), (200, 1000, "20%"), (1000, 1000, "100%"), (125, 1000, "12.5%")],
)
def test_a_removal_within_the_limit(removed: int, before: int, max_removed: str) -> None:
    """At least 100 documents may always go."""
    refuse_mass_removal(removed, before, max_removed)


@pytest.mark.parametrize(
    ("removed", "before", "max_removed", "share"),
    [(101, 101, "20%", "100%"), (201, 1000, "20%", "21%"), (126, 1000, "12.5%", "13%"), (1001, 1001, "0%", "100%")],
)
def test_a_mass_removal_is_refused(removed: int, before: int, max_removed: str, share: str) -> None:
    """The error has the numbers, and a limit with which one run may do it."""
    text = f"^{removed} of {before} documents would be deleted .* allows {max_removed}.* Nothing was .*: {share}$"
    with pytest.raises(ConfigError, match=text):
        refuse_mass_removal(removed, before, max_removed)
    refuse_mass_removal(removed, before, share)
