"""Each staged record becomes a document, a dead letter or an unanswered record, and the report says which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import ConfigError, FatalError, OutputUnusable
from opensearch_batch.core.ingest import engine
from opensearch_batch.core.ingest.composed_rows import NO_ROW
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.ledger.predictions import NewShard
from opensearch_batch.core.ledger.rows import record_hash
from opensearch_batch.core.ledger.verdicts import ShardReport
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.types.counts import Traffic
from opensearch_batch.core.types.identity import digest
from tests.core.staged_runs import BARE, SOURCE, VECTOR, MakeRuns, Target, exceptions, record, vector_of
from tests.stored import present

SERVICES: list[tuple[str, dict[str, Any]]] = [
    ("openai", {}), ("bedrock", {}), ("cohere", {}), ("sagemaker", {}), ("sagemaker", BARE),
]  # fmt: skip
WITH_ERRORS = [each for each in SERVICES if each[0] != "cohere"]


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record progress after each body."""
    monkeypatch.setattr(engine, "CHECKPOINT_BYTES", 1)


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at_call(number: int) -> Iterator[None]:
    """Kill the ingest at its n-th call of the cluster."""
    calls, call = count(1), Cluster.call

    def killed(cluster: Cluster, *what: Any, **how: Any) -> Any:
        if next(calls) == number:
            raise Killed("killed")
        return call(cluster, *what, **how)

    with pytest.MonkeyPatch.context() as context:
        context.setattr(Cluster, "call", killed)
        yield


def document(number: int, text: str | None = None) -> dict[str, Any]:
    """Return the document of a record."""
    text = f"t{number}" if text is None else text
    return {"text": text, "v": vector_of(text)}


@pytest.mark.parametrize(("service", "parameters"), SERVICES)
def test_a_record_and_its_prediction_become_one_document(
    make: MakeRuns, target: Target, service: str, parameters: dict[str, Any]
) -> None:
    """Whatever the service's rows look like, and whichever record the prediction was paid for."""
    runs = make(service=service, parameters=parameters)
    shard = runs.stage([record(1), record(2), record(3, text="t1")])
    report = runs.ingest(shard)
    assert target.index.documents == {"d1": document(1), "d2": document(2), "d3": document(3, "t1")}
    assert set(target.index.versions.values()) == {runs.manifest.version}
    assert (report.counts.read, report.counts.indexed, report.counts.nulls) == (3, 3, 0)
    assert report.verdicts.shard_digest == runs.manifest.shard_digest(shard)
    assert (report.verdicts.exceptions, report.verdicts.unanswered) == ([], 0)
    stored = JsonDocument(runs.objects, runs.layout.ingest_report("run-1", "0000"), ShardReport).read()
    assert stored == report
    # A later run finds all predictions in the store.
    runs.prepare("run-2")
    again = runs.ingest(runs.stage([record(4, text="t2"), record(1, more=1)], job=False))
    assert (again.counts.indexed, target.index.documents["d4"]) == (2, document(4, "t2"))


@pytest.mark.parametrize(("service", "parameters"), WITH_ERRORS)
def test_records_without_a_prediction_are_left_to_repair(
    make: MakeRuns, target: Target, service: str, parameters: dict[str, Any]
) -> None:
    """With the reason of the service; their second job may have a prediction, or they become dead letters."""
    runs = make(service=service, parameters=parameters)
    runs.fails = {"t1": "too long", "t3": "busy"}
    shard = runs.stage(map(record, range(5)))
    report = runs.ingest(shard)
    assert (report.counts.read, report.counts.indexed, report.counts.dead_letters) == (3, 3, 0)
    assert list(target.index.documents) == ["d0", "d2", "d4"]
    left = runs.unanswered(shard)
    assert [(each.line, "too long" in each.reason) for each in left] == [(2, True), (4, False)]
    assert (report.verdicts.unanswered, sorted(report.verdicts.reasons.values())) == (2, [1, 1])
    runs.fails = {"t1": "too long"}
    repaired = runs.ingest(runs.repair(shard))
    assert (repaired.counts.read, repaired.counts.indexed, repaired.counts.dead_letters) == (2, 1, 1)
    assert (exceptions(repaired), repaired.verdicts.unanswered) == ({2: "DEAD"}, 0)
    (letter,) = runs.letters(repaired)
    assert (letter.source, letter.line, letter.offset, letter.stage) == (SOURCE, 2, 200, "ingest")
    assert "too long" in letter.reason
    content = json.dumps(record(1)).encode()
    assert json.loads(letter.record or "") == {"record": record(1), "error": letter.reason}
    assert letter.record_hash == record_hash(content).hex()
    assert target.index.documents["d3"] == document(3)


def test_a_record_that_failed_before_and_has_no_second_job_keeps_its_reason(make: MakeRuns) -> None:
    """The records were too few for a job."""
    runs = make()
    runs.fails = {"t1": "too long", "t2": None}
    shard = runs.stage(map(record, range(3)))
    report = runs.ingest(shard)
    assert [each.reason for each in runs.unanswered(shard)] == ["400: too long", NO_ROW]
    repaired = runs.ingest(runs.repair(shard, job=False))
    assert [letter.reason for letter in runs.letters(repaired)] == list(report.verdicts.reasons)


def test_the_reasons_outlive_a_crash(make: MakeRuns) -> None:
    """The task is killed after the predictions are in the store, so the second attempt does not read the output."""
    runs = make()
    runs.fails = {"t1": "too long"}
    shard = runs.stage(map(record, range(3)))
    output = runs.answer(shard)
    with killed_at_call(1), pytest.raises(Killed, match="killed"):
        runs.ingest(shard, output)
    runs.objects.delete(runs.layout.unanswered("run-1", "0000"))
    runs.objects.delete(output.uris[0])
    report = runs.ingest(shard, output)
    assert (report.counts.indexed, report.verdicts.reasons) == (2, {"400: too long": 1})
    assert [each.reason for each in runs.unanswered(shard)] == ["400: too long"]


def test_a_file_of_unanswered_records_goes_when_all_are_answered(make: MakeRuns) -> None:
    """Otherwise repair would stage them again."""
    runs = make()
    runs.fails = {"t1": "busy"}
    shard = runs.stage(map(record, range(2)))
    runs.ingest(shard)
    assert len(runs.unanswered(shard)) == 1
    runs.fails = {}
    report = runs.ingest(runs.stage(map(record, range(2))))
    assert (report.counts.indexed, report.verdicts.unanswered, runs.unanswered(shard)) == (2, 0, [])


@pytest.mark.usefixtures("checkpoints")
@pytest.mark.parametrize("killed_at", range(1, 6))
def test_the_verdicts_are_exact_also_after_an_interruption(make: MakeRuns, target: Target, killed_at: int) -> None:
    """Refused, dropped by a pipeline, superseded and invalid records are exceptions; the others are indexed."""
    runs = make(max_body_bytes=1, max_in_flight=1)
    target.index.documents["d4"], target.index.versions["d4"] = {"text": "newer"}, runs.manifest.version + 1
    records = [
        record(0),
        record(1, text="refused"),
        record(2, text="dropped"),
        {"text": "no id"},
        record(4),
        record(5, text="wrong"),
        record(6),
    ]
    shard = runs.stage(records)
    output = runs.answer(shard)
    rows = present(runs.objects.read(output.uris[0])).content.replace(b"[5.5, 0.25]", b"[5.5]")
    runs.objects.write(output.uris[0], rows)
    with killed_at_call(killed_at), pytest.raises(Killed, match="killed"):
        runs.ingest(shard, output)
    report = runs.ingest(shard, output)
    expected = {2: "DEAD", 3: "FILTERED", 4: "DEAD", 5: "FILTERED", 6: "DEAD"}
    assert exceptions(report) == expected
    assert len(report.verdicts.exceptions) == len(expected)
    counts = report.counts
    assert (counts.read, counts.dead_letters, counts.filtered, counts.superseded) == (7, 3, 1, 1)
    assert counts.indexed + counts.unchanged == 2
    assert sorted(target.index.documents) == ["d0", "d4", "d6"]
    # The finished work is repeated by nobody.
    assert exceptions(runs.ingest(shard, output)) == expected


def test_the_traffic_of_all_attempts_is_reported(make: MakeRuns, target: Target) -> None:
    """The first attempt is killed after it has recorded its progress; work that is done has no traffic."""
    runs, sizes_bytes = make(), list[int]()
    target.before = lambda body: sizes_bytes.append(len(body))
    shard = runs.stage(map(record, range(3)))
    output = runs.answer(shard)

    def killed(_: str) -> None:
        raise Killed("killed")

    with pytest.MonkeyPatch.context() as context:
        context.setattr(runs.cluster, "refresh", killed)
        with pytest.raises(Killed, match="killed"):
            runs.ingest(shard, output)
    report = runs.ingest(shard, output)
    assert (len(sizes_bytes), report.traffic) == (1, Traffic(sum(sizes_bytes), 0))
    assert runs.ingest(shard, output).traffic == Traffic()


def test_records_that_processors_exclude_are_filtered(make: MakeRuns, target: Target) -> None:
    """The condition does not hold for one, a processor drops another."""
    processors: list[dict[str, Any]] = [
        {"copy_values": {"entries": [{"from_key": "SageMakerOutput", "to_key": "v"}]}},
        {"drop_events": {"drop_when": '/text == "t2"'}},
        {"delete_entries": {"with_keys": ["SageMakerOutput"]}},
    ]
    runs = make(service="sagemaker", processors=processors, when="/title != null", field_map={"_id": "$.id"})
    runs.fails = {"t4": "too long"}
    shard = runs.stage([record(1, title="a"), record(2, title="b"), record(3), record(4, title="d")])
    report = runs.ingest(shard)
    assert exceptions(report) == {2: "FILTERED", 3: "FILTERED"}
    assert (report.counts.read, report.counts.dropped, report.counts.unrouted) == (3, 1, 1)
    assert target.index.documents == {"d1": {"id": "d1", "text": "t1", "title": "a", "v": vector_of("t1")}}
    repaired = runs.ingest(runs.repair(shard, job=False))
    assert [letter.reason for letter in runs.letters(repaired)] == ["SageMakerInferenceError: too long"]
    assert list(target.index.documents) == ["d1"]


@pytest.mark.usefixtures("checkpoints")
def test_a_run_that_lost_its_claim_stops(make: MakeRuns, target: Target) -> None:
    """It asks the head of its scope; what it has not written by then is superseded."""
    runs = make(max_body_bytes=1, max_in_flight=1)
    shard, manifest = runs.stage(map(record, range(4))), runs.manifest
    target.before = lambda body: runs.prepare("run-2") if b'"d1"' in body else None
    report = runs.ingest(shard, manifest=manifest)
    assert (report.counts.read, report.counts.indexed + report.counts.superseded) == (4, 4)
    assert report.counts.superseded >= 1
    assert "d3" not in target.index.documents
    bodies = len(target.scripted.bodies)
    assert runs.ingest(shard, manifest=manifest).counts.superseded == report.counts.superseded
    assert len(target.scripted.bodies) == bodies


def test_a_trial_asks_for_no_claim(make: MakeRuns) -> None:
    """It has none, and its records are not in the ledger."""
    runs = make()
    trial = runs.prepare("trial", trial=True)
    shard = runs.stage([record(1), record(2, text="refused")])
    runs.prepare("run-2")
    report = runs.ingest(shard, manifest=trial)
    assert (report.counts.indexed, report.counts.dead_letters, report.verdicts.exceptions) == (1, 1, [])
    with pytest.raises(FatalError, match="a trial run, or one in place, deletes nothing"):
        runs.ingest(runs.delete([deletions(("d1", None))]), manifest=trial)


def deletions(*documents: tuple[str, str | None]) -> Any:
    """Return documents to delete."""
    import pyarrow as pa

    ids, routings = zip(*documents, strict=True)
    columns = {"id": pa.array(ids, pa.string()), "routing": pa.array(routings, pa.string())}
    return pa.table({**columns, "version": pa.array([1] * len(ids), pa.int64())})


def test_documents_are_deleted_with_their_routing(make: MakeRuns, target: Target) -> None:
    """An absent document counts as unchanged; a document of a newer run, or of this run, is kept."""
    runs = make()
    runs.run(record(1), record(2))
    runs.prepare("run-2")
    runs.ingest(runs.stage([record(2)], job=False))
    target.index.documents["d4"], target.index.versions["d4"] = {}, runs.manifest.version + 1
    shard = runs.delete([deletions(("d1", "north"), ("d2", None)), deletions(("d3", None), ("d4", None))])
    report = runs.ingest(shard)
    assert (report.counts.read, report.counts.indexed, report.counts.unchanged) == (4, 1, 1)
    assert (report.counts.superseded, report.verdicts.exceptions) == (2, [])
    assert report.verdicts.shard_digest == runs.manifest.shard_digest(shard)
    assert sorted(target.index.documents) == ["d2", "d4"]
    first = json.loads(target.scripted.bodies[-1].splitlines()[0])["delete"]
    assert (first["routing"], first["version"]) == ("north", present(runs.manifest.claim).version)
    again = runs.ingest(shard)
    assert (again.counts.indexed, again.counts.unchanged, again.counts.superseded) == (0, 2, 2)


def test_a_deletion_that_is_refused_fails_the_run(make: MakeRuns, target: Target) -> None:
    """There is no dead letter of it; after the index is mended, the deletions are repeated."""
    runs = make()
    runs.run(record(1))
    shard = runs.delete([deletions(("d1", None), ("d2", None))])
    error = {"status": 400, "error": {"type": "t", "reason": "no"}}
    target.scripted.answers = [(200, {"errors": True, "items": [{"delete": error}, {"delete": error}]})]
    with pytest.raises(FatalError, match=r"2 of 2 documents could not be deleted: refused by the index \(400\): t: no"):
        runs.ingest(shard)
    runs.prepare("run-2")
    assert runs.ingest(runs.delete([deletions(("d1", None), ("d2", None))])).counts.indexed == 1


def test_deletions_of_a_run_without_its_claim_are_not_sent(make: MakeRuns, target: Target) -> None:
    """They are superseded."""
    runs = make()
    runs.run(record(1))
    shard, manifest = runs.delete([deletions(("d1", None))]), runs.manifest
    runs.prepare("run-2")
    assert runs.ingest(shard, manifest=manifest).counts.superseded == 1
    assert list(target.index.documents) == ["d1"]


def test_a_damaged_segment_is_named_and_exactly_its_records_are_unanswered(make: MakeRuns, target: Target) -> None:
    """The answers of other segments are written."""
    runs = make()
    runs.run(record(1), record(2))
    runs.run(record(3), record(4))
    segment = next(
        item.uri
        for item in runs.objects.list(f"{runs.layout.predictions()}/segments/")
        if next(runs.store.lookup([runs.key("t3")]).locations())[0] in item.uri
    )
    runs.objects.write(segment, present(runs.objects.read(segment)).content[:-100])
    target.index.documents.clear()
    runs.prepare("run-2")
    shard = runs.stage(map(record, range(1, 5)), job=False)
    report = runs.ingest(shard)
    assert sorted(target.index.documents) == ["d1", "d2"]
    assert [each.line for each in runs.unanswered(shard)] == [3, 4]
    assert report.verdicts.reasons == {"its prediction is not in the prediction store": 2}
    assert any(segment in remark for remark in report.remarks)
    assert (runs.store.lookup([runs.key("t1"), runs.key("t3")]).source >= 0).tolist() == [True, False]


@pytest.mark.parametrize("policy", ["index_partial", "fail", "dead_letter"])
def test_a_record_for_which_the_job_returned_no_row(make: MakeRuns, target: Target, policy: Any) -> None:
    """After repair, the policy of the pipeline decides; an error of the service is a dead letter in any case."""
    runs = make(on_unmatched=policy)
    runs.fails = {"t1": None, "t2": "too long"}
    shard = runs.stage(map(record, range(3)))
    assert runs.ingest(shard).verdicts.unanswered == 2
    repair = runs.repair(shard)
    if policy == "fail":
        with pytest.raises(ConfigError, match="1 records have no prediction, and on_unmatched is fail"):
            runs.ingest(repair)
        return
    report = runs.ingest(repair)
    assert (report.counts.read, report.counts.dead_letters) == (2, 1 if policy == "index_partial" else 2)
    assert target.index.documents.get("d1") == ({"text": "t1"} if policy == "index_partial" else None)


@pytest.mark.parametrize(("service", "parameters"), [("sagemaker", {}), ("sagemaker", BARE)])
def test_an_output_that_lacks_rows_is_unusable(make: MakeRuns, service: str, parameters: dict[str, Any]) -> None:
    """Its job is recorded as of no use, so that a clear pays a new one."""
    runs = make(service=service, parameters=parameters)
    runs.fails = {"t1": None}
    shard = runs.stage(map(record, range(3)))
    for _ in range(2):
        with pytest.raises(OutputUnusable, match=r"2 rows for 3 records.*; clear batch_predict to submit"):
            runs.ingest(shard)
        found = present(JobRecords(runs.objects, runs.layout.job(shard.job)).read())
        assert present(found.end).state == "UNUSABLE"


def test_an_output_that_is_gone_is_named_unless_its_answers_are_stored(make: MakeRuns) -> None:
    """Another run may have read it before it expired."""
    runs = make()
    shard = runs.stage([record(1)])
    output = runs.answer(shard)
    runs.objects.delete(output.uris[0])
    with pytest.raises(OutputUnusable, match="the job's output was deleted; clear batch_predict"):
        runs.ingest(shard, output)
    output = runs.answer(shard)
    runs.ingest(shard, output)
    runs.objects.delete(output.uris[0])
    runs.prepare("run-2")
    again = msgspec.structs.replace(runs.stage([record(1, more=1)], job=False), job=shard.job)
    assert runs.ingest(again, output).counts.indexed == 1


def test_rows_that_belong_to_no_record_change_nothing(make: MakeRuns, target: Target) -> None:
    """A row without an id, with an id that the job does not have, and a second row of a record."""
    runs = make()
    shard = runs.stage([record(1), record(2)])
    late = b'{"custom_id":"r0000000000","error":"late"}'
    others = [b"no JSON", b'{"custom_id":"r0000000077","response":{}}', late, b""]
    report = runs.ingest(shard, runs.answer(shard, more=others))
    assert (report.counts.indexed, report.verdicts.unanswered) == (2, 0)
    assert target.index.documents == {"d1": document(1), "d2": document(2)}


@pytest.mark.parametrize("change", ["deleted", "again", "no vector"])
def test_an_index_that_changed_since_prepare_is_refused(make: MakeRuns, target: Target, change: str) -> None:
    """Only changed records are staged, so another index would lack the others."""
    runs = make()
    shard = runs.stage([record(1)])
    target.found = {
        "deleted": None,
        "again": Index("i", "other", (VECTOR,), {}, {}),
        "no vector": Index("i", "uuid", (), {}, {}),
    }[change]
    messages = {"deleted": "was deleted", "again": "created again", "no vector": "no longer a vector of 2 values"}
    with pytest.raises(ConfigError, match=messages[change]):
        runs.ingest(shard)
    assert target.scripted.bodies == []


def test_predictions_that_fit_nowhere_are_one_error(make: MakeRuns, target: Target) -> None:
    """The index is wrong, not the records."""
    runs = make()
    target.found = Index("i", "uuid", (msgspec.structs.replace(VECTOR, dimension=3),), {}, {})
    runs.vectors = []
    runs.prepare("run-2")
    with pytest.raises(ConfigError, match=r"none of 2 rows fits its mapping \(v has 2 values; the index expects 3\)"):
        runs.run(record(1), record(2))


def test_a_dead_letter_of_an_answered_record_has_both(make: MakeRuns) -> None:
    """A user can mend the record in the queue, and replay it."""
    runs = make()
    report = runs.run(record(1, text="refused"))
    (letter,) = runs.letters(report)
    row = json.loads(letter.record or "")
    assert row["record"] == record(1, text="refused")
    assert row["output"]["response"]["body"]["data"][0]["embedding"] == vector_of("refused")
    assert (letter.source, letter.line, letter.output, letter.id, letter.status) == (SOURCE, 1, None, "d1", 400)


def test_a_record_without_an_id_is_identified_by_its_position(make: MakeRuns, target: Target) -> None:
    """Equal records of different objects are different documents."""
    runs = make(field_map={"text": "$.text", "v": "prediction"})
    runs.ingest(runs.stage([record(1), record(1)]))
    runs.ingest(runs.stage([record(1)], "0001", job=False, uri="s3://docs/b.jsonl"))
    ids = [digest(SOURCE, "1"), digest(SOURCE, "2"), digest("s3://docs/b.jsonl", "1")]
    assert sorted(target.index.documents) == sorted(ids)


def test_the_answers_of_a_resubmitted_job_replace_the_old_ones(make: MakeRuns, target: Target) -> None:
    """A run with `force` pays again for a record that has a prediction."""
    runs = make()
    shard = runs.stage([record(1)])
    runs.ingest(shard)
    runs.prepare("run-2")
    keys = [runs.key("t1")]
    runs.store.reserve(keys, lambda located: [NewShard(shard.job, b"".join(keys))], force=True)  # noqa: ARG005 - all
    output = msgspec.structs.replace(runs.answer(shard), submission=2)
    rows = present(runs.objects.read(output.uris[0])).content.replace(b"[2.5, 0.25]", b"[7.5, 0.75]")
    runs.objects.write(output.uris[0], rows)
    again = msgspec.structs.replace(runs.stage([record(1)], job=False), job=shard.job)
    runs.ingest(again, output)
    assert target.index.documents["d1"] == {"text": "t1", "v": [7.5, 0.75]}


def test_a_job_that_was_submitted_again_after_its_output_was_read_needs_prepare(make: MakeRuns) -> None:
    """Only an open shard has the keys of its records; without them the new answers would be lost silently."""
    runs = make()
    runs.fails = {"t1": "no"}
    shard = runs.stage([record(1)])
    assert runs.ingest(shard).verdicts.unanswered == 1
    again = msgspec.structs.replace(runs.answer(shard), submission=2)
    with pytest.raises(FatalError, match="clear prepare, which finds the job and pays nothing again"):
        runs.ingest(shard, again)
