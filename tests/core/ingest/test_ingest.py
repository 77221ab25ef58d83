"""A request brings its sources into an index: each row is a document, a part of one, or a dead letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.types.counts import IngestCounts
from tests.core.lake import Lake
from tests.lab import Lab

BODY = {
    "settings": {"index": {"number_of_replicas": 0}},
    "mappings": {"dynamic": "strict", "properties": {"n": {"type": "integer"}, "text": {"type": "text"}}},
}
JOIN = {"_id": ["source[0].$.id", "source[1].$.key"], "n": "source[0].$.n", "text": "source[1].$.text"}


@pytest.fixture
def bucket(lab: Lab) -> str:
    """A bucket of the stack's own store."""
    return lab.new_bucket()


@pytest.fixture
def lake(lab: Lab, bucket: str, index: str) -> Lake:
    """Sources and requests of one index."""
    return Lake(lab, bucket, index)


def row(number: int, **more: Any) -> dict[str, Any]:
    """Return a row."""
    return {"id": number, "n": number, "text": f"text {number}", **more}


def document(number: int, **more: Any) -> dict[str, Any]:
    """Return the document of a row."""
    return {"n": number, "text": f"text {number}", **more}


def partners(lake: Lake) -> None:
    """Write two sources; each has an id that the other lacks."""
    lake.put("a.jsonl", row(1), row(2))
    lake.put("b.jsonl", {"key": "2", "text": "two"}, {"key": "3", "text": "three"})
    lake.field_map = JOIN


def test_an_index_is_made_from_the_body(lake: Lake) -> None:
    """Without a body it has dynamic mappings, which the report remarks; an existing index is checked."""
    lake.put("a.jsonl", row(1))
    assert lake.run(index_body=BODY).remarks == []
    assert lake.lab.node("GET", f"{lake.index}/_mapping")[lake.index]["mappings"] == BODY["mappings"]
    other = {"mappings": {"properties": {"n": {"type": "long"}, "more": {"type": "text"}}}}
    with pytest.raises(ConfigError, match=r"n.type is integer, not long; more is not mapped. Name another index"):
        lake.run(index_body=other)
    lake.lab.node("DELETE", lake.index)
    (remark,) = lake.run().remarks
    assert remark.startswith(f"index {lake.index} was absent and was created with dynamic mappings")


def test_a_source_that_is_missing_or_named_twice(lake: Lake) -> None:
    """Neither creates an index."""
    lake.put("a.jsonl", row(1))
    lake.field_map = JOIN
    for second, reason in (("b.jsonl", "no such object"), ("a.jsonl", "is in .* and in ")):
        with pytest.raises(ConfigError, match=reason):
            lake.run(data_source={"type": "s3", "source": [*lake.sources, f"s3://{lake.bucket}/{second}"]})
    assert lake.lab.cluster().index(lake.index) is None


def test_rows_with_the_same_id_are_one_document(lake: Lake) -> None:
    """Later rows are merged over earlier ones and counted."""
    lake.put("a.jsonl", row(1), row(2, text="old"), {"id": 2, "text": "new"}, {"id": 2, "n": 7})
    report = lake.run(on_missing="omit")
    assert lake.documents() == {"1": document(1), "2": {"n": 7, "text": "new"}}
    assert (report.counts.read, report.counts.indexed, report.counts.sources[0].duplicates) == (4, 4, 2)


def test_of_rows_with_the_same_id_create_keeps_the_first(lake: Lake) -> None:
    """Later rows are dead letters."""
    lake.put("a.jsonl", row(1), row(1, text="second"))
    report = lake.run(op_type="create")
    assert lake.documents() == {"1": document(1)}
    (letter,) = lake.letters(report)
    assert (letter.line, letter.reason, letter.late) == (
        2,
        "an earlier row has id '1'; op_type create keeps the first row",
        True,
    )


@pytest.mark.parametrize(
    ("op_type", "kept", "indexed", "unchanged"),
    [
        ("index", document(1), 2, 0),
        ("create", {"n": 0, "more": "kept"}, 1, 1),
        ("upsert", document(1, more="kept"), 2, 0),
    ],
)
def test_a_document_that_was_there_before(
    lake: Lake, op_type: str, kept: dict[str, Any], indexed: int, unchanged: int
) -> None:
    """`index` replaces it, `create` keeps it, `upsert` merges into it."""
    lake.put("a.jsonl", row(1), row(2))
    lake.lab.node("PUT", f"{lake.index}/_doc/1", {"n": 0, "more": "kept"})
    counts = lake.run(op_type=op_type).counts
    assert lake.documents() == {"1": kept, "2": document(2)}
    assert (counts.indexed, counts.unchanged) == (indexed, unchanged)


def test_ids_that_a_source_lacks_are_indexed_in_part(lake: Lake) -> None:
    """Fields of the other source are absent, not null, and are counted."""
    partners(lake)
    report = lake.run()
    assert lake.documents() == {"1": {"n": 1}, "2": {"n": 2, "text": "two"}, "3": {"text": "three"}}
    counts = report.counts
    assert (counts.read, counts.indexed, counts.joined, counts.unmatched, counts.nulls) == (4, 3, 1, 2, 0)
    assert [source.unmatched for source in counts.sources] == [1, 1]


def test_ids_that_a_source_lacks_are_dead_letters(lake: Lake) -> None:
    """Each dead letter names the source without the id."""
    partners(lake)
    report = lake.run(on_unmatched="dead_letter")
    assert lake.documents() == {"2": {"n": 2, "text": "two"}}
    a, b = lake.sources
    reasons = {letter.source: letter.reason for letter in lake.letters(report)}
    assert reasons == {a: f"no row with id '1' in source[1] ({b})", b: f"no row with id '3' in source[0] ({a})"}


def test_an_id_that_a_source_lacks_refuses_the_request(lake: Lake) -> None:
    """Nothing is written; if the sources match, the request passes."""
    partners(lake)
    with pytest.raises(ConfigError, match=r"id '\d' \(.* line \d\) has no row in source\[\d\].*; nothing was written"):
        lake.run(on_unmatched="fail", index_body=BODY)
    assert lake.operations() == 0
    lake.put("a.jsonl", row(3), row(2))
    assert lake.run(on_unmatched="fail", index_body=BODY).counts.indexed == 2


def test_documents_are_routed_and_go_through_a_pipeline(lake: Lake) -> None:
    """A row without the routing value is a dead letter."""
    lake.lab.node("PUT", f"_ingest/pipeline/{lake.index}", {"processors": [{"set": {"field": "seen", "value": True}}]})
    lake.put("a.jsonl", row(1, place="north"), row(2))
    report = lake.run(routing="$.place", ingest_pipeline=lake.index)
    found = lake.lab.node("GET", f"{lake.index}/_doc/1?routing=north")
    assert (found["_routing"], found["_source"]) == ("north", document(1, seen=True))
    assert [letter.reason for letter in lake.letters(report)] == ["the routing value is missing"]
    lake.lab.node("DELETE", f"_ingest/pipeline/{lake.index}")


def test_what_an_ingest_pipeline_drops_is_filtered(lake: Lake) -> None:
    """The rows are counted as filtered, and the same request again writes nothing."""
    drop = {"processors": [{"drop": {"if": "ctx.n == 2"}}]}
    lake.lab.node("PUT", f"_ingest/pipeline/{lake.index}", drop)
    lake.put("a.jsonl", row(1), row(2), row(3))
    counts = lake.run(ingest_pipeline=lake.index).counts
    assert (counts.read, counts.indexed, counts.unchanged, counts.filtered) == (3, 2, 0, 1)
    assert sorted(lake.documents()) == ["1", "3"]
    again = lake.run(ingest_pipeline=lake.index).counts
    assert (again.indexed, again.unchanged, again.filtered) == (0, 2, 1)
    lake.lab.node("DELETE", f"_ingest/pipeline/{lake.index}")


def test_the_same_request_again_writes_nothing(lake: Lake) -> None:
    """All rows are counted as unchanged except the dead letters."""
    lake.put("a.jsonl", row(1), row(2, n="no number"), b"", b"{oops", row(3))
    first, operations = lake.run(index_body=BODY), lake.operations()
    again = lake.run(index_body=BODY)
    assert (first.counts.indexed, first.counts.unchanged, first.counts.dead_letters) == (2, 0, 2)
    assert (again.counts.indexed, again.counts.unchanged, again.counts.dead_letters) == (0, 2, 2)
    assert (again.state, again.dead_letters) == ("DONE_WITH_DEAD_LETTERS", first.dead_letters)
    assert lake.operations() == operations


@pytest.mark.parametrize("change", ["map", "source", "index", "policy", "force"])
def test_what_decides_the_documents_decides_whether_they_are_written(lake: Lake, change: str) -> None:
    """Other bytes, another map, index or policy write everything again, with the same ids."""
    lake.put("a.jsonl", row(1), row(2))
    lake.run(index_body=BODY)
    more: dict[str, Any] = {}
    if change == "map":
        lake.field_map = {"_id": "$.id", "n": "$.n"}
    elif change == "source":
        lake.put("a.jsonl", row(1), row(2, text="changed"))
    elif change == "index":
        lake.lab.node("DELETE", lake.index)
    elif change == "policy":
        more = {"on_missing": "omit"}
    assert lake.run(index_body=BODY, force=change == "force", **more).counts.indexed == 2
    assert len(lake.documents()) == 2


def test_sizes_do_not_decide(lake: Lake) -> None:
    """Other bulk sizes and load settings do not write anything again."""
    lake.put("a.jsonl", row(1), row(2))
    lake.run()
    counts = lake.run(max_body_bytes=100, max_in_flight=1, compress=True, load={"refresh_interval": "-1"}).counts
    assert (counts.indexed, counts.unchanged) == (0, 2)


def test_load_settings_are_given_back(lake: Lake) -> None:
    """Defaults are restored, too."""
    lake.put("a.jsonl", row(1))
    lake.run(load={"refresh_interval": "-1", "number_of_replicas": 0})
    settings = lake.lab.node("GET", f"{lake.index}/_settings")[lake.index]["settings"]["index"]
    assert (settings.get("refresh_interval"), settings["number_of_replicas"]) == (None, "1")
    assert lake.documents() == {"1": document(1)}


def test_progress_is_reported(lake: Lake) -> None:
    """Counts and bytes grow with every body and end as in the report."""
    rows = [row(number) for number in range(30)]
    lake.put("a.jsonl", *rows)
    told = list[tuple[IngestCounts, int]]()
    report = lake.run(max_body_bytes=300, on_progress=lambda counts, size: told.append((counts, size)))
    assert len(told) > 3
    assert told[-1][0] == report.counts
    assert [counts.read for counts, _ in told] == sorted({counts.read for counts, _ in told})
    (found,) = lake.lab.objects.list(lake.sources[0])
    assert told[-1][1] == found.size_bytes - len(rows) + 1


def test_requests_share_a_prefix_for_dead_letters(lake: Lake) -> None:
    """Each request clears and counts only its own dead letters, and no other file."""
    shared = f"s3://{lake.bucket}/letters"
    lake.lab.objects.write(f"{shared}/mine.jsonl", b"{}")
    lake.put("a.jsonl", row(1), b"{one")
    one = lake.run(dead_letters=shared)
    lake.sources.clear()
    lake.put("b.jsonl", row(2), b"{two")
    other = lake.run(dead_letters=f"{shared}/")
    assert [letter.record for report in (one, other) for letter in lake.letters(report)] == ["{one", "{two"]
    assert lake.lab.objects.read(f"{shared}/mine.jsonl") is not None
    assert other.dead_letters is not None
    assert other.dead_letters.startswith(f"{shared}/")


def test_what_waits_for_partners_goes_to_disk(lake: Lake, tmp_path: Path) -> None:
    """The documents are the same, and the folder is empty afterwards."""
    numbers = range(50)
    lake.put("a.jsonl", *(row(number) for number in numbers))
    lake.put("b.jsonl", *({"key": number, "text": f"text {number}"} for number in reversed(numbers)))
    lake.field_map = JOIN
    counts = lake.run(memory_bytes=2_000, folder=tmp_path).counts
    assert (counts.indexed, counts.joined, counts.unmatched) == (50, 50, 0)
    assert lake.documents() == {str(number): document(number) for number in numbers}
    assert list(tmp_path.iterdir()) == []


def test_an_empty_source_is_no_error(lake: Lake) -> None:
    """Its counts are zero."""
    lake.put("a.jsonl", b"")
    report = lake.run(index_body=BODY)
    assert (report.state, report.counts.read, report.counts.indexed, report.dead_letters) == ("DONE", 0, 0, None)
