"""The diff against a model of dictionaries: whatever happens to the source, the index is a function of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ledger import rows as ledger_rows
from opensearch_batch.core.ledger.classes import (
    Deletion,
    DiffCounts,
    RecordClass,
    compare,
    refuse_mass_removal,
    same_lists,
)
from opensearch_batch.core.ledger.diff import diff, listed_changes
from opensearch_batch.core.ledger.difference import Difference
from opensearch_batch.core.ledger.head import Entry
from opensearch_batch.core.ledger.resolve import Mode
from opensearch_batch.core.ledger.rows import RecordState, RowsReader, with_verdicts
from opensearch_batch.core.ledger.rows_builder import RowsBuilder
from opensearch_batch.core.types.object_info import ObjectInfo
from tests.core.ledger.model import Ledger, Model, Record, Source, deletions_of, table_of
from tests.examples import examples

records = st.builds(
    Record,
    st.sampled_from(["1", "1", "2", "3", ""]),
    st.sampled_from(["a", "a", "b", "a b", "b a"]),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([None, None, None, "r"]),
    st.sampled_from([False, False, False, True]),
)


class Step(msgspec.Struct, frozen=True):
    """What happens to the source before a run: new contents of objects, None for deleted ones.

    The `unreadable` ones of these objects have other rows, whose id is not known.
    """

    contents: dict[str, list[Record] | None]
    back: int = 0
    pending: frozenset[str] = frozenset()
    refingerprint: bool = False
    unreadable: frozenset[str] = frozenset()


steps = st.lists(
    st.builds(
        Step,
        st.dictionaries(
            st.sampled_from(["a", "b", "c"]),
            st.one_of(st.none(), *[st.lists(records, max_size=3)] * 3),
            max_size=2,
        ),
        st.sampled_from([0, 0, 0, 15]),
        st.frozensets(st.sampled_from(["1", "2"]), max_size=1),
        st.sampled_from([False, False, False, True]),
        st.frozensets(st.sampled_from(["a", "b", "c"]), max_size=2),
    ),
    min_size=2,
    max_size=6,
)
modes: st.SearchStrategy[Mode] = st.sampled_from(["snapshot", "append"])
limits = st.fixed_dictionaries(
    {
        "part_rows": st.sampled_from([1, 1000]),
        "memory_bytes": st.sampled_from([1, 300, 100_000]),
        "pack_rows": st.sampled_from([1, 6]),
    }
)


def source_after(source: dict[str, Source], step: Step, number: int) -> dict[str, Source]:
    """The source after a step; its objects are changed at the time 10 * number, or earlier."""
    changed = dict(source)
    for uri, content in step.contents.items():
        changed.pop(uri, None)
        if content is not None:
            changed[uri] = Source(f"{uri}{number}", 10.0 * number - step.back, content, uri in step.unreadable)
    return changed


@given(mode=modes, history=steps, limit=limits)
@example(
    "snapshot",
    [Step({"a": []}), Step({"a": [], "b": [Record("1", "a")]})],
    {"part_rows": 1, "memory_bytes": 1, "pack_rows": 1},
)
@settings(max_examples=examples(200))
def test_the_ledger_is_what_the_model_says(mode: Mode, history: list[Step], limit: dict[str, int]) -> None:
    """Rows, counts of the classes and documents, after each run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ledger_rows, "PACK_ROWS", 2)
        follow(mode, history, limit)


def follow(mode: Mode, history: list[Step], limit: dict[str, int]) -> None:
    """Run the ledger and the model over a history, and compare them."""
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
        classes = counts.new + counts.input_changed + counts.other_changed + counts.unchanged
        read = sum(len(source[uri].records) for uri in ledger.opened)
        assert classes + counts.duplicate + counts.tombstone == counts.promoted + read
        assert ledger.head.documents == sum(
            row.state.name in {"INDEXED", "PENDING"} for rows in model.rows.values() for row in rows
        )
        assert ledger.head.objects.keys() == model.rows.keys()
        for uri, rows in model.rows.items():
            expected = [(row.record.id, row.record.routing, row.line, int(row.state), row.version) for row in rows]
            found = [(row["id"], row["routing"], row["line"], row["state"], row["version"]) for row in ledger.rows(uri)]
            assert sorted(found, key=str) == sorted(expected, key=str)
        undecided = model.undecided()
        has_left = any(row.left for rows in model.rows.values() for row in rows)
        assert undecided <= step.pending or mode == "append" or has_left or not source
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


@pytest.mark.parametrize("memory_bytes", [0, 100_000])
def test_a_move_is_no_change(memory_bytes: int) -> None:
    """Neither to another object, nor of all records, nor under another name of the object."""
    ledger = Ledger("snapshot", memory_bytes=memory_bytes)
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


def test_in_append_mode_a_changed_object_is_the_latest() -> None:
    """Its duplicates win now; an object with an earlier time than before is not the latest any more."""
    ledger = Ledger("append")
    run(ledger, 1, a=[TWO, ONE])
    run(ledger, 2, b=[ONE._replace(text="x")])
    result = run(ledger, 3, a=[TWO, ONE._replace(price=1)])
    assert (classes_of(result.counts), result.counts.demoted) == ({"input_changed": 1, "unchanged": 1}, 1)
    assert ledger.index["1", None] == ONE._replace(price=1)
    earlier = Source("earlier", 1.0, [TWO, ONE])
    result = ledger.run({"a": earlier}, 4)
    assert (classes_of(result.counts), result.counts.promoted) == (
        {"duplicate": 1, "unchanged": 1, "input_changed": 1},
        1,
    )


def test_a_tombstone_that_lost_is_promoted() -> None:
    """The record that won is gone, so the tombstone holds."""
    ledger = Ledger("snapshot")
    run(ledger, 1, a=[Record("1", deleted=True), TWO], b=[ONE])
    assert set(ledger.index) == {("1", None), ("2", None)}
    result = run(ledger, 2, a=[Record("1", deleted=True), TWO])
    assert (classes_of(result.counts), result.counts.promoted) == ({"removed": 1, "tombstone": 1}, 1)
    assert set(ledger.index) == {("2", None)}
    assert [row["state"] for row in ledger.rows("a")] == [RecordState.TOMBSTONE, RecordState.INDEXED]


def test_a_record_that_left_before_its_write_had_a_verdict() -> None:
    """It is unknown what its document is, so the same record is written again; what was never written is forgotten."""
    ledger = Ledger("append")
    run(ledger, 1, a=[ONE, TWO])
    edited = ONE._replace(text="x")
    ledger.run({"a": Source("2", 2.0, [edited, TWO, THREE])}, 2, pending={"1", "3"})
    assert ledger.head.objects["a"].etag == ""
    result = run(ledger, 3, a=[TWO])
    assert (classes_of(result.counts), result.counts.retained) == ({"unchanged": 1, "removed": 1}, 1)
    assert ledger.head.objects["a"].states == {"indexed": 2}
    assert classes_of(run(ledger, 4, b=[edited, THREE]).counts) == {"other_changed": 1, "new": 1}
    assert ledger.index["1", None] == edited


def test_a_duplicate_that_left_its_object_never_wins() -> None:
    """There is no record of it that could be read."""
    ledger = Ledger("append")
    run(ledger, 1, a=[ONE, TWO])
    run(ledger, 2, a=[TWO])
    run(ledger, 3, b=[Record("1", deleted=True)])
    ledger.run({"c": Source("4", 4.0, [ONE])}, 4, pending={"1"})
    run(ledger, 5, b=[])
    result = run(ledger, 6, c=[])
    assert (classes_of(result.counts), result.counts.promoted) == ({"removed": 1}, 0)
    assert [(row["line"], row["state"]) for row in ledger.rows("a")] == [
        (1, RecordState.INDEXED),
        (0, RecordState.DUPLICATE),
    ]


def test_a_document_after_a_tombstone_is_new_until_it_is_written() -> None:
    """Its row has no version, though the deletion had one."""
    ledger = Ledger("snapshot")
    run(ledger, 1, a=[Record("1", deleted=True)])
    assert [row["version"] for row in ledger.rows("a")] == [1]
    for number in (2, 3):
        result = ledger.run({"a": Source("2", 2.0, [ONE])}, number, pending={"1"})
        assert classes_of(result.counts) == {"new": 1}
        assert [row["version"] for row in ledger.rows("a")] == [0]


def rows_of(*contents: tuple[list[bytes], str | None], states: Sequence[RecordState] = ()) -> pa.Table:
    """Rows of records that have the same bytes, with content keys and routings."""
    builder = RowsBuilder()
    for line, (keys, routing) in enumerate(contents, 1):
        builder.add(str(line), b"", keys, line=line, routing=routing)
    table = builder.table()
    return with_verdicts(table, np.array(states or table["state"], np.uint8), np.zeros(len(contents), np.int64))


def test_keys_are_compared_one_by_one() -> None:
    """Whatever the number of the keys of the rows before."""
    x, y, z = (bytes([number]) * 16 for number in range(3))
    old = rows_of(([x], None), ([], None), ([x, y], None), ([y, z], None), ([z], None), ([x], None), ([], None))
    new = rows_of(([x, y], None), ([], None), ([x, y], None), ([y, y], None), ([z], None), ([], None), ([x], None))
    expected = [False, True, True, False, True, False, False]
    for start in range(7):
        one, other = old.slice(start)["content_keys"], new.slice(start)["content_keys"]
        assert same_lists(one, other).tolist() == expected[start:]
    singles = rows_of(([x], None), ([y], None), ([z], None))["content_keys"]
    assert same_lists(singles.slice(1), singles.slice(0, 2)).tolist() == [False, False]
    assert same_lists(singles.slice(1), singles.slice(1)).tolist() == [True, True]


def test_a_routing_may_change_though_the_record_did_not() -> None:
    """A document that was never written is not deleted."""
    key = bytes(16)
    states = (RecordState.INDEXED, RecordState.INDEXED, RecordState.INDEXED, RecordState.DEAD, RecordState.PENDING)
    old = rows_of(([key], None), ([key], "r"), ([key], "r"), ([key], "r"), ([key], "r"), states=states)
    new = rows_of(([key], "s"), ([key], None), ([key], "r"), ([key], "s"), ([key], "s"))
    compared = compare(old, new, np.zeros(5, bool))
    other, same = RecordClass.OTHER_CHANGED, RecordClass.UNCHANGED
    assert compared.classes.tolist() == [other, other, same, other, RecordClass.NEW]
    assert compared.deletions.tolist() == [Deletion.ROUTING, Deletion.ROUTING, 0, 0, Deletion.ROUTING]


def test_rows_of_other_objects_are_read_if_they_have_the_same_ids() -> None:
    """Of the others, only the ids are read."""
    ledger = Ledger("snapshot", pack_rows=1)
    run(ledger, 1, a=[ONE, TWO, TWO], b=[THREE, ONE], c=[Record("4", "d")])
    reads: list[tuple[str, tuple[str, ...]]] = []
    locations = {entry.rows: uri for uri, entry in ledger.head.objects.items()}

    def read(entry: Entry, columns: Sequence[str]) -> Iterator[pa.Table]:
        reads.append((locations[entry.rows], tuple(columns)))
        return RowsReader(ledger.store).read(entry, columns)

    def counts_of(*content: Record) -> DiffCounts:
        reads.clear()
        item = ObjectInfo("a", 1, "other")
        return diff([(item, table_of(content))], ledger.head.objects, read, mode="snapshot").counts

    assert classes_of(counts_of(ONE, TWO._replace(price=1))) == {"duplicate": 1, "other_changed": 1}
    assert sorted(reads) == [("a", ()), ("b", ()), ("b", ("id",)), ("c", ("id",))]
    assert classes_of(counts_of(TWO)) == {"unchanged": 1}
    assert sorted(reads) == [("a", ()), ("b", ("id",)), ("c", ("id",))]


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
    [(0, 0, "20%"), (100, 100, "1%"), (0, 9, "0%"), (200, 1000, "20%"), (1000, 1000, "100%"), (125, 1000, "12.5%")],
)
def test_a_removal_within_the_limit(removed: int, before: int, max_removed: str) -> None:
    """100 documents may always go, unless the limit is 0 %."""
    refuse_mass_removal(removed, before, max_removed)


@pytest.mark.parametrize(
    ("removed", "before", "max_removed", "share"),
    [
        (101, 101, "20%", "100%"),
        (201, 1000, "20%", "21%"),
        (126, 1000, "12.5%", "13%"),
        (1, 1001, "0%", "1%"),
        (100, 100, "0%", "100%"),
    ],
)
def test_a_mass_removal_is_refused(removed: int, before: int, max_removed: str, share: str) -> None:
    """The error has the numbers, and a limit with which one run may do it."""
    text = f"^{removed} of {before} documents would be deleted .* allows {max_removed}.* Nothing was .*: {share}$"
    with pytest.raises(ConfigError, match=text):
        refuse_mass_removal(removed, before, max_removed)
    refuse_mass_removal(removed, before, share)
