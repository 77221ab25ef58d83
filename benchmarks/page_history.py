"""The history of `benchmarks.page`: files of runs in the object storage, written as the stages write them.

- 10,000 runs that have ended, one an hour. All have a summary; the newest `WHOLE` ones, which are read, also manifest,
  account, and the records of their four jobs.
- A run of 1,000 shards that has ended, and the same in progress: a quarter of its shards is written, a quarter has its
  job ended, a quarter has its job in flight, a quarter waits. Each has 100,000 dead letters in its written shards.
- 10,000 runs of requests that have ended, with summaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.ledger.verdicts import ShardReport, Verdicts
from opensearch_batch.core.runs.request_runs import account_for_request, announce_request
from opensearch_batch.core.runs.run_account import ShardOutcome, ShardRunAccount, ShardRunCounts
from opensearch_batch.core.runs.run_summary import (
    RunManifest,
    RunSummary,
    record_end,
    record_start,
    summary_of,
    summary_uri,
)
from opensearch_batch.core.storage.dead_letters import DeadLetters, dead_letter
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import DONE_WITH_DEAD_LETTERS, IngestCounts, IngestReport
from opensearch_batch.core.types.identity import digest, run_key
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import Manifest, PrepareCounts, ScopeClaim, Shard
from opensearch_batch.core.types.throughput import Interval, Throughput

PIPELINE, REQUESTS = "passages", "batch_ingestion"
RUNNING, ENDED = "of_many_shards_in_progress", "of_many_shards"
HOUR_S = 3_600.0
WHOLE, JOBS = 200, 4
RECORDS_A_SHARD = 500
WRITERS = 8


class Sizes(msgspec.Struct, frozen=True):
    """How many runs, shards of the large runs, and dead letters of each of them."""

    runs: int = 10_000
    shards: int = 1_000
    letters: int = 100_000


QUICK = Sizes(runs=300, shards=40, letters=2_000)


def name_of(number: int) -> str:
    """Return the id of a run of the pipeline; a later one has a larger number."""
    return f"scheduled__{number:05}"


def request_named(number: int) -> str:
    """Return the id of the run of a request."""
    return f"batch_ingest.{number:05}"


class History:
    """Writes the files.

    Args:
        objects: the store of the work prefix.
        work_prefix: that of the pipelines.
        sizes: how much is written.
        newest: the summary of a real run, whose index and model the written runs have.
        now: epoch seconds; the newest run began then.
    """

    def __init__(self, objects: Objects, work_prefix: str, sizes: Sizes, newest: RunSummary, *, now: float) -> None:
        self._objects = objects
        self._layout, self._requests = Layout(work_prefix, PIPELINE), Layout(work_prefix, REQUESTS)
        self._sizes, self._newest, self._now = sizes, newest, now

    def write(self) -> None:
        """Write everything."""
        runs, whole = self._sizes.runs, min(WHOLE, self._sizes.runs)
        self._each(range(runs - whole), self._summary)
        self._each(range(runs - whole, runs), self._run)
        self._each(range(runs - whole), lambda number: self._request(number, whole=False))
        self._each(range(runs - whole, runs), lambda number: self._request(number, whole=True))
        for run_id, has_ended in ((ENDED, True), (RUNNING, False)):
            self._large_run(run_id, has_ended=has_ended)

    def _each(self, numbers: Iterable[int], write: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, numbers))

    def started_at(self, number: int) -> float:
        """Return when a run began: an hour after the one before, the last one an hour before now."""
        return self._now - (self._sizes.runs - number) * HOUR_S

    def _manifest(self, run_id: str, started_at: float, shards: list[Shard], counts: PrepareCounts) -> Manifest:
        key = run_key(PIPELINE, run_id)
        return Manifest(
            pipeline=PIPELINE,
            run_key=key,
            run_id=run_id,
            started_at=started_at,
            source=self._newest.source,
            scope=self._newest.scope,
            service=self._newest.service,
            model_id=self._newest.model_id,
            index=self._newest.index,
            counts=counts,
            shards=shards,
            claim=ScopeClaim(1, key),
            version=1,
            attempt="1",
        )

    def _past(self, number: int) -> tuple[Manifest, ShardRunAccount]:
        """Return manifest and account of a run of 2,000 records, of which 120 were new or changed."""
        run_id, started_at = name_of(number), self.started_at(number)
        shards = [self._shard(f"{shard:04}", digest(run_id, str(shard)), 30) for shard in range(JOBS)]
        counts = PrepareCounts(
            objects=20, opened=4, read=2_000, records=2_000, new=20, input_changed=100, unchanged=1_880, before=1_990,
            kept=1_985, removed=5, paid=120,
        )  # fmt: skip
        outcomes = [ShardOutcome(shard.id, 30, 30) for shard in shards]
        account = ShardRunAccount(
            PIPELINE,
            run_key(PIPELINE, run_id),
            counts=ShardRunCounts(
                read=2_000, indexed=120, unchanged=1_880, objects=20, opened=4, shards=JOBS, before=1_990, kept=1_985,
                removed=5, paid=120,
            ),
            ended_at=started_at + 600,
            attempt="1",
            throughput=throughput(started_at, 120),
            shards=outcomes,
            source=self._newest.source,
        )  # fmt: skip
        return self._manifest(run_id, started_at, shards, counts), account

    def _shard(self, name: str, job: str, records: int) -> Shard:
        return Shard(name, job, records=records, documents=records, bytes=200 * records, staged=f"s3://staged/{job}")

    def _summary(self, number: int) -> None:
        manifest, account = self._past(number)
        read = msgspec.convert(msgspec.to_builtins(manifest), RunManifest)
        save(
            self._objects,
            summary_uri(self._layout, manifest.run_key, manifest.started_at),
            summary_of(read, account),
        )

    def _run(self, number: int) -> None:
        manifest, account = self._past(number)
        save(self._objects, self._layout.manifest(manifest.run_key), manifest)
        record_end(self._objects, self._layout, manifest, account)
        for shard in manifest.shards:
            self._job(shard, manifest.started_at, End("COMPLETED", manifest.started_at + 300))

    def _job(self, shard: Shard, at: float, end: End | None) -> None:
        name = f"{PIPELINE}-{shard.job[:20]}"
        folder = self._layout.job(shard.job)
        record = JobRecord(
            shard.job,
            name,
            self._newest.service,
            self._newest.model_id,
            f"{folder}/input.jsonl",
            f"{folder}/output/1/",
            at,
            ml_task_id=digest("task", shard.job)[:20],
            remote_job={"job_id": name, "TransformJobStatus": "InProgress"},
            pipeline=PIPELINE,
            end=end,
        )
        JobRecords(self._objects, folder).write(record, etag=None)

    def _large_run(self, run_id: str, *, has_ended: bool) -> None:
        count, started_at = self._sizes.shards, self._now - (HOUR_S / 2 if has_ended else 600)
        shards = [self._shard(f"{number:04}", digest(run_id, str(number)), RECORDS_A_SHARD) for number in range(count)]
        records = count * RECORDS_A_SHARD
        counts = PrepareCounts(objects=count, opened=count, read=records, records=records, new=records, paid=records)
        manifest = self._manifest(run_id, started_at, shards, counts)
        save(self._objects, self._layout.manifest(manifest.run_key), manifest)
        record_start(self._objects, self._layout, manifest)
        written = count // 4
        reports = dict[int, ShardReport]()

        def write(number: int) -> None:
            shard = shards[number]
            if number < written:
                reports[number] = self._written(manifest, shard, self._sizes.letters // written)
                save(self._objects, self._layout.ingest_report(manifest.run_key, shard.id), reports[number])
            if has_ended or number < count * 3 // 4:
                is_over = has_ended or number < count // 2
                self._job(shard, started_at, End("COMPLETED", started_at + 300) if is_over else None)

        self._each(range(count), write)
        if has_ended:
            self._end(manifest, reports)

    def _written(self, manifest: Manifest, shard: Shard, count: int) -> ShardReport:
        """Write the dead letters of a shard, and return the report of its ingest."""
        location = self._layout.dead_letters(manifest.run_key, "ingest", shard.id)
        reason = "400 mapper_parsing_exception: failed to parse field [year] of type [integer] in document with id '%d'"
        with DeadLetters(self._objects, location) as letters:
            for line in range(1, count + 1):
                record = b'{"_id": "%d", "year": "of the rat", "text": "%s"}' % (line, b"w" * 200)
                letters.add(
                    dead_letter(
                        record, stage="ingest", reason=reason % line, source="s3://documents/a.jsonl", line=line
                    )
                )
            letters.write()
            reasons = letters.reasons
        return ShardReport(
            manifest.index,
            DONE_WITH_DEAD_LETTERS,
            IngestCounts(read=RECORDS_A_SHARD, indexed=RECORDS_A_SHARD - count, dead_letters=count),
            dead_letters=location,
            reasons=reasons,
            throughput=throughput(manifest.started_at + 300, RECORDS_A_SHARD),
            verdicts=Verdicts(manifest.shard_digest(shard)),
            started_at=manifest.started_at + 300,
            ended_at=manifest.started_at + 400,
        )

    def _end(self, manifest: Manifest, reports: dict[int, ShardReport]) -> None:
        dead, read = sum(report.counts.dead_letters for report in reports.values()), manifest.counts.read
        account = ShardRunAccount(
            PIPELINE,
            manifest.run_key,
            counts=ShardRunCounts(
                read=read, indexed=read - dead, dead_letters=dead, objects=len(manifest.shards),
                opened=len(manifest.shards), shards=len(manifest.shards), paid=read,
            ),
            dead_letters=[report.dead_letters or "" for report in reports.values()],
            ended_at=self._now - HOUR_S / 4,
            attempt="1",
            reasons=[msgspec.structs.replace(reports[0].reasons[0], count=dead)],
            throughput=throughput(manifest.started_at + 300, read),
            shards=[
                ShardOutcome(
                    shard.id, RECORDS_A_SHARD, RECORDS_A_SHARD - letters, dead_letters=letters
                )
                for number, shard in enumerate(manifest.shards)
                for letters in (reports[number].counts.dead_letters if number in reports else 0,)
            ],
            source=manifest.source,
        )  # fmt: skip
        record_end(self._objects, self._layout, manifest, account)

    def _request(self, number: int, *, whole: bool) -> None:
        run_id, at = request_named(number), self.started_at(number)
        key = run_key(REQUESTS, run_id)
        if not whole:
            uri = summary_uri(self._requests, key, at)
            summary = RunSummary(
                pipeline=REQUESTS, run_key=key, run_id=run_id, started_at=at, ended_at=at + 60, is_scan=True,
                source="s3://documents/", index="my-nlp-index", shards=1,
            )  # fmt: skip
            save(self._objects, uri, summary)
            return
        manifest = announce_request(
            self._objects, self._requests, key, run_id=run_id, sources=["s3://documents/"], index="my-nlp-index",
            progress=f"{self._requests.root}/{REQUESTS}/ingested/a/progress.json", now=at,
        )  # fmt: skip
        report = IngestReport("my-nlp-index", "DONE", IngestCounts(read=100, indexed=100))
        account_for_request(self._objects, self._requests, manifest, report, now=at + 60)


def throughput(start_s: float, documents: int) -> Throughput:
    """Return a throughput of 60 intervals with so many documents each."""
    intervals = [Interval(float(int(start_s) + at), documents, 1, 0.05, 0.08) for at in range(60)]
    return Throughput(intervals=intervals)
