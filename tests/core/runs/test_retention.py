"""Files go when their time has come, and what was paid for and indexed stays known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import FatalError, OutputUnusable
from opensearch_batch.core.jobs.job_records import JobRecords, next_submission
from opensearch_batch.core.jobs.output_rows import JobOutput, LatestRows, OutputRows, UsedJobs, read_removed
from opensearch_batch.core.jobs.repair import Repair, RepairAccount
from opensearch_batch.core.runs.retention import RunUse, delete_expired, record_use
from opensearch_batch.core.storage.in_use import mark_in_use
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import End, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import Manifest, PrepareCounts, PreparedShard, Shard, SourceRange
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects
from tests.stored import present

DAY_S = 86_400.0
KEEP_S = 30 * DAY_S
NOW = 1_800_000_000.0
OPENAI = adapter_of("openai")


class Runs:
    """Runs of pipelines that share one work prefix."""

    def __init__(self, folder: Path) -> None:
        self.objects: Objects = LocalFiles(folder)
        self.unstaged: list[str] = []

    def work_prefix(self, pipeline: str) -> Layout:
        """Return a pipeline's locations."""
        return Layout("s3://work", pipeline)

    def job(self, key: str) -> JobOutput:
        """Make a job that was paid for, with its files."""
        folder = self.work_prefix("p").job(key)
        for name in ("input.jsonl", "source-1.jsonl", "output/1/input.jsonl.out"):
            self.objects.write(f"{folder}/{name}", b'{"custom_id":"r0000000000"}\n')
        record = JobRecord(
            key,
            "n",
            "openai",
            "m",
            f"{folder}/input.jsonl",
            f"{folder}/output/1/",
            0.0,
            staged={"f": key},
            ml_task_id="t",
            end=End("COMPLETED", 1.0),
        )
        JobRecords(self.objects, folder).write(record, etag=None)
        return JobOutput([f"{folder}/output/1/input.jsonl.out"], None, folder, "t")

    def use(self, pipeline: str, run: str, answered: list[JobOutput], *, at: float, for_ever: bool = False) -> Manifest:
        """Let a successful run use a shard's jobs."""
        work_prefix, shard = self.work_prefix(pipeline), Shard("0000", f"{answered[0].folder}/input.jsonl", "k", 1, 28)
        prepared = PreparedShard(shard, [SourceRange("s3://d/a", 1, 1)])
        manifest = Manifest(pipeline, run, "s3://d/", "openai", "m", PrepareCounts(1, 1), [prepared])
        rows = OutputRows(self.objects, OPENAI, "by_id")
        save(self.objects, work_prefix.used_jobs(run, shard.id), rows.used(answered))
        record_use(self.objects, work_prefix, manifest, now=at, for_ever=for_ever)
        return manifest

    def clean(self, pipeline: str, *, now: float) -> int:
        """Remove what is too old."""
        return delete_expired(
            self.objects,
            self.work_prefix(pipeline),
            keep_s=KEEP_S,
            now=now,
            unstage=lambda record: self.unstaged.append(record.staged["f"]),
        )

    def names(self, key: str) -> set[str]:
        """Return what lies in a job's folder."""
        folder = f"{self.work_prefix('p').job(key)}/"
        return {item.uri.removeprefix(folder) for item in self.objects.list(folder)}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """None yet."""
    return Runs(tmp_path)


WHOLE = {"job.json", "used.json", "input.jsonl", "source-1.jsonl", "output/1/input.jsonl.out"}
LEFT = {"job.json", "used.json", "removed.json"}


def test_files_go_after_their_time_and_the_job_stays_known(runs: Runs) -> None:
    """Not a second before; what was uploaded to the service goes too; a second cleaning finds nothing."""
    runs.use("p", "r", [runs.job("a")], at=NOW)
    assert runs.clean("p", now=NOW + KEEP_S - 1) == 0
    assert runs.names("a") == WHOLE
    assert runs.clean("p", now=NOW + KEEP_S + 1) == 1
    assert (runs.names("a"), runs.unstaged) == (LEFT, ["a"])
    assert runs.clean("p", now=NOW + 2 * KEEP_S) == 0


@pytest.mark.parametrize(
    ("uri", "recorded"),
    [
        ("openai://file-1", {"remote_job": {"output_file_id": "file-1"}}),
        ("cohere://dataset-1", {"remote_job": {"output_dataset_id": "dataset-1"}}),
        ("s3://elsewhere/out/input.jsonl.out", {"output": "s3://elsewhere/out/input.jsonl.out"}),
    ],
)
def test_outputs_outside_the_folder_of_their_job_go_too(runs: Runs, uri: str, recorded: dict[str, Any]) -> None:
    """The service keeps them, or the user has chosen their place; what lies beside them stays."""
    runs.objects = objects = MemoryObjects()
    answered = msgspec.structs.replace(runs.job("a"), uris=[uri])
    record, etag = present(JobRecords(objects, answered.folder).load())
    assert JobRecords(objects, answered.folder).write(msgspec.structs.replace(record, **recorded), etag=etag)
    for name in (uri, f"{uri}-of-another-job"):
        objects.write(name, b'{"custom_id":"r0000000000"}\n')
    runs.use("p", "r", [answered], at=NOW)
    assert runs.clean("p", now=NOW + KEEP_S - 1) == 0
    assert objects.head(uri) is not None
    assert runs.clean("p", now=NOW + KEEP_S + 1) == 1
    assert objects.head(uri) is None
    assert objects.head(f"{uri}-of-another-job") is not None


def test_files_of_a_job_whose_record_is_gone_go_too(runs: Runs) -> None:
    """Nobody can be waiting for such a job, and nothing names what it uploaded."""
    answered = runs.job("a")
    runs.use("p", "r", [answered], at=NOW)
    runs.objects.delete(f"{answered.folder}/job.json")
    assert runs.clean("p", now=NOW + KEEP_S + 1) == 1
    assert (runs.names("a"), runs.unstaged) == (LEFT - {"job.json"}, [])


def test_a_job_that_another_run_uses_is_kept_for_that_one(runs: Runs) -> None:
    """Another run, and another pipeline: jobs are shared."""
    answered = runs.job("a")
    runs.use("p", "r1", [answered], at=NOW)
    runs.use("q", "r2", [answered], at=NOW + 10 * DAY_S)
    assert runs.clean("p", now=NOW + KEEP_S + DAY_S) == 0
    assert runs.names("a") == WHOLE
    assert runs.clean("q", now=NOW + KEEP_S + 11 * DAY_S) == 1
    assert runs.names("a") == LEFT


def test_what_a_pipeline_keeps_for_ever_no_other_one_removes(runs: Runs) -> None:
    """Whichever of them used it last."""
    answered = runs.job("a")
    runs.use("p", "r1", [answered], at=NOW, for_ever=True)
    runs.use("q", "r2", [answered], at=NOW + DAY_S)
    assert runs.clean("q", now=NOW + 10 * KEEP_S) == 0
    assert runs.clean("p", now=NOW + 10 * KEEP_S) == 0
    assert runs.names("a") == WHOLE


def test_what_a_run_has_taken_stays_until_it_had_its_time(runs: Runs) -> None:
    """It needs them though nobody used them for long; that it never ended well does not keep them for ever."""
    runs.use("p", "r", [runs.job("a"), runs.job("b")], at=NOW)
    runs.use("p", "r2", [runs.job("c")], at=NOW)
    taken_at = NOW + KEEP_S + DAY_S
    mark_in_use(runs.objects, runs.work_prefix("p").job("b"), now=taken_at)
    assert runs.clean("p", now=taken_at + 1) == 1
    assert (runs.names("a"), runs.names("b")) == (WHOLE, WHOLE | {"in_use.json"})
    assert runs.names("c") == LEFT
    assert runs.clean("p", now=taken_at + KEEP_S - 1) == 0
    assert runs.clean("p", now=taken_at + KEEP_S + 1) == 2
    assert (runs.names("a"), runs.names("b")) == (LEFT, LEFT - {"removed.json"} | {"in_use.json"})


def test_what_a_run_took_and_used_goes_by_its_own_note(runs: Runs) -> None:
    """The older note of the files is over then, and nothing is removed twice."""
    answered = runs.job("a")
    runs.use("p", "r", [answered], at=NOW)
    mark_in_use(runs.objects, answered.folder, now=NOW + KEEP_S)
    runs.use("p", "r2", [answered], at=NOW + KEEP_S + DAY_S)
    assert runs.clean("p", now=NOW + KEEP_S + DAY_S) == 0
    assert len(list(runs.objects.list(runs.work_prefix("p").retention()))) == 1
    assert runs.clean("p", now=NOW + 2 * KEEP_S + 2 * DAY_S) == 1


@pytest.mark.parametrize(
    ("end", "refused", "stays"),
    [
        (None, None, True),
        (End("COMPLETED", NOW + KEEP_S), None, True),
        (End("COMPLETED", NOW - 1), None, False),
        # Nothing came of it, so nothing reads the files.
        (None, "no such model", False),
    ],
)
def test_what_a_job_under_way_reads_stays(runs: Runs, end: End | None, refused: str | None, *, stays: bool) -> None:
    """It was paid for once more; also when it has ended and its rows are not yet ingested."""
    answered = runs.job("a")
    runs.use("p", "r", [answered], at=NOW)
    job_records = JobRecords(runs.objects, answered.folder)
    found = present(job_records.load())
    record = msgspec.structs.replace(found[0], submission=2, end=end, refused=refused)
    assert job_records.write(record, etag=found[1])
    assert runs.clean("p", now=NOW + KEEP_S + 1) == (0 if stays else 1)
    assert (runs.names("a"), runs.unstaged) == ((WHOLE, []) if stays else (LEFT, ["a"]))
    if stays:
        assert runs.clean("p", now=NOW + 2 * KEEP_S + 1) == (0 if end is None else 1)


def test_a_cleaning_that_was_killed_goes_on(runs: Runs) -> None:
    """The account of the outputs is written before they go; the note of the run goes last."""
    runs.use("p", "r", [runs.job("a"), runs.job("b")], at=NOW)
    killed = RuntimeError("killed")

    def dies(record: JobRecord) -> None:
        if record.job == "b":
            raise killed

    with pytest.raises(RuntimeError, match="killed"):
        delete_expired(runs.objects, runs.work_prefix("p"), keep_s=KEEP_S, now=NOW + KEEP_S + 1, unstage=dies)
    removed = present(read_removed(runs.objects, runs.work_prefix("p").job("a")))
    assert len(removed.used.objects) == 2
    assert runs.clean("p", now=NOW + KEEP_S + 1) == 2
    assert runs.names("b") == LEFT - {"removed.json"}
    assert present(read_removed(runs.objects, runs.work_prefix("p").job("a"))).used == removed.used


def test_outputs_that_were_removed_are_known_and_cannot_be_read(runs: Runs) -> None:
    """Their names, sizes and ETags are as before, so finished work is found finished; reading says what to do."""
    answered = [runs.job("a"), runs.job("b")]
    rows = OutputRows(runs.objects, OPENAI, "by_id")
    before = rows.source(answered)
    runs.use("p", "r", answered, at=NOW)
    runs.clean("p", now=NOW + KEEP_S + 1)
    assert rows.source(answered) == before
    with pytest.raises(FatalError, match=r"removed on 20\d\d-.*retention_days.*force pays"):
        list(rows.read(answered[0]))


def test_of_a_repaired_shard_no_job_is_blamed_for_what_was_removed(runs: Runs) -> None:
    """The account lies with the shard's own job; the repair's output is not taken for lost."""
    own, repair = runs.job("a"), msgspec.structs.replace(runs.job("b"), positions=[0])
    runs.use("p", "r", [own, repair], at=NOW)
    runs.clean("p", now=NOW + KEEP_S + 1)
    rows = OutputRows(runs.objects, OPENAI, "by_id")
    with pytest.raises(FatalError, match="retention_days") as refused:
        list(LatestRows(rows, [own, repair], contains_record=False).read(0))
    assert not isinstance(refused.value, OutputUnusable)


def test_an_output_that_nobody_removed_is_lost(runs: Runs) -> None:
    """That is the job's fault, and another matter."""
    answered = runs.job("a")
    runs.objects.delete(answered.uris[0])
    with pytest.raises(OutputUnusable, match="the job's output was deleted"):
        OutputRows(runs.objects, OPENAI, "by_id").source([answered])


def test_repair_finds_its_rounds_again_when_the_rows_are_gone(runs: Runs) -> None:
    """So that the ingest after it is about the same work."""
    answered = [runs.job("a"), runs.job("b")]
    runs.use("p", "r", answered, at=NOW)
    runs.clean("p", now=NOW + KEEP_S + 1)
    shard = Shard("0000", "s3://work/jobs/a/input.jsonl", "a", 1, 28)
    parameters = OPENAI.example_parameters
    repair = Repair(
        runs.objects, runs.work_prefix("p"), shard, adapter=OPENAI, parameters=parameters, inputs=["$.t"], rounds=2
    )
    found = repair.run(answered[0], lambda smaller: smaller)
    assert isinstance(found, RepairAccount)
    assert found.job_outputs == answered


def test_a_note_that_names_other_folders_deletes_nothing(runs: Runs) -> None:
    """Whoever can write a note below the work prefix cannot have another prefix emptied; later notes are obeyed."""
    for uri in ("s3://other/data/a", "s3://work/jobsX/a", "s3://work/p/run.json"):
        runs.objects.write(f"{uri}/input.jsonl", b"x")
        crafted = UsedJobs([JobOutput([], None, uri, "t")], [])
        note = f"{runs.work_prefix('p').retention()}20000101T000000-{uri.replace('/', '')}.json"
        save(runs.objects, note, RunUse(NOW - KEEP_S, [crafted]))
    runs.use("p", "r", [runs.job("a")], at=NOW)
    assert runs.clean("p", now=NOW + KEEP_S + 1) == 1
    assert runs.names("a") == LEFT
    for uri in ("s3://other/data/a", "s3://work/jobsX/a", "s3://work/p/run.json"):
        assert runs.objects.head(f"{uri}/input.jsonl") is not None


@pytest.mark.parametrize(
    ("uri", "goes"),
    [
        ("s3://other/data/a.jsonl", False),
        ("s3://work/jobs/a/../../p/run.json", False),
        ("openai://file-of-another", False),
        ("openai://file-now", True),
        ("openai://file-before", True),
        ("s3://elsewhere/out/a.out", True),
        ("s3://elsewhere/out-of-another/a.out", False),
    ],
)
def test_only_recorded_outputs_are_deleted(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, uri: str, *, goes: bool
) -> None:
    """Files below the job's folder or output location, and service files that its record names, of any submission."""
    answered, deleted = runs.job("a"), list[str]()
    record, etag = present(JobRecords(runs.objects, answered.folder).load())
    before = msgspec.structs.replace(record, remote_job={"output_file_id": "file-before"})
    record = msgspec.structs.replace(
        next_submission(before, record, ResubmitRequest()),
        remote_job={"output_file_id": "file-now"},
        output="s3://elsewhere/out",
    )
    assert JobRecords(runs.objects, answered.folder).write(record, etag=etag)
    used = UsedJobs([answered], [ObjectInfo(uri, 1, "e")])
    save(runs.objects, f"{runs.work_prefix('p').retention()}20000101T000000-r.json", RunUse(NOW, [used]))
    delete = runs.objects.delete

    def delete_and_note(uri: str) -> None:
        deleted.append(uri)
        delete(uri)

    monkeypatch.setattr(runs.objects, "delete", delete_and_note)
    assert runs.clean("p", now=NOW + KEEP_S + 1) == 1
    assert (uri in deleted) == goes


def test_a_note_that_cannot_be_read_is_skipped(runs: Runs) -> None:
    """The notes after it are obeyed, and it stays for whoever looks into it."""
    note = f"{runs.work_prefix('p').retention()}20000101T000000-r.json"
    runs.objects.write(note, b"{not json")
    runs.use("p", "r", [runs.job("a")], at=NOW)
    assert runs.clean("p", now=NOW + KEEP_S + 1) == 1
    assert (runs.names("a"), runs.objects.head(note) is not None) == (LEFT, True)
