"""Faults between the claim of a scan and the commit of its run: nothing is lost, nothing is claimed or paid twice."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.scan import ScanHead, WorkItem, scan_head
from opensearch_batch.core.data_prepper.scan_account import WorkItemReport, commit
from opensearch_batch.core.data_prepper.scan_prepare import Scan, ScanCounts, ScanManifest
from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage.json_document import save
from tests.core.memory_objects import LossyObjects

AT = datetime(2026, 11, 21, tzinfo=UTC)
PIPELINE = """
extension:
  opensearch_batch: {work_prefix: s3://books/work}
books:
  source:
    s3:
      codec: {ndjson: {}}
      aws: {region: us-east-1}
      scan:
        buckets:
          - bucket: {name: books, data_selection: data_only, filter: {include_prefix: [in/]}}
  sink:
    - opensearch: {hosts: ["http://127.0.0.1:9200"], index: books}
"""


class RacedObjects(LossyObjects):
    """Another scan runs between the read and the write of a head that is absent."""

    other: Scan | None = None

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent, after the other scan."""
        other, self.other = self.other, None
        if other is not None:
            self.raced, _ = other.plan()
        return super().create(uri, content)


class Pipeline:
    """Scans and runs of one pipeline."""

    def __init__(self, folder: Path) -> None:
        path = folder / "books.yaml"
        path.write_text(PIPELINE)
        self.objects, self.compiled = RacedObjects(), CompiledPipeline.load(path, "books")
        self.head = scan_head(self.objects, self.compiled.layout)
        self.running = set[str]()

    def put(self, name: str, content: bytes = b"{}\n") -> None:
        """Write an object of the source."""
        self.objects.write(f"s3://books/in/{name}", content)

    def scan(self, run: str) -> Scan:
        """Begin a scan of a run."""
        self.running.add(run)
        return Scan(
            self.compiled,
            self.objects,
            run=run,
            at=AT,
            processing_digest="now",
            is_over=lambda other: other not in self.running,
        )

    def ingest(self, run: str, work_items: list[WorkItem]) -> ScanManifest:
        """Write what the ingests of a run leave after their documents; return the manifest to commit."""
        for work_item in work_items:
            report = WorkItemReport(AT, "now", read=list(work_item.objects))
            save(self.objects, self.compiled.layout.ingest_report(run, work_item.id), report)
        return ScanManifest("books", run, AT, ScanCounts(), work_items)

    def commit(self, manifest: ScanManifest) -> list[str]:
        """Commit a run; return the ids of its work items that are done."""
        return sorted(commit(self.objects, self.compiled.layout, manifest).done)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A pipeline with one object."""
    made = Pipeline(tmp_path)
    made.put("a")
    return made


def test_two_scans_at_once_share_the_objects(pipeline: Pipeline) -> None:
    """The one whose write comes last reads the claims of the other one; each commits its own."""
    pipeline.objects.other, last = pipeline.scan("first"), pipeline.scan("last")
    assert last.plan()[0] == []
    (first,) = pipeline.objects.raced
    assert pipeline.head.load().scans == 2
    pipeline.put("b")
    (second,), _ = last.plan()
    assert [item.uri for item in second.objects] == ["s3://books/in/b"]
    assert pipeline.commit(pipeline.ingest("last", [second])) == [second.id]
    assert pipeline.head.load().claimed("first") == [first]
    assert pipeline.commit(pipeline.ingest("first", [first])) == [first.id]
    pipeline.running.clear()
    assert pipeline.scan("next").plan()[0] == []


def test_a_lost_response_of_a_claim_is_recognized(pipeline: Pipeline) -> None:
    """The scan counts once, for `scheduling.count`."""
    pipeline.objects.lost = 1
    (work_item,), _ = pipeline.scan("run").plan()
    head = pipeline.head.load()
    assert (head.scans, head.claimed("run")) == (1, [work_item])


def test_a_lost_response_of_a_commit_is_recognized(pipeline: Pipeline) -> None:
    """The work item is done, and the head was written once."""
    work_items, _ = pipeline.scan("run").plan()
    manifest = pipeline.ingest("run", work_items)
    number = pipeline.head.load().number
    pipeline.objects.lost = 1
    assert pipeline.commit(manifest) == [work_items[0].id]
    head = pipeline.head.load()
    assert (head.number, head.claimed("run")) == (number + 1, [])


def test_a_run_killed_between_its_documents_and_its_commit_is_repeated(pipeline: Pipeline) -> None:
    """The next scan hands out the same work item, so its documents have the same ids, and an index by date its name."""
    work_items, _ = pipeline.scan("killed").plan()
    pipeline.ingest("killed", work_items)
    assert pipeline.scan("beside").plan()[0] == []
    pipeline.running.discard("killed")
    again, _ = pipeline.scan("next").plan()
    assert again == work_items
    assert pipeline.commit(pipeline.ingest("next", again)) == [work_items[0].id]
    pipeline.running.clear()
    assert pipeline.scan("last").plan()[0] == []


def test_a_damaged_head_is_named(pipeline: Pipeline) -> None:
    """It is not taken for that of a new pipeline, whose jobs would be paid for."""
    pipeline.scan("run").plan()
    pipeline.objects.write(pipeline.compiled.layout.scan_head(), b"{")
    with pytest.raises(
        FatalError, match=r"^s3://books/work/books/scan/head\.json: damaged, .*restore its previous version"
    ):
        pipeline.scan("next").plan()


def test_an_absent_head_is_that_of_a_new_pipeline(pipeline: Pipeline) -> None:
    """A dry run writes none."""
    assert pipeline.head.load() == ScanHead()
    assert len(pipeline.scan("run").plan(writes=False)[0]) == 1
    assert pipeline.head.load() == ScanHead()
