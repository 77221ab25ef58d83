"""Writes in the order of versions: an older run overwrites nothing, and stops when a newer run has claimed."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.formats.reading import read_rows
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.engine import CHECKPOINT_S, Ingest, Locations
from opensearch_batch.core.ingest.mapped_documents import MappedDocumentFactory
from opensearch_batch.core.ingest.progress import Progress
from opensearch_batch.core.ingest.replay import ReplayReport, replay
from opensearch_batch.core.ingest.request import Action, IngestRequest, OpType
from opensearch_batch.core.ingest.row_documents import row_document_factory
from opensearch_batch.core.ingest.sinks.base import Item
from opensearch_batch.core.ingest.sinks.bulk import BulkWriter
from opensearch_batch.core.ingest.sinks.bulk_lines import is_versioned, lines_of, version_members
from opensearch_batch.core.ingest.sinks.opensearch import IndexSink
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import find_objects
from opensearch_batch.core.types.counts import IngestCounts, IngestReport
from opensearch_batch.core.types.rows import Source
from opensearch_batch.core.types.versions import ROOM_BITS, next_version
from tests.core.versioned_index import CONFLICT, VersionedIndex
from tests.lab import Lab
from tests.scripted import Scripted
from tests.stored import content, dead_letters
from tests.waiting import eventually

OLD, NEW = 7 << ROOM_BITS, 8 << ROOM_BITS
REFUSED = {"index": {"status": 400, "error": {"type": "mapper", "reason": "no"}}}
FIELD_MAP = {"_id": "$.id", "n": "$.n"}


def item(
    name: str, n: int = 0, *, version: int | None = None, op_type: Action = "index", routing: str | None = None
) -> Item:
    """Return an item."""
    source = [] if op_type == "delete" else [json.dumps({"n": n}).encode()]
    lines = lines_of(name, *source, op_type=op_type, routing=routing, version=version_members(version))
    return Item(name, lines, name)


def line_of(entry: Item) -> dict[str, Any]:
    """Return the members of an item's first line."""
    ((_, members),) = json.loads(entry.content.splitlines()[0]).items()
    return dict(members)


@pytest.mark.parametrize("op_type", ["index", "delete"])
def test_a_line_has_the_version(op_type: Action) -> None:
    """It follows id and routing."""
    assert line_of(item("a", version=OLD, op_type=op_type, routing="r")) == {
        "_id": "a",
        "routing": "r",
        "version": OLD,
        "version_type": "external_gte",
    }


@pytest.mark.parametrize(("name", "op_type"), [("a", "create"), ("a", "upsert"), ("a", "update"), ("", "index")])
def test_what_accepts_no_external_version_has_none(name: str, op_type: Action) -> None:
    """The index would refuse the whole bulk request."""
    entry = item(name, version=OLD, op_type=op_type)
    assert "version" not in line_of(entry)
    assert not is_versioned(entry)


@given(
    st.text(min_size=1) | st.just('"version_type":"external_gte"}}'),
    st.none() | st.text() | st.just('"version_type":"external_gte"}}\n'),
    st.sampled_from(["index", "delete"]),
)
def test_no_id_or_routing_looks_like_a_version(name: str, routing: str | None, op_type: Action) -> None:
    """Whether a conflict is final depends on it. In a replay, the document is one piece."""
    for version in (None, OLD):
        entry = item(name, version=version, op_type=op_type, routing=routing)
        assert is_versioned(entry) == is_versioned(Item(name, (entry.content,))) == (version is not None)


def test_a_document_of_a_newer_run_is_kept(scripted: Scripted) -> None:
    """The older document is superseded: it is not sent again, and is no dead letter."""
    index = VersionedIndex()
    scripted.answer = index.answer
    writer = BulkWriter(scripted.cluster, IngestRequest("i", {}))
    assert [body.indexed for body in writer.write([item("a", 2, version=NEW)])] == [1]
    (written,) = writer.write([item("a", 1, version=OLD), item("b", 1, version=OLD)])
    assert (written.indexed, [each.id for each in written.superseded], written.refused) == (1, ["a"], [])
    assert (index.documents, len(scripted.bodies)) == ({"a": {"n": 2}, "b": {"n": 1}}, 2)
    (again,) = writer.write([item("a", 3, version=NEW)])
    assert (again.indexed, again.superseded, index.documents["a"]) == (1, [], {"n": 3})


@pytest.mark.parametrize(("version", "kind"), [(None, CONFLICT), (OLD, "another_exception")])
def test_other_conflicts_are_tried_again(scripted: Scripted, version: int | None, kind: str) -> None:
    """Only a conflict of versions is a verdict, and only for a document with an external version."""
    conflict = {"status": 409, "error": {"type": kind, "reason": "r"}}
    scripted.answers = [(200, {"errors": True, "items": [{"index": conflict}]})]
    (written,) = BulkWriter(scripted.cluster, IngestRequest("i", {}), sleep=lambda _: None).write(
        [item("a", version=version)]
    )
    assert (written.indexed, written.superseded, len(scripted.bodies)) == (1, [], 2)


def test_a_busy_index_is_not_tried_again_after_the_claim_is_lost(scripted: Scripted) -> None:
    """The index may have forgotten the version of a document that the newer run deleted meanwhile."""
    scripted.answers = [(503, {"error": {"reason": "starting"}})] * 3
    claims = iter([True, False])
    writer = BulkWriter(
        scripted.cluster, IngestRequest("i", {}), sleep=lambda _: None, still_claimed=lambda: next(claims)
    )
    (written,) = writer.write([item("a", version=OLD), item("b", version=OLD)])
    assert (written.indexed, len(written.superseded), written.refused, len(scripted.bodies)) == (0, 2, [], 2)


class Runs:
    """Ingests of one source into one index; an ingest checkpoints after each body, and each body has one document."""

    def __init__(self, files: LocalFiles, scripted: Scripted) -> None:
        self.files, self.scripted = files, scripted
        self.index = VersionedIndex()
        scripted.answer = self.index.answer

    def put(self, **values: int | str) -> None:
        """Write the source: a row for each id."""
        rows = [{"id": name, "n": n} for name, n in values.items()]
        self.files.write("s3://source/a.jsonl", "\n".join(map(json.dumps, rows)).encode())

    def run(
        self,
        version: int | None,
        still_claimed: Callable[[], bool] = lambda: True,
        *,
        op_type: OpType = "index",
        by_processors: bool = False,
    ) -> IngestReport:
        """Run an ingest; a run of another version has its own progress."""
        request = IngestRequest("i", FIELD_MAP, op_type=op_type, max_body_bytes=1, max_in_flight=1, version=version)
        reading = Reading(self.files)
        sources = [Source("rows", tuple(find_objects(self.files, "s3://source/")))]
        ticks = count(0, CHECKPOINT_S)
        return Ingest(
            self.files,
            IndexSink(self.files, self.scripted.cluster, request),
            row_document_factory(request, reading) if by_processors else MappedDocumentFactory(request, reading),
            locations=Locations.of("s3://work", f"s3://work/{version}"),
            records=sum(1 for _ in read_rows(self.files, 0, sources[0])),
            still_claimed=still_claimed,
            clock=lambda: next(ticks),
        ).run(sources)

    def forget_checkpoints(self, version: int | None) -> None:
        """Leave the progress as an attempt leaves it that was killed before its first checkpoint."""
        uri = f"s3://work/{version}/progress.json"
        progress = msgspec.json.decode(content(self.files, uri), type=Progress)
        progress = msgspec.structs.replace(progress, done=False, settled=0, counts=IngestCounts())
        self.files.write(uri, msgspec.json.encode(progress))

    def replay(self, report: IngestReport) -> ReplayReport:
        """Send the dead letters of a report again."""
        return replay(report.dead_letters or "", self.files, self.scripted.cluster)


@pytest.fixture
def runs(tmp_path: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Runs of one pipeline."""
    monkeypatch.setattr(Cluster, "index", lambda cluster, name: Index(name, "u", (), {}, {}))  # noqa: ARG005 - any
    monkeypatch.setattr(Cluster, "refresh", lambda cluster, name: None)  # noqa: ARG005 - nothing to do
    return Runs(LocalFiles(tmp_path), scripted)


@pytest.mark.parametrize("by_processors", [False, True])
def test_a_late_run_overwrites_nothing(runs: Runs, *, by_processors: bool) -> None:
    """Its records are superseded where a newer run has written, and indexed elsewhere; its account adds up."""
    runs.put(a=2, b=2)
    assert runs.run(NEW, by_processors=by_processors).counts.indexed == 2
    runs.put(a=1, b=1, c=1)
    report = runs.run(OLD, by_processors=by_processors)
    counts = report.counts
    assert (counts.read, counts.indexed, counts.superseded, counts.dead_letters) == (3, 1, 2, 0)
    assert {name: document["n"] for name, document in runs.index.documents.items()} == {"a": 2, "b": 2, "c": 1}
    again = runs.run(OLD, by_processors=by_processors).counts
    assert (again.read, again.unchanged, again.superseded) == (3, 1, 2)


@pytest.mark.parametrize("lost_at", range(4))
def test_an_ingest_stops_when_its_claim_is_lost(runs: Runs, lost_at: int) -> None:
    """It asks before the first write and at each checkpoint; what it has not written by then is superseded."""
    runs.put(a=1, b=1, c=1, d=1)
    asked = iter([True] * lost_at)
    report = runs.run(OLD, lambda: next(asked, False))
    counts = report.counts
    assert (counts.read, counts.indexed, counts.superseded) == (4, lost_at, 4 - lost_at)
    assert counts.sources[0].read == 4
    assert list(runs.index.documents) == list("abcd")[:lost_at]
    assert report.remarks[0].startswith(f"{4 - lost_at} records superseded: a newer run writes their newer versions")
    bodies = len(runs.scripted.bodies)
    assert runs.run(OLD, lambda: False).counts == counts
    assert len(runs.scripted.bodies) == bodies


def test_a_stopped_ingest_keeps_its_dead_letters(runs: Runs) -> None:
    """The letters up to the stop are counted and stored."""
    runs.put(a=1, b=1, c=1)
    asked = iter([True, True])
    answer = runs.index.answer

    def refuses_b(body: bytes) -> Any:
        if b'"_id":"b"' not in body:
            return answer(body)
        return 200, {"errors": True, "items": [REFUSED]}

    runs.scripted.answer = refuses_b
    for _ in range(2):
        report = runs.run(OLD, lambda: next(asked, False))
        counts = report.counts
        assert (counts.read, counts.indexed, counts.dead_letters, counts.superseded) == (3, 1, 1, 1)
        assert [letter.line for letter in dead_letters(runs.files, report.dead_letters)] == [2]


def test_a_late_run_does_not_bring_back_what_a_newer_run_deleted(runs: Runs) -> None:
    """Not even after the index has forgotten the deletion: the older run asks for its claim and stops."""
    runs.put(a=1, b=1)
    claims = iter([True, False])
    answer, deletes = runs.index.answer, [item("b", version=NEW, op_type="delete")]

    def deleted_meanwhile(body: bytes) -> Any:
        answered = answer(body)
        if deletes:
            answer(deletes.pop().content)
            runs.index.forget()
        return answered

    runs.scripted.answer = deleted_meanwhile
    counts = runs.run(OLD, lambda: next(claims)).counts
    assert (counts.indexed, counts.superseded, list(runs.index.documents)) == (1, 1, ["a"])


def test_a_late_delete_is_superseded(scripted: Scripted) -> None:
    """The document of the newer run stays; its own deletion is repeated without harm."""
    index = VersionedIndex()
    scripted.answer = index.answer
    writer = BulkWriter(scripted.cluster, IngestRequest("i", {}))
    list(writer.write([item("a", 2, version=NEW)]))
    (late,) = writer.write([item("a", version=OLD, op_type="delete")])
    assert (len(late.superseded), list(index.documents)) == (1, ["a"])
    (first,) = writer.write([item("a", version=NEW, op_type="delete")])
    (again,) = writer.write([item("a", version=NEW, op_type="delete")])
    assert (first.indexed, again.unchanged, index.documents) == (1, 1, {})


@pytest.mark.parametrize(("version", "indexed", "unchanged", "fetches"), [(OLD, 3, 0, 0), (None, 0, 3, 1)])
def test_after_a_crash_documents_with_a_version_are_written_again(
    runs: Runs, version: int | None, indexed: int, unchanged: int, fetches: int
) -> None:
    """With the same version, and without a comparison with the index; other documents are compared."""
    runs.put(a=1, b=2, c=3)
    runs.run(version)
    before = dict(runs.index.versions)
    runs.forget_checkpoints(version)
    counts = runs.run(version).counts
    assert (counts.read, counts.indexed, counts.unchanged, counts.superseded) == (3, indexed, unchanged, 0)
    assert (runs.index.versions, runs.index.fetches) == (before, fetches)


def test_an_update_between_two_attempts_is_kept(runs: Runs) -> None:
    """It raised the version by one, so the document is superseded; the next run has a higher version."""
    runs.put(a=1)
    runs.run(OLD)
    runs.index.update("a", clicks=5)
    runs.forget_checkpoints(OLD)
    counts = runs.run(OLD).counts
    assert (counts.superseded, runs.index.documents["a"]) == (1, {"n": 1, "clicks": 5})
    assert runs.run(NEW).counts.indexed == 1
    assert runs.index.documents["a"] == {"n": 1}


def test_a_dead_letter_replaces_no_document_of_a_newer_run(runs: Runs) -> None:
    """A replay writes with the version of the run that wrote the letter; a superseded letter leaves the queue."""
    runs.put(a=1, b=1)
    runs.scripted.answer = lambda _: (
        200,
        {"errors": True, "items": [REFUSED]},
    )
    report = runs.run(OLD)
    assert report.counts.dead_letters == 2
    runs.scripted.answer = runs.index.answer
    runs.put(a=2)
    runs.run(NEW)
    replayed = runs.replay(report)
    assert (replayed.read, replayed.indexed, replayed.superseded, replayed.dead_letters) == (2, 1, 1, 0)
    assert runs.index.documents == {"a": {"n": 2}, "b": {"n": 1}}
    assert runs.index.versions == {"a": NEW, "b": OLD}
    assert not dead_letters(runs.files, report.dead_letters)


@given(st.lists(st.integers(-(10**10), 10**11), min_size=1), st.integers(0, (1 << 20) - 1))
def test_versions_grow_in_a_scope_whatever_the_clocks(times_s: list[int], updates: int) -> None:
    """A document that others have updated since the last run is still below the next version, and all fit 63 bits."""
    versions = [0]
    for at_s in times_s:
        versions.append(next_version(at_s, after=versions[-1]))
    assert all(later > earlier + updates for earlier, later in pairwise(versions))
    assert versions[-1] < 1 << 63


def test_the_newer_interval_wins_in_any_order_of_runs() -> None:
    """Ten thousand repeated runs of a day's partition stay below the version of the next day."""
    first = next_version(86_400.0)
    repeated = first
    for _ in range(10_000):
        repeated = next_version(86_400.0, after=repeated)
    assert first < repeated < next_version(2 * 86_400.0)


STEPS: list[tuple[str, int, Action]] = [
    ("a", 5, "index"), ("a", 5, "index"), ("a", 4, "index"), ("a", 4, "delete"), ("a", 6, "delete"),
    ("a", 5, "index"), ("a", 6, "index"), ("b", 3, "delete"), ("b", 2, "index"), ("b", 3, "index"),
    ("b", NEW, "index"), ("b", OLD, "index"),
]  # fmt: skip


def test_the_node_orders_writes_likewise(lab: Lab, index: str, scripted: Scripted) -> None:
    """The index of these tests gives the verdicts of a node, also after an `_update` of another writer."""
    cluster, memory = lab.cluster(), VersionedIndex()
    scripted.answer = memory.answer
    lab.node("PUT", index)

    def verdicts(of: Cluster) -> list[tuple[int, int, int]]:
        writer = BulkWriter(of, IngestRequest(index, {}, max_in_flight=1))
        entries = [item(name, version, version=version, op_type=op_type) for name, version, op_type in STEPS]
        written = [body for entry in entries for body in writer.write([entry])]
        return [(body.indexed, body.unchanged, len(body.superseded)) for body in written]

    assert verdicts(cluster) == verdicts(scripted.cluster)
    lab.node("POST", f"{index}/_update/b", {"doc": {"clicks": 1}})
    memory.update("b", clicks=1)
    cluster.refresh(index)
    assert lab.documents(index) == memory.documents
    stored = lab.node("GET", f"{index}/_doc/b")["_version"]
    assert stored == memory.versions["b"] == NEW + 1
    assert verdicts(cluster)[-2:] == verdicts(scripted.cluster)[-2:] == [(0, 0, 1), (0, 0, 1)]


def test_the_node_forgets_the_versions_of_deletions(lab: Lab, index: str) -> None:
    """Which is why an ingest asks for its claim."""
    cluster = lab.cluster()
    cluster.create_index(index, {"settings": {"index.gc_deletes": "0s", "index.number_of_shards": 1}})
    writer = BulkWriter(cluster, IngestRequest(index, {}))
    list(writer.write([item("a", 2, version=NEW)]))
    list(writer.write([item("a", version=NEW, op_type="delete")]))

    def is_forgotten() -> bool:
        cluster.refresh(index)
        (written,) = writer.write([item("a", 1, version=OLD)])
        return written.indexed == 1

    assert eventually(is_forgotten, "a late write that the index accepts")
