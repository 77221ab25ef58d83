"""A replay of a pipeline's dead letters asks the record ledger, and tells it."""

from __future__ import annotations

import json

import msgspec
import pytest

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.ledger.dead_records import DeadRecords
from opensearch_batch.core.ledger.rows import RecordState
from opensearch_batch.core.storage.dead_letters import DeadLetter, list_parts
from tests.core.staged_runs import SOURCE, MakeRuns, StagedRuns, Target, record, vector_of
from tests.stored import dead_letters

RECORDS = [record(1, text="refused"), record(2), record(3, text="refused too")]


@pytest.fixture
def runs(make: MakeRuns) -> StagedRuns:
    """A pipeline whose first run has committed two dead letters."""
    return make()


def queue(runs: StagedRuns, letters: list[DeadLetter], location: str) -> None:
    """Replace the letters of a queue."""
    (part,) = list_parts(runs.objects, location)
    runs.objects.write(part, b"\n".join(msgspec.json.encode(letter) for letter in letters))


def test_what_succeeds_is_indexed_in_the_ledger(runs: StagedRuns, target: Target) -> None:
    """With a version of its own, which is higher than those of all runs of the scope."""
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    version, committed = runs.manifest.version, runs.head.load()
    assert runs.rows() == [("d1", "DEAD", 0), ("d2", "INDEXED", version), ("d3", "DEAD", 0)]
    target.refuses = b"too"
    replayed = runs.replay(report)
    assert (replayed.read, replayed.indexed, replayed.superseded, replayed.dead_letters) == (2, 1, 0, 1)
    head = runs.head.load()
    written = head.claim.version + 1
    assert written > version
    assert target.index.versions == {"d1": written, "d2": version}
    assert target.index.documents["d1"] == {"text": "refused", "v": vector_of("refused")}
    assert runs.rows() == [("d1", "INDEXED", written), ("d2", "INDEXED", version), ("d3", "DEAD", written)]
    assert (head.committed, head.objects[SOURCE].etag) == (head.claim.version, committed.objects[SOURCE].etag)
    (letter,) = runs.letters(report)
    assert (letter.id, "refused by the index (400)" in letter.reason) == ("d3", True)
    target.refuses = b"nothing"
    assert (runs.replay(report).indexed, runs.rows()[2][1], runs.letters(report)) == (1, "INDEXED", [])


@pytest.mark.parametrize("change", ["changed", "other state", "removed", "replaced"])
def test_a_letter_whose_record_is_not_dead_any_more_is_superseded(
    runs: StagedRuns, target: Target, change: str
) -> None:
    """It replaces no newer record, brings back none that was removed, and leaves the queue."""
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    runs.prepare("run-2")
    if change == "removed":
        runs.remove()
    else:
        again = [record(1, text="new"), *RECORDS[1:]] if change == "changed" else list(RECORDS)
        again = [record(9), *RECORDS[1:]] if change == "replaced" else again
        if change == "other state":
            target.refuses = b"too"
        newer = runs.ingest(runs.stage(again[:1], "0001", job=change != "other state"))
        verdicts = msgspec.structs.replace(newer.verdicts, exceptions=[(SOURCE, 3, RecordState.DEAD)])
        runs.commit(msgspec.structs.replace(newer, verdicts=verdicts), *again)
    documents, rows = dict(target.index.documents), [] if change == "removed" else runs.rows()
    target.refuses = b"too"
    replayed = runs.replay(report)
    superseded = 2 if change == "removed" else 1
    assert (replayed.read, replayed.superseded, replayed.dead_letters) == (2, superseded, 2 - superseded)
    assert target.index.documents == documents
    if change != "removed":
        # The version of a letter that was sent tells that it may have a document.
        assert [row[:2] for row in runs.rows()] == [row[:2] for row in rows]
    assert [letter.id for letter in runs.letters(report)] == (["d3"] if superseded == 1 else [])


def test_a_record_that_moved_is_found_by_its_content(runs: StagedRuns, target: Target) -> None:
    """Its object was renamed, and it was not written again, because it did not change."""
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    runs.prepare("run-2")
    runs.remove()
    verdicts = msgspec.structs.replace(
        report.verdicts,
        exceptions=[("s3://docs/b.jsonl", line, state) for _, line, state in report.verdicts.exceptions],
    )
    moved = [record(0), *RECORDS]
    verdicts = msgspec.structs.replace(
        verdicts, exceptions=[(uri, line + 1, state) for uri, line, state in verdicts.exceptions]
    )
    runs.commit(msgspec.structs.replace(report, verdicts=verdicts), *moved, uri="s3://docs/b.jsonl")
    target.refuses = b"nothing"
    assert runs.replay(report).indexed == 2
    assert [state for _, state, _ in runs.rows("s3://docs/b.jsonl")] == ["INDEXED"] * 4


def test_a_record_without_an_id_is_not_looked_for_elsewhere(make: MakeRuns, target: Target) -> None:
    """Its id is its position, so an equal record elsewhere is another document."""
    runs = make(field_map={"text": "$.text", "v": "prediction"})
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    runs.prepare("run-2")
    moved = [record(0), *RECORDS]
    newer = runs.ingest(runs.stage(moved))
    runs.commit(newer, *moved)
    target.refuses = b"nothing"
    assert (runs.replay(report).superseded, len(target.index.documents)) == (2, 3)


def test_a_replay_waits_for_a_run(runs: StagedRuns, target: Target) -> None:
    """A run that has claimed the records and not committed them may still write them."""
    report = runs.run(*RECORDS)
    with pytest.raises(RetriableError, match="run run-1 has claimed the records of this queue, and has not committed"):
        runs.replay(report)
    runs.commit(report, *RECORDS)
    runs.prepare("run-2")
    bodies, letters = len(target.scripted.bodies), runs.letters(report)
    with pytest.raises(RetriableError, match="run run-2 has claimed"):
        runs.replay(report)
    assert (len(target.scripted.bodies), runs.letters(report)) == (bodies, letters)


def test_a_run_that_begins_meanwhile_wins(runs: StagedRuns, target: Target) -> None:
    """The ledger is not changed, and no letter is lost; the next replay repeats the writes."""
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    states, letters = [row[:2] for row in runs.rows()], runs.letters(report)
    target.refuses = b"nothing"
    target.before = lambda body: runs.prepare("run-2") if b'"d1"' in body else None
    with pytest.raises(RetriableError, match="a run has claimed these records meanwhile; replay again"):
        runs.replay(report)
    target.before = lambda body: None  # noqa: ARG005 - nothing happens
    assert ([row[:2] for row in runs.rows()], runs.letters(report)) == (states, letters)
    runs.commit(
        runs.ingest(runs.stage([record(7)], "0001"), manifest=runs.manifest), record(7), uri="s3://docs/c.jsonl"
    )
    replayed = runs.replay(report)
    assert (replayed.indexed, replayed.superseded) == (2, 0)
    assert [state for _, state, _ in runs.rows()] == ["INDEXED"] * 3


def test_a_run_that_begins_between_two_parts_of_a_queue_wins(runs: StagedRuns, target: Target) -> None:
    """The first part is committed, the second one stays."""
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    first, second = runs.letters(report)
    queue(runs, [first], report.dead_letters or "")
    runs.objects.write(f"{report.dead_letters}99999.jsonl", msgspec.json.encode(second))
    target.refuses = b"nothing"
    target.before = lambda body: runs.prepare("run-2") if b'"d3"' in body else None
    with pytest.raises(RetriableError, match="a run has claimed these records meanwhile; replay again"):
        runs.replay(report)
    assert [state for _, state, _ in runs.rows()] == ["INDEXED", "INDEXED", "DEAD"]
    assert runs.letters(report) == [second]


def test_a_replay_that_was_killed_does_not_block_the_next_one(runs: StagedRuns, target: Target) -> None:
    """Its claim has written nothing to the ledger."""
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    target.refuses = b"nothing"
    target.scripted.answers = [(400, {"error": {"type": "t", "reason": "no"}})]
    with pytest.raises(ConfigError, match="no"):
        runs.replay(report)
    assert runs.replay(report).indexed == 2


def test_a_replay_that_is_killed_after_its_write_leaves_a_document_that_a_run_can_delete(
    runs: StagedRuns, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version of a dead record tells that it may have a document."""
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    target.refuses = b"nothing"
    with monkeypatch.context() as patch:
        patch.setattr(DeadRecords, "commit", killed)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            runs.replay(report)
    written = runs.head.load().claim.version + 1
    assert target.index.versions["d1"] == written
    assert runs.rows()[0] == ("d1", "DEAD", written)
    assert runs.replay(report).indexed == 2
    assert [state for _, state, _ in runs.rows()] == ["INDEXED"] * 3


def killed(*_: object) -> None:
    """End like a process that a signal ends."""
    raise KeyboardInterrupt("killed")


def test_letters_that_a_pipeline_or_a_newer_document_excludes_are_filtered(runs: StagedRuns, target: Target) -> None:
    """They leave the queue and are not tried again."""
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    target.refuses, target.drops = b"nothing", b"too"
    target.index.documents["d1"], target.index.versions["d1"] = {}, 1 << 62
    replayed = runs.replay(report)
    assert (replayed.filtered, replayed.superseded, replayed.dead_letters) == (1, 1, 0)
    assert [row[:2] for row in runs.rows()] == [("d1", "FILTERED"), ("d2", "INDEXED"), ("d3", "FILTERED")]


def test_a_letter_without_its_hash_stays(runs: StagedRuns, target: Target) -> None:
    """Nobody could say whether its record has changed."""
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    first, second = runs.letters(report)
    edited = json.loads(first.record or "")
    edited["record"]["text"] = "mended"
    queue(
        runs,
        [
            msgspec.structs.replace(first, record=json.dumps(edited)),
            msgspec.structs.replace(second, record_hash="not hexadecimal"),
        ],
        report.dead_letters or "",
    )
    target.refuses = b"nothing"
    assert (runs.replay(report).indexed, target.index.documents["d1"]["text"]) == (1, "mended")
    (letter,) = runs.letters(report)
    assert letter.reason == "record_hash of this letter is missing or invalid; restore it"


def test_a_record_without_a_prediction_keeps_the_reason_of_the_service(make: MakeRuns) -> None:
    """Also with processors, which would write it without its vector."""
    for request in (
        {},
        {"processors": [{"delete_entries": {"with_keys": ["SageMakerOutput"]}}], "field_map": {"_id": "$.id"}},
    ):
        runs = make(service="sagemaker", work_prefix=f"s3://{len(request)}", **request)
        runs.fails = {"t2": "too long"}
        shard = runs.stage([record(1), record(2)])
        runs.ingest(shard)
        report = runs.ingest(runs.repair(shard, job=False))
        runs.commit(report, record(1), record(2))
        assert (runs.replay(report).dead_letters, runs.letters(report)[0].reason) == (
            1,
            "SageMakerInferenceError: too long",
        )


def test_letters_of_a_trial_are_not_in_the_ledger(runs: StagedRuns, target: Target) -> None:
    """They are sent with the version of the trial."""
    runs.run(record(5))
    runs.commit(runs.run(record(5)), record(5))
    trial = runs.prepare("trial", trial=True)
    report = runs.run(*RECORDS)
    head = runs.head.load()
    target.refuses = b"nothing"
    assert (runs.replay(report).indexed, runs.head.load()) == (2, head)
    assert target.index.versions["d1"] == trial.version


def test_another_index_is_none_of_the_ledgers_business(runs: StagedRuns, target: Target) -> None:
    """The record stays dead in the index of the pipeline."""
    report = runs.run(*RECORDS)
    runs.commit(report, *RECORDS)
    head = runs.head.load()
    target.refuses = b"nothing"
    other = msgspec.structs.replace(runs.request, index="other", field_map={"_id": "$.record.id", "t": "$.record.text"})
    assert runs.replay(report, other).indexed == 2
    assert runs.head.load() == head
    assert target.index.documents["d1"] == {"t": "refused"}
    assert dead_letters(runs.objects, report.dead_letters) == []
