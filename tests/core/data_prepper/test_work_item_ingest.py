"""Rows of a work item go where their routes lead, each exactly once, and what goes nowhere is counted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.replay import replay
from opensearch_batch.core.ingest.sinks.index_target import refuse_plain_vectors
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.services.registry import row_errors
from tests.core.data_prepper.work_items import PipelineLab
from tests.lab import Lab
from tests.stored import present
from tests.waiting import WAIT_S

VECTOR = [0.25 + n for n in range(16)]

# Joins the output rows of another job with their records by `_id`.
_ENRICH = """- s3_enrich:
    bucket: {{name: {bucket}, filter: {{include_prefix: records/}}}}
    codec: {{ndjson: {{extension: jsonl}}}}
    aws: {{region: us-east-1}}
    s3_key_path: s3/key
    s3_object_name_pattern: '^(.*)\\.jsonl\\.out$'
    correlation_keys: [_id]
    keys_to_merge: [{merged}]
    tags_on_failure: [lonely]
"""


@pytest.fixture
def work_items(lab: Lab, tmp_path: Path) -> PipelineLab:
    """A pipeline of the test's own."""
    return PipelineLab(lab, tmp_path)


@pytest.fixture
def other(lab: Lab, index: str) -> Iterator[str]:
    """Another index, gone after the test."""
    name = f"{index}-other"
    yield name
    lab.http.delete(f"{lab.stack.addresses.opensearch}/{name}", timeout=WAIT_S)


def test_rows_go_to_the_sinks_of_their_routes_and_the_rest_is_counted(
    work_items: PipelineLab, index: str, other: str
) -> None:
    """Each row is read once for each sink, written where a route leads, and unrouted where none does."""
    work_items.write(
        work_items.opensearch(f"index: {index}\nroutes: [red, all-colours]"),
        work_items.opensearch(f"index: {other}\nroutes: [blue]"),
        routes='- red: /colour == "red"\n- blue: /colour == "blue"\n- all-colours: /colour in {"red", "blue"}',
    )
    colours = ["red", "blue", "green", "blue"]
    work_items.put("in/a.json", *({"_id": str(n), "colour": colour} for n, colour in enumerate(colours)))
    first, second = (report.counts for report in work_items.run())
    assert (first.read, first.indexed, first.unrouted, first.elsewhere) == (4, 3, 1, 0)
    assert (second.read, second.indexed, second.unrouted, second.elsewhere) == (4, 2, 1, 1)
    assert work_items.documents(index) == {str(n): {"colour": colours[n]} for n in (0, 1, 3)}
    assert work_items.documents(other) == {str(n): {"colour": colours[n]} for n in (1, 3)}


def test_what_is_done_is_not_read_again_until_the_pipeline_changes(work_items: PipelineLab, index: str) -> None:
    """A second scan finds nothing to do; other processors do the same objects anew."""
    work_items.write(work_items.opensearch(f"index: {index}"))
    work_items.put("in/a.json", {"_id": "1", "n": 1})
    assert [report.counts.indexed for report in work_items.run()] == [1]
    assert work_items.run() == []
    work_items.write(
        work_items.opensearch(f"index: {index}"), processors="- rename_keys: {entries: [{from_key: n, to_key: m}]}"
    )
    assert [report.counts.indexed for report in work_items.run()] == [1]
    assert work_items.documents(index) == {"1": {"m": 1}}
    work_items.put("in/b.json", {"_id": "2", "n": 2})
    assert [report.counts.indexed for report in work_items.run()] == [1]


def test_an_index_made_anew_while_another_sink_is_written_gets_its_rows_by_the_next_run(
    work_items: PipelineLab, index: str, other: str
) -> None:
    """What was done is done to the index that was there."""
    work_items.write(work_items.opensearch(f"index: {index}"), work_items.opensearch(f"index: {other}"))
    work_items.put("in/a.json", {"_id": "1"})
    asked = list[int]()

    def cluster(number: int) -> Cluster:
        if asked[-2:] == [0, 0] and number == 1:
            work_items.lab.node("DELETE", index, None)
            work_items.lab.node("PUT", index, {})
        asked.append(number)
        return work_items.lab.cluster()

    (work_item,) = work_items.work_items()
    assert [report.counts.indexed for report in work_items.ingest(cluster).run(work_item).reports] == [1, 1]
    assert work_items.documents(index) == {}
    assert [report.counts.indexed for report in work_items.run()] == [1, 0]
    assert set(work_items.documents(index)) == {"1"}


def test_a_bad_row_is_a_dead_letter_and_the_object_goes_on(work_items: PipelineLab, index: str) -> None:
    """The document's own broken rows: each is kept with its line, also as Data Prepper writes its dead letters."""
    work_items.write(
        work_items.opensearch(f"index: {index}\ndlq: {{s3: {{bucket: {work_items.bucket}, key_path_prefix: dlq}}}}")
    )
    good = {"_id": "1", "text": "good"}
    uri = work_items.put("in/a.json", good, '{"_id": "2", "metadata": {"world war 2"}}', {**good, "_id": "3"})
    (report,) = work_items.run()
    assert (report.counts.read, report.counts.indexed, report.counts.dead_letters) == (3, 2, 1)
    (letter,) = work_items.letters(report)
    assert (letter.source, letter.line, letter.stage) == (uri, 2, "ingest")
    assert "not JSON" in letter.reason
    assert set(work_items.documents(index)) == {"1", "3"}
    (key,) = work_items.keys("dlq/")
    ((told,),) = json.loads(work_items.content(key)).values()
    assert told["pipelineName"] == "books"
    assert told["failedData"]["index"] == index
    assert "not JSON" in told["failedData"]["message"]
    with pytest.raises(ConfigError, match="the next run reads the objects again"):
        replay(report.dead_letters or "", work_items.lab.objects, work_items.lab.cluster(), row_errors=row_errors())


def test_a_row_that_the_index_refuses_is_a_dead_letter(work_items: PipelineLab, index: str) -> None:
    """Its reason is the index's own."""
    work_items.lab.node("PUT", index, {"mappings": {"properties": {"n": {"type": "integer"}}}})
    work_items.write(work_items.opensearch(f"index: {index}"))
    work_items.put("in/a.json", {"_id": "1", "n": 1}, {"_id": "2", "n": "many"})
    (report,) = work_items.run()
    (letter,) = work_items.letters(report)
    assert (letter.id, letter.status) == ("2", 400)
    assert set(work_items.documents(index)) == {"1"}


def test_a_row_without_room_for_the_name_of_its_object_is_a_dead_letter(work_items: PipelineLab, index: str) -> None:
    """It has something else in that place; the rows beside it go on, and know their object."""
    work_items.write(work_items.opensearch(f"index: {index}"), selection="data_and_metadata")
    work_items.put("in/a.json", {"_id": "1", "s3": "mine"}, {"_id": "2"})
    (report,) = work_items.run()
    (letter,) = work_items.letters(report)
    assert letter.line == 1
    assert "the name of its object cannot be added: s3 is not an object" in letter.reason
    assert work_items.documents(index) == {"2": {"s3": {"bucket": work_items.bucket, "key": "in/a.json"}}}


@pytest.mark.parametrize("joined", [False, True])
def test_an_array_that_is_no_json_is_a_dead_letter_when_a_processor_looks_at_it(
    work_items: PipelineLab, index: str, *, joined: bool
) -> None:
    """Also behind a join, and the rows beside it go on."""
    work_items.write(
        work_items.opensearch(f"index: {index}\ninclude_keys: [first]"),
        processors=(_ENRICH.format(bucket=work_items.bucket, merged="title") if joined else "")
        + "- copy_values: {entries: [{from_key: v/0, to_key: first}]}",
    )
    work_items.put("records/a.jsonl", {"_id": "1", "title": "one"}, {"_id": "2", "title": "two"})
    good = ", ".join(["0.5"] * 300)
    work_items.put("in/a.jsonl.out", f'{{"_id": "1", "v": [{good}]}}', f'{{"_id": "2", "v": [{good}, 0..5]}}')
    (report,) = work_items.run()
    (letter,) = work_items.letters(report)
    assert letter.line == 2
    assert "not JSON" in letter.reason
    assert work_items.documents(index) == {"1": {"first": 0.5}}


def test_an_output_row_without_room_for_its_record_is_tagged(work_items: PipelineLab, index: str) -> None:
    """As one without a record is."""
    work_items.lab.node("PUT", index, {"mappings": {"properties": {"a": {"type": "object", "enabled": False}}}})
    work_items.write(
        work_items.opensearch(f"index: {index}\ntags_target_key: tags"),
        processors=_ENRICH.format(bucket=work_items.bucket, merged="a/title"),
    )
    work_items.put("records/a.jsonl", *({"_id": str(n), "a": {"title": "t"}} for n in range(2)))
    work_items.put("in/a.jsonl.out", {"_id": "0", "a": "text"}, {"_id": "1"})
    (report,) = work_items.run()
    assert report.counts.dead_letters == 0
    assert work_items.documents(index) == {
        "0": {"a": "text", "tags": ["lonely"]},
        "1": {"a": {"title": "t"}, "tags": []},
    }


def test_ids_come_from_the_format_else_the_body_else_the_place(work_items: PipelineLab, index: str) -> None:
    """A key that is missing leaves the id to the place, so that reading again makes no duplicates."""
    rows = [{"_id": "own", "k": "a"}, {"_id": "other"}]
    work_items.put("in/a.json", *rows)
    work_items.write(work_items.opensearch(f"index: {index}\ndocument_id: 'x-${{k}}'"))
    work_items.run()
    named, by_place = sorted(work_items.documents(index), key=len)
    assert (named, len(by_place)) == ("x-a", 32)
    assert all("_id" not in document for document in work_items.documents(index).values())
    work_items.run(force=True)
    assert len(work_items.documents(index)) == 2


def test_actions_decide_row_by_row(work_items: PipelineLab, index: str) -> None:
    """The first action whose condition holds is taken, else the last one's."""
    for number in "1234":
        work_items.lab.node("PUT", f"{index}/_doc/{number}?refresh=true", {"old": True})
    work_items.write(
        work_items.opensearch(
            f"""index: {index}
actions:
- {{type: delete, when: '/do == "delete"'}}
- {{type: update, when: '/do == "update"'}}
- {{type: create, when: '/do == "create"'}}
- {{type: upsert, when: '/do == "upsert"'}}
- {{type: index}}"""
        )
    )
    does = {"1": "delete", "2": "update", "3": "create", "4": "index", "5": "upsert", "6": "update", "7": "delete"}
    work_items.put("in/a.json", *({"_id": name, "do": do} for name, do in does.items()))
    (report,) = work_items.run()
    found = work_items.documents(index)
    assert found == {
        "2": {"old": True, "do": "update"},
        "3": {"old": True},
        "4": {"do": "index"},
        "5": {"do": "upsert"},
    }
    # A document that is there already, and one that is to be deleted and is not, are as they should be.
    assert (report.counts.indexed, report.counts.unchanged, report.counts.dead_letters) == (4, 2, 1)
    (letter,) = work_items.letters(report)
    assert (letter.id, letter.status) == ("6", 404)


def test_an_event_may_name_its_index(work_items: PipelineLab, index: str, other: str) -> None:
    """Each index is made when it is first named, with the template's mappings; a name that is none is a dead letter."""
    template = json.dumps({"mappings": {"properties": {"n": {"type": "keyword"}}}})
    work_items.write(work_items.opensearch(f"index: '{index}${{/suffix}}'\ntemplate_content: '{template}'"))
    work_items.put("in/a.json", {"suffix": "", "n": 1}, {"suffix": "-other", "n": 2}, {"suffix": "*", "n": 3})
    (report,) = work_items.run()
    assert (report.counts.indexed, report.counts.dead_letters) == (2, 1)
    assert [document["n"] for document in work_items.documents(index).values()] == [1]
    assert [document["n"] for document in work_items.documents(other).values()] == [2]
    mappings = work_items.lab.node("GET", f"{other}/_mapping")[other]["mappings"]
    assert mappings["properties"]["n"] == {"type": "keyword"}


def test_a_document_is_what_the_sink_takes_of_the_event(work_items: PipelineLab, index: str, other: str) -> None:
    """Keys are included or excluded, a root is taken, a routing value is given."""
    work_items.write(
        work_items.opensearch(f"index: {index}\ndocument_id: '${{id}}'\nexclude_keys: [id, b]\nrouting: '${{id}}'"),
        work_items.opensearch(f"index: {other}\ndocument_id: '${{id}}'\ndocument_root_key: b\ninclude_keys: [c]"),
    )
    work_items.put("in/a.json", {"id": "1", "a": 1, "b": {"c": 2, "d": 3}})
    work_items.run()
    assert work_items.documents(index) == {"1": {"a": 1}}
    assert work_items.documents(other) == {"1": {"c": 2}}
    assert work_items.lab.node("GET", f"{index}/_doc/1?routing=1")["_routing"] == "1"


def test_an_absent_index_is_made_with_the_vectors_of_the_first_document(work_items: PipelineLab, index: str) -> None:
    """Its field can be searched; a later vector of another length, of zeros or no JSON is a dead letter, each alone."""
    work_items.write(work_items.opensearch(f"index: {index}\nnumber_of_shards: 2"))
    work_items.put(
        "in/a.json",
        {"_id": "1", "v": VECTOR},
        {"_id": "2", "v": VECTOR[:-1]},
        {"_id": "3", "v": None},
        {"_id": "4", "v": [0.0] * 16},
        f'{{"_id":"5","v":[{"0.5" * 200},,1]}}',
    )
    (report,) = work_items.run()
    assert (report.counts.indexed, report.counts.dead_letters) == (2, 3)
    assert {letter.id: letter.status for letter in work_items.letters(report)} == {"2": 400, "4": 400, "5": 400}
    assert work_items.lab.node("GET", f"{index}/_settings")[index]["settings"]["index"]["number_of_shards"] == "2"
    assert report.remarks == [f"index {index} was absent and was created with knn_vector fields: v (16 values)"]
    found = work_items.lab.node("POST", f"{index}/_search", {"query": {"knn": {"v": {"vector": VECTOR, "k": 1}}}})
    assert [hit["_id"] for hit in found["hits"]["hits"]] == ["1"]


def test_an_index_whose_vectors_are_plain_numbers_is_refused(work_items: PipelineLab, index: str) -> None:
    """It is told before anything is paid."""
    work_items.lab.node("PUT", index, {"mappings": {"properties": {"v": {"type": "float"}}}})
    found = present(work_items.lab.cluster().index(index))
    with pytest.raises(ConfigError, match="field v is mapped as float"):
        refuse_plain_vectors(found, ["v"])


def test_events_become_objects_of_the_same_names_each_time(work_items: PipelineLab) -> None:
    """A pipeline that prepares: rows by their folder, packed; a repetition writes the same objects."""
    options = "codec: {ndjson: {extension: jsonl}}\ncompression: gzip\nobject_key: {path_prefix: 'out/${/kind}/'}"
    work_items.write(work_items.s3(options), processors="- delete_entries: {with_keys: [secret]}")
    work_items.put("in/a.json", *({"n": n, "kind": "ab"[n % 2], "secret": "x"} for n in range(5)), "no row")
    (report,) = work_items.run()
    assert (report.counts.read, report.counts.indexed, report.counts.dead_letters) == (6, 5, 1)
    keys = work_items.keys("out/")
    assert [key.split("/")[1] for key in keys] == ["a", "b"]
    rows = [json.loads(line) for key in keys for line in gzip.decompress(work_items.content(key)).splitlines()]
    assert [row["n"] for row in rows] == [0, 2, 4, 1, 3]
    assert not any("secret" in row for row in rows)
    work_items.run(force=True)
    assert work_items.keys("out/") == keys


def test_rows_of_another_jobs_output_find_their_records_by_name(work_items: PipelineLab, index: str) -> None:
    """s3_enrich merges the record's keys; a record that no row answers is a dead letter."""
    work_items.write(
        work_items.opensearch(f"index: {index}\ndocument_id: '${{recordId}}'"),
        source="codec: {ndjson: {}}",
        processors=f"""- s3_enrich:
    bucket: {{name: {work_items.bucket}, filter: {{include_prefix: records/}}}}
    codec: {{ndjson: {{extension: jsonl}}}}
    aws: {{region: us-east-1}}
    s3_key_path: s3/key
    s3_object_name_pattern: '^(.*)\\.jsonl\\.out$'
    correlation_keys: [recordId]
    keys_to_merge: [title]""",
    )
    work_items.put("records/a.jsonl", *({"recordId": f"r{n}", "title": f"title {n}"} for n in range(3)))
    work_items.put("in/a.jsonl.out", {"recordId": "r1", "modelOutput": 1}, {"recordId": "r0", "modelOutput": 0})
    (report,) = work_items.run()
    assert work_items.documents(index) == {
        f"r{n}": {"recordId": f"r{n}", "modelOutput": n, "title": f"title {n}"} for n in range(2)
    }
    assert (report.counts.read, report.counts.indexed, report.counts.joined) == (5, 2, 2)
    assert [letter.reason for letter in work_items.letters(report)] == ["no output row has this key ('r2')"]
