"""A replay sends dead letters again: what succeeds leaves the queue, what fails stays with its new reason."""

from __future__ import annotations

import msgspec
import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.account import REPLAY_FILE
from opensearch_batch.core.ingest.replay import ReplayReport, replay
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.storage.dead_letters import DeadLetters, dead_letter, list_parts
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.services.registry import row_errors
from tests.core.lake import Lake
from tests.lab import Lab

STRICT = {"mappings": {"dynamic": "strict", "properties": {"n": {"type": "integer"}, "text": {"type": "text"}}}}


@pytest.fixture
def lake(lab: Lab, index: str) -> Lake:
    """Sources and requests."""
    return Lake(lab, lab.new_bucket(), index)


@pytest.fixture
def report(lake: Lake) -> IngestReport:
    """A request of which two rows became dead letters: no JSON, and a field that the index does not know."""
    rows = [{"id": n, "n": n, "text": f"text {n}"} for n in range(4)]
    lake.put("a.jsonl", *rows[:2], {**rows[2], "more": "x"}, rows[3], b'{"id":4,"n":4')
    lake.field_map = {"_id": "$.id", "n": "$.n", "text": "$.text", "more": "$.more"}
    return ingested(lake)


def ingested(lake: Lake) -> IngestReport:
    """Run the request."""
    return lake.run(index_body=STRICT, on_missing="omit")


def letters(lake: Lake, report: IngestReport) -> list[tuple[int, str, int]]:
    """Return the line, the start of the reason and the status of each letter."""
    return [(letter.line, letter.reason.partition(":")[0], letter.status) for letter in lake.letters(report)]


def replayed(lake: Lake, report: IngestReport, request: IngestRequest | None = None) -> ReplayReport:
    """Replay the queue of a report."""
    return replay(report.dead_letters or "", lake.objects, lake.lab.cluster(), request=request, row_errors=row_errors())


def test_what_succeeds_leaves_the_queue(lake: Lake, report: IngestReport) -> None:
    """After the mapping is mended one letter becomes its document; the other stays with its reason."""
    operations = lake.operations()
    lake.lab.node("PUT", f"{lake.index}/_mapping", {"properties": {"more": {"type": "text"}}})
    counts = replayed(lake, report)
    assert (counts.read, counts.indexed, counts.unchanged, counts.dead_letters) == (2, 1, 0, 1)
    assert lake.documents()["2"] == {"n": 2, "text": "text 2", "more": "x"}
    assert letters(lake, report) == [(5, "not JSON", 0)]
    assert lake.operations() == operations + 1
    again = ingested(lake)
    assert (again.counts.indexed, again.counts.unchanged, again.counts.dead_letters) == (0, 4, 1)
    assert lake.operations() == operations + 1


def test_what_fails_stays_with_its_new_reason(lake: Lake, report: IngestReport) -> None:
    """A replay before anything is mended changes nothing but the reason."""
    lake.lab.node("PUT", f"{lake.index}/_mapping", {"properties": {"more": {"type": "integer"}}})
    assert letters(lake, report)[0][1:] == ("refused by the index (400)", 400)
    before = {letter.line: letter.reason for letter in lake.letters(report)}
    assert replayed(lake, report).dead_letters == 2
    after = {letter.line: letter.reason for letter in lake.letters(report)}
    assert "strict_dynamic_mapping_exception" in before[3]
    assert "failed to parse field [more]" in after[3]
    assert before[5] == after[5]


def test_a_row_mended_by_hand_counts(lake: Lake, report: IngestReport) -> None:
    """The letter's own record is what is mapped; the source is not read again."""
    (part,) = list_parts(lake.objects, report.dead_letters or "")
    mended = [msgspec.structs.replace(letter, record='{"id":9,"n":9}') for letter in lake.letters(report)[1:]]
    lake.objects.write(part, b"\n".join(msgspec.json.encode(letter) for letter in mended))
    lake.lab.objects.delete(lake.sources[0])
    counts = replayed(lake, report)
    assert (counts.read, counts.indexed, counts.dead_letters) == (1, 1, 0)
    assert lake.documents()["9"] == {"n": 9}
    assert list_parts(lake.objects, report.dead_letters or "") == []
    with pytest.raises(ConfigError, match="no dead letters there"):
        replayed(lake, report)


def test_a_mended_map_counts(lake: Lake, report: IngestReport) -> None:
    """It stands in for the request that lies beside the letters."""
    mended = IngestRequest(lake.index, {"_id": "$.id", "n": "$.n"})
    counts = replayed(lake, report, mended)
    assert (counts.indexed, counts.dead_letters) == (1, 1)
    assert lake.documents()["2"] == {"n": 2}


def test_a_letter_brings_the_rows_of_its_other_sources(lake: Lake) -> None:
    """They were joined when the letter was written."""
    lake.put("a.jsonl", {"id": 1, "n": 1}, {"id": 2, "n": "two"})
    lake.put("b.jsonl", {"id": "2", "text": "second"}, {"id": "1", "text": "first"})
    paths = {"n": "source[0].$.n", "text": "source[1].$.text"}
    lake.field_map = {"_id": ["source[0].$.id", "source[1].$.id"], **paths}
    report = ingested(lake)
    assert lake.documents() == {"1": {"n": 1, "text": "first"}}
    lake.lab.node("PUT", f"{lake.index}/_mapping", {"properties": {"words": {"type": "text"}}})
    mended = IngestRequest(lake.index, {**lake.field_map, "words": "source[0].$.n", "n": "source[0].$.none"})
    counts = replayed(lake, report, mended)
    assert (counts.read, counts.indexed) == (1, 1)
    assert lake.documents()["2"] == {"words": "two", "text": "second", "n": None}


def test_a_late_row_is_merged_by_a_replay_too(lake: Lake) -> None:
    """It does not replace the document that the earlier row made."""
    lake.put("a.jsonl", {"id": 1, "n": 1, "text": "first"}, {"id": 1, "n": "two"}, {"id": 1, "n": 3})
    lake.field_map = {"_id": "$.id", "n": "$.n", "text": "$.text"}
    report = ingested(lake)
    assert [letter.late for letter in lake.letters(report)] == [True]
    (part,) = list_parts(lake.objects, report.dead_letters or "")
    (letter,) = lake.letters(report)
    mended = msgspec.structs.replace(letter, record='{"id":1,"n":2}')
    lake.objects.write(part, msgspec.json.encode(mended))
    assert replayed(lake, report).indexed == 1
    assert lake.documents() == {"1": {"n": 2, "text": "first"}}


def test_what_cannot_be_replayed_is_named(lake: Lake, report: IngestReport) -> None:
    """No such queue, letters of another stage, a queue without its request, an index that is gone."""
    nowhere = f"s3://{lake.bucket}/nowhere/"
    with pytest.raises(ConfigError, match=f"{nowhere}: no dead letters there; give the location that a report named"):
        replay(nowhere, lake.objects, lake.lab.cluster(), row_errors=row_errors())
    with DeadLetters(lake.objects, nowhere) as dead:
        dead.add(dead_letter(b"{}", stage="prepare", reason="too long", source="s3://docs/a.jsonl", line=1))
        dead.write()
    with pytest.raises(ConfigError, match=r"letters of prepare: correct the letters, and start a run of the pipeline"):
        replay(nowhere, lake.objects, lake.lab.cluster(), row_errors=row_errors())
    lake.lab.node("DELETE", lake.index)
    with pytest.raises(ConfigError, match=f"no index '{lake.index}'; create it, then replay"):
        replayed(lake, report)
    lake.objects.delete(f"{report.dead_letters}{REPLAY_FILE}")
    with pytest.raises(
        ConfigError, match=r"request.json was deleted: instead of a replay, run the request again with force"
    ):
        replayed(lake, report)


def test_a_replay_that_breaks_off_loses_no_letter(lake: Lake, report: IngestReport) -> None:
    """A part is replaced only after all its letters have verdicts; the next replay sends the same ids."""
    before = lake.letters(report)
    assert [letter.line for letter in before] == [3, 5]
    lake.lab.node("PUT", f"{lake.index}/_settings", {"index.blocks.write": True})
    with pytest.raises(ConfigError, match="refuses writes"):
        replayed(lake, report)
    assert lake.letters(report) == before
    lake.lab.node("PUT", f"{lake.index}/_settings", {"index.blocks.write": None})
    lake.lab.node("PUT", f"{lake.index}/_mapping", {"properties": {"more": {"type": "text"}}})
    assert (replayed(lake, report).indexed, letters(lake, report)) == (1, [(5, "not JSON", 0)])


def test_progress_is_told_part_by_part(lake: Lake, report: IngestReport) -> None:
    """The last word is the report."""
    (letter, *_) = lake.letters(report)
    more = msgspec.structs.replace(letter, record='{"id":7,"n":7}')
    lake.objects.write(f"{report.dead_letters}zzzz.jsonl", msgspec.json.encode(more))
    told = list[ReplayReport]()
    last = replay(
        report.dead_letters or "", lake.objects, lake.lab.cluster(), on_progress=told.append, row_errors=row_errors()
    )
    assert [(each.read, each.indexed) for each in told] == [(2, 0), (3, 1)]
    assert told[-1] == last
