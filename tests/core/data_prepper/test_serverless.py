"""What is sent to an Amazon OpenSearch Serverless collection: no id without document_id, and never a refresh."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from opensearch_batch.core.data_prepper.check import check_data_prepper
from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.scan import WorkItem
from opensearch_batch.core.data_prepper.sink_settings import index_item_factory, index_sink
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.documents import Reading, row_position
from opensearch_batch.core.ingest.engine import Ingest, Locations
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import find_objects
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.rows import Source
from tests.core.data_prepper.data_prepper_files import line_of, with_options
from tests.scripted import Scripted
from tests.stored import dead_letters

AT = datetime(2026, 11, 21, tzinfo=UTC)
SERVERLESS = "aws: {serverless: true}"
ROWS = [{"_id": "own", "n": 1}, {"n": 2}]
CLOSED = {"status": 403, "error": {"type": "security_exception", "reason": "no"}}


class Collection:
    """A collection with one index, and rows on their way to it."""

    def __init__(self, folder: Path, scripted: Scripted) -> None:
        self._folder, self._scripted = folder, scripted
        self.files = LocalFiles(folder)
        self.path = folder / "books.yaml"

    def write(self, options: str) -> None:
        """Write the file with options of the sink, and the rows."""
        text = with_options("opensearch", options)
        begin, end = text.index("    - ml_inference"), text.index("  sink:")
        self.path.write_text(text[:begin].replace("  processor:\n", "") + text[end:])
        (self._folder / "rows.json").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))

    def run(self) -> IngestReport:
        """Bring the rows in."""
        compiled = CompiledPipeline.load(self.path, "books")
        work_item = WorkItem("work_item", "data", tuple(find_objects(self.files, "rows.json")), AT)
        options = compiled.pipeline.sinks[0][1]
        assert isinstance(options, OpenSearchSink)
        sink = index_sink(options, AT, self.files, self._scripted.cluster)
        items = index_item_factory(options, AT, sink.ensure_index, row_position)
        reading = Reading(self.files, compiled.row_reader())
        documents = compiled.documents(0, work_item, items, reading, records={})
        ingest = Ingest(self.files, sink, documents, locations=Locations.of("work", "work/own"))
        return ingest.run([Source("rows", work_item.objects)])

    def sent(self) -> list[Any]:
        """Return what was sent, body by body."""
        return [[json.loads(line) for line in body.splitlines()] for body in self._scripted.bodies]


@pytest.fixture
def collection(tmp_path: Path, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """Its index is there."""
    monkeypatch.setattr(Cluster, "index", lambda cluster, name: Index(name, "u", (), {}, {}))  # noqa: ARG005 - any
    return Collection(tmp_path, scripted)


def test_without_document_id_no_id_is_sent(collection: Collection) -> None:
    """The row's own neither, and nothing is refreshed behind it."""
    collection.write(SERVERLESS)
    counts = collection.run().counts
    assert (counts.indexed, counts.dead_letters) == (2, 0)
    assert collection.sent() == [[{"index": {}}, {"n": 1}, {"index": {}}, {"n": 2}]]


def test_routing_and_index_stand_there_alone(collection: Collection) -> None:
    """Each is a member of the action still."""
    collection.write(f"{SERVERLESS}\nrouting: r${{/n}}\nindex: books-${{/n}}\naction: create")
    collection.run()
    (lines,) = collection.sent()
    assert lines[::2] == [{"create": {"routing": f"r{n}", "_index": f"books-{n}"}} for n in (1, 2)]


def test_with_document_id_it_is_sent(collection: Collection) -> None:
    """Search collections take it."""
    collection.write(f"{SERVERLESS}\ndocument_id: id-${{/n}}")
    collection.run()
    assert [line["index"] for line in collection.sent()[0][::2]] == [{"_id": "id-1"}, {"_id": "id-2"}]


def test_another_cluster_gets_ids_and_is_refreshed(collection: Collection) -> None:
    """As ever."""
    collection.write("aws: {serverless: false}")
    collection.run()
    bulk, refresh = collection.sent()
    assert bulk[0] == {"index": {"_id": "own"}}
    assert len(bulk[2]["index"]["_id"]) > len("own")
    assert refresh == []


def test_after_an_interruption_what_has_no_id_is_written_again(collection: Collection, scripted: Scripted) -> None:
    """Nobody asks for it, as there is nothing to ask by."""
    collection.write(SERVERLESS)
    scripted.answers = [(200, {"errors": True, "items": [{"index": {"status": 201}}, {"index": CLOSED}]})]
    with pytest.raises(ConfigError, match="refuses writes"):
        collection.run()
    assert collection.run().counts.indexed == 2
    first, second = collection.sent()
    assert first == second


def test_an_action_that_needs_an_id_makes_dead_letters(collection: Collection) -> None:
    """Sent without one, it would have the whole body refused."""
    collection.write(f"{SERVERLESS}\nactions: [{{type: upsert, when: /n == 1}}, {{type: index}}]")
    report = collection.run()
    assert collection.sent() == [[{"index": {}}, {"n": 2}]]
    (letter,) = dead_letters(collection.files, report.dead_letters)
    assert (letter.line, letter.id) == (1, None)
    assert "action upsert needs an id" in letter.reason


def test_a_document_that_the_collection_refuses_has_no_id(collection: Collection, scripted: Scripted) -> None:
    """None that was never sent."""
    collection.write(SERVERLESS)
    wrong = {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "no number"}}
    scripted.answers = [(200, {"errors": True, "items": [{"index": {"status": 201}}, {"index": wrong}]})]
    letters = dead_letters(collection.files, collection.run().dead_letters)
    assert [(letter.line, letter.id) for letter in letters] == [(2, None)]


@pytest.mark.parametrize(
    ("options", "line", "remark"),
    [
        (SERVERLESS, 0, "aws.serverless: without document_id no id is sent"),
        ("document_id: ${/id}\n" + SERVERLESS, 0, "document_id: only search collections accept an id"),
        (f"{SERVERLESS}\naction: delete", 1, "action: delete needs an id"),
        (f"{SERVERLESS}\naction: delete\nactions: [{{type: upsert}}]", 2, "actions[0].type: upsert needs an id"),
    ],
)
def test_the_check_tells_it(collection: Collection, options: str, line: int, remark: str) -> None:
    """At the option."""
    collection.path.write_text(with_options("opensearch", options))
    told = check_data_prepper(collection.path).remarks
    place = f"{collection.path}:{line_of('opensearch') + line} books.sink[0].opensearch.{remark}"
    assert [each for each in told if each.startswith(place)], told


def test_the_check_says_nothing_of_other_clusters(collection: Collection) -> None:
    """They take ids."""
    collection.path.write_text(with_options("opensearch", "aws: {serverless: false}\naction: delete"))
    assert [each for each in check_data_prepper(collection.path).remarks if "sink[0]" in each] == []
