"""Conformance of sinks: every sink passes the same tests through the engine, without a stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.formats.csv import CsvEncoding
from opensearch_batch.core.formats.reading import read_rows
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.engine import Ingest, Locations
from opensearch_batch.core.ingest.event_documents import EventDocumentFactory, EventOptions
from opensearch_batch.core.ingest.event_items import IndexItemFactory, ItemFactory, ObjectItemFactory, Shape
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.base import Sink
from opensearch_batch.core.ingest.sinks.opensearch import IndexSink
from opensearch_batch.core.ingest.sinks.s3 import ObjectSettings, ObjectSink
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import find_objects
from opensearch_batch.core.transform.expressions.format_string import compile_format
from opensearch_batch.core.transform.flow import Flow
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.rows import Blank, Rejected, Row, Source
from tests.scripted import Answer, Scripted
from tests.stored import content, dead_letters

ROWS = [{"_id": f"d{n}", "n": n} for n in range(5)]
WRONG = {"_id": "wrong", "n": 9, "strange": 1}


class Target(Protocol):
    """One sink and what it wrote; it refuses the row `WRONG`."""

    sink: Sink
    items: ItemFactory

    def numbers(self) -> list[int]:
        """Return `n` of everything that is written, in order."""


class IndexTarget:
    """An index in memory behind an HTTP server."""

    def __init__(self, files: LocalFiles, scripted: Scripted) -> None:
        self.sink: Sink = IndexSink(files, scripted.cluster, IngestRequest("books", {}, max_body_bytes=80))
        self.items: ItemFactory = IndexItemFactory()
        self._documents: dict[str, Any] = {}
        scripted.answer = self._answer

    def _answer(self, body: bytes) -> Answer:
        lines = [json.loads(line) for line in body.splitlines()]
        if lines and "docs" in lines[0]:
            names = [each["_id"] for each in lines[0]["docs"]]
            found = [{"_id": name, "_source": self._documents.get(name)} for name in names]
            return 200, {"docs": [each if each["_source"] else {"_id": each["_id"]} for each in found]}
        return 200, {
            "errors": True,
            "items": [self._write(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)],
        }

    def _write(self, action: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
        if "strange" in document:
            return {"index": {"status": 400, "error": {"type": "strict", "reason": "no field strange"}}}
        self._documents[action["index"]["_id"]] = document
        return {"index": {"status": 201}}

    def numbers(self) -> list[int]:
        """Return `n` of all documents."""
        return sorted(document["n"] for document in self._documents.values())


class ObjectTarget:
    """Objects of CSV rows with one column."""

    def __init__(self, files: LocalFiles) -> None:
        settings = ObjectSettings(CsvEncoding(header=("_id", "n")), event_count=2)
        self.sink: Sink = ObjectSink(files, settings, name="s3://out/")
        self.items: ItemFactory = ObjectItemFactory(
            compile_format("out"), compile_format("rows"), default_bucket=None, shape=Shape()
        )
        self._files = files

    def numbers(self) -> list[int]:
        """Return `n` of all rows of all objects."""
        texts = [self._files.read(item.uri) for item in self._files.list("s3://out/")]
        rows = [line for text in texts if text is not None for line in text.content.decode().splitlines()[1:]]
        return sorted(int(row.partition(",")[2]) for row in rows)


class Ingestion:
    """Ingests one source into a target; with `fails_at`, the next attempt loses its store at that row."""

    def __init__(self, target: Target, files: LocalFiles) -> None:
        self.target, self.files = target, files
        self.fails_at: int | None = None

    def put(self, *rows: dict[str, Any] | str) -> None:
        """Write the source."""
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        self.files.write("s3://source/a.jsonl", "\n".join(lines).encode())

    def run(self, *, force: bool = False) -> IngestReport:
        """Run the ingest."""
        reading = Reading(self.files, self._read)
        documents = EventDocumentFactory(
            lambda: Flow([]), EventOptions(self.target.items), identity=[], reading=reading
        )
        ingest = Ingest(self.files, self.target.sink, documents, locations=Locations.of("s3://work", "s3://work/own"))
        return ingest.run([Source("rows", tuple(find_objects(self.files, "s3://source/")))], force=force)

    def _read(self, objects: Any, number: int, source: Source) -> Iterator[Row | Blank | Rejected]:
        for at, row in enumerate(read_rows(objects, number, source)):
            if at == self.fails_at:
                self.fails_at = None
                raise RetriableError("the store is away")
            yield row

    def letters(self, report: IngestReport) -> list[tuple[int, str]]:
        """Return line and reason of the report's dead letters."""
        return [(letter.line, letter.reason) for letter in dead_letters(self.files, report.dead_letters)]


@pytest.fixture(params=["index", "objects"])
def ingestion(
    request: pytest.FixtureRequest, tmp_path: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> Ingestion:
    """An ingest into each sink."""
    monkeypatch.setattr(Cluster, "index", lambda cluster, name: Index(name, "u", (), {}, {}))  # noqa: ARG005 - any
    files = LocalFiles(tmp_path)
    target: Target = IndexTarget(files, scripted) if request.param == "index" else ObjectTarget(files)
    return Ingestion(target, files)


def test_every_row_has_a_verdict(ingestion: Ingestion) -> None:
    """A row is written, refused by the sink, rejected before it, or blank."""
    ingestion.put(ROWS[0], WRONG, "no row", "", ROWS[1])
    report = ingestion.run()
    counts = report.counts
    assert (counts.read, counts.indexed, counts.dead_letters, counts.blank) == (4, 2, 2, 1)
    assert (report.index, report.state) == (ingestion.target.sink.name, "DONE_WITH_DEAD_LETTERS")
    assert ingestion.target.numbers() == [0, 1]
    (rejected, _), (refused, reason) = sorted(ingestion.letters(report), reverse=True)
    assert (rejected, refused) == (3, 2)
    assert "strange" in reason


def test_repeated_work_writes_nothing(ingestion: Ingestion) -> None:
    """Its counts say that everything is unchanged but the dead letters."""
    ingestion.put(*ROWS, WRONG)
    first, again = ingestion.run(), ingestion.run()
    assert (first.counts.indexed, first.counts.unchanged, first.counts.dead_letters) == (5, 0, 1)
    assert (again.counts.indexed, again.counts.unchanged, again.counts.dead_letters) == (0, 5, 1)
    assert (again.state, again.dead_letters) == (first.state, first.dead_letters)


def test_forced_work_writes_the_same_again(ingestion: Ingestion) -> None:
    """Nothing is there twice."""
    ingestion.put(*ROWS)
    ingestion.run()
    assert ingestion.run(force=True).counts.indexed == 5
    assert ingestion.target.numbers() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("at", [0, 1, 3, 5])
def test_an_interrupted_attempt_is_completed_by_the_next(ingestion: Ingestion, at: int) -> None:
    """Each row is written once and counted once, dead letters too."""
    ingestion.put(ROWS[0], WRONG, *ROWS[1:])
    ingestion.fails_at = at
    with pytest.raises(RetriableError, match="the store is away"):
        ingestion.run()
    report = ingestion.run()
    assert (report.counts.read, report.counts.indexed, report.counts.dead_letters) == (6, 5, 1)
    assert [line for line, _ in ingestion.letters(report)] == [2]
    assert ingestion.target.numbers() == [0, 1, 2, 3, 4]


def test_what_an_interrupted_attempt_settled_is_skipped_by_a_sink_that_can_resume(ingestion: Ingestion) -> None:
    """Its progress counts the settled entries; a sink that cannot resume records none before the end."""
    ingestion.put(*ROWS)
    ingestion.fails_at = 3
    with pytest.raises(RetriableError, match="the store is away"):
        ingestion.run()
    settled = msgspec.json.decode(content(ingestion.files, "s3://work/own/progress.json"))["settled"]
    assert settled == (3 if ingestion.target.sink.can_resume else 0)


def test_other_bytes_are_other_work(ingestion: Ingestion) -> None:
    """The changed source is read and written whole."""
    ingestion.put(*ROWS[:2])
    ingestion.run()
    ingestion.put(*ROWS)
    assert ingestion.run().counts.indexed == 5
