"""One run as the read model has it: at each stage of a whole run, after it, and in an exact number of requests."""

from __future__ import annotations

import itertools
import re

import msgspec
import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.job_records import JobRecords, PolledStatus, polled_status_uri
from opensearch_batch.core.ledger.verdicts import ShardReport, Verdicts
from opensearch_batch.core.runs.dead_letter_samples import dead_letters_of_run
from opensearch_batch.core.runs.job_state import FRESH_S
from opensearch_batch.core.runs.repair import RepairJob
from opensearch_batch.core.runs.run_account import reconcile
from opensearch_batch.core.runs.run_details import MAX_READS, RunDetails, run_details
from opensearch_batch.core.runs.run_lists import recent_runs
from opensearch_batch.core.runs.run_reading import LISTED_FRESH_S
from opensearch_batch.core.runs.run_summary import record_end
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.dead_letters import DeadLetters, dead_letter
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import REPAIR, Manifest, PrepareCounts, Shard
from opensearch_batch.core.types.throughput import Interval, Throughput
from tests.core.counted_objects import CountedObjects
from tests.core.memory_objects import MemoryObjects
from tests.core.whole_runs import Pipeline, Run
from tests.manifests import manifest_of
from tests.stored import present

LAYOUT = Layout("s3://work", "p")
SHARDS = 1_000


def progress_of(details: RunDetails) -> dict[str, tuple[int, int]]:
    """Return what is done of each stage."""
    return {each.stage: (each.done, each.total) for each in details.stages}


def states_of(details: RunDetails) -> list[str]:
    """Return the states of the shards."""
    return [shard.state for shard in details.shards]


@pytest.fixture
def pipeline() -> Pipeline:
    """Six records, of which the service fails for one, and a line that is no record."""
    pipeline = Pipeline(max_dead_letters="100%")
    pipeline.put("a.jsonl", *({"id": f"d{number}", "text": "t" * (number + 1)} for number in range(6)))
    pipeline.put_content("b.jsonl", b"{oops\n")
    pipeline.service.fails["t"] = 2
    return pipeline


def test_a_run_is_seen_stage_by_stage(pipeline: Pipeline) -> None:
    """The shards go through their states, and the sums grow with them."""
    run, reader = pipeline.new_run(), CachedReader(pipeline.objects, clock=itertools.count(step=100).__next__)
    seen = []
    while run.stages:
        stage = run.stages[0]
        stage()
        run.stages.remove(stage)
        details = run_details(reader, pipeline.layout, run.key)
        seen.append((states_of(details), progress_of(details)))
    prepared = {"prepare": (7, 7), "repair": (0, 0), "reconcile": (0, 1)}
    assert seen == [
        (["waiting", "waiting"], prepared | {"batch_predict": (0, 2), "poll": (0, 2), "ingest": (0, 6)}),
        (["predicted", "waiting"], prepared | {"batch_predict": (1, 2), "poll": (1, 2), "ingest": (0, 6)}),
        (
            ["written", "waiting"],
            prepared | {"batch_predict": (1, 2), "poll": (1, 2), "ingest": (2, 5), "repair": (0, 1)},
        ),
        (
            ["written", "predicted"],
            prepared | {"batch_predict": (2, 2), "poll": (2, 2), "ingest": (2, 5), "repair": (0, 1)},
        ),
        (
            ["written", "written", "waiting"],
            prepared | {"batch_predict": (2, 2), "poll": (2, 2), "ingest": (5, 5), "repair": (0, 1)},
        ),
        (
            ["written", "written", "predicted"],
            prepared | {"batch_predict": (3, 3), "poll": (3, 3), "ingest": (5, 5), "repair": (0, 1)},
        ),
        (
            ["written"] * 3,
            prepared | {"batch_predict": (3, 3), "poll": (3, 3), "ingest": (5, 5), "repair": (1, 1)},
        ),
        (
            ["written"] * 3,
            prepared
            | {"batch_predict": (3, 3), "poll": (3, 3), "ingest": (5, 5), "repair": (1, 1), "reconcile": (1, 1)},
        ),
    ]


def finished(pipeline: Pipeline) -> tuple[Run, RunDetails]:
    """Run to the end."""
    run = pipeline.run()
    return run, run_details(CachedReader(pipeline.objects), pipeline.layout, run.key)


def test_the_sums_of_a_run_are_those_of_its_account_and_its_files(pipeline: Pipeline) -> None:
    """Details, list, account and stored dead letters have the same numbers, also when the files of the run are gone."""
    run, details = finished(pipeline)
    account = present(run.account)
    assert (details.indexed, details.dead_letters, details.settled, details.documents) == (5, 2, 6, 6)
    assert details.summary.counts == account.counts
    assert details.summary.has_ended
    assert sum(each.documents for each in details.throughput.intervals) == details.settled
    assert sum(each.requests for each in details.throughput.intervals) == 2
    (listed,) = recent_runs(CachedReader(pipeline.objects), pipeline.layout)
    assert listed == details.summary
    assert listed.run_id == run.run_id
    assert [(reason.stage, reason.count) for reason in listed.reasons] == [("prepare", 1), ("ingest", 1)]
    for item in list(pipeline.objects.list(pipeline.layout.ingest_reports(run.key))):
        pipeline.objects.delete(item.uri)
    assert run_details(CachedReader(pipeline.objects), pipeline.layout, run.key) == details


def test_dead_letters_are_sampled_by_reason(pipeline: Pipeline) -> None:
    """Each counted reason has its first letter, and the letters that are there now are the samples."""
    run, details = finished(pipeline)
    reader = CachedReader(pipeline.objects)
    found = dead_letters_of_run(reader, pipeline.layout, run.key)
    assert (found.count, found.read, found.is_complete) == (2, 2, True)
    assert [letter.stage for letter in found.samples] == ["ingest", "prepare"]
    assert found.locations == details.dead_letter_locations
    assert [reason.reason for reason in reversed(found.reasons)] == [letter.reason for letter in found.samples]
    assert found.reasons[0].record == "{oops"
    for reason in (found.samples[1].reason, "not JSON", re.sub(r"\d", "7", found.samples[1].reason)):
        only = dead_letters_of_run(reader, pipeline.layout, run.key, reason=reason)
        assert only.samples == found.samples[1:]
    assert not dead_letters_of_run(reader, pipeline.layout, run.key, max_letters=1).is_complete


def test_few_files_of_many_dead_letters_are_read() -> None:
    """One listing finds them, wherever the ingests of a thousand shards have left them; another prefix has its own."""
    run = ManyShards()
    elsewhere = "s3://work/dead/"
    for number, shard in enumerate(run.manifest.shards):
        location = LAYOUT.dead_letters("r", "ingest", shard.id) if number else elsewhere
        with DeadLetters(run.objects, location) as letters:
            for line in range(2):
                letters.add(dead_letter(b"x", stage="ingest", reason=f"no {line} of {number}", source="s", line=line))
            letters.write()
        verdicts = Verdicts(run.manifest.shard_digest(shard))
        counts = IngestCounts(read=10, indexed=8, dead_letters=2)
        report = ShardReport("i", "DONE", counts, letters.location, verdicts=verdicts, reasons=letters.reasons)
        save(run.objects, LAYOUT.ingest_report("r", shard.id), report)
    account = reconcile(run.objects, LAYOUT, run.manifest, run.manifest.shards, now=9.0)
    record_end(run.objects, LAYOUT, run.manifest, account)
    save(run.objects, f"{LAYOUT.all_dead_letters('r')}ingest-of-an-earlier-attempt/00001.jsonl", Letterless())
    reader = CachedReader(run.objects)
    with run.objects.expect(LIST=1, GET=2 + 20):
        found = dead_letters_of_run(reader, LAYOUT, "r")
    assert (found.count, found.read, found.is_complete) == (2_000, 40, False)
    assert [(reason.reason, reason.count) for reason in found.reasons] == [("no 0 of 0", 2_000)]
    assert len(found.samples) == 1
    whole = dead_letters_of_run(reader, LAYOUT, "r", max_letters=None, max_parts=None)
    assert (whole.read, whole.is_complete) == (2_000, True)
    with run.objects.expect(GET=2):
        assert not dead_letters_of_run(reader, LAYOUT, "r", limit=0).is_complete


class Letterless(msgspec.Struct):
    """No dead letter."""


def test_a_cleared_prepare_begins_again(pipeline: Pipeline) -> None:
    """The account and the reports of the earlier attempt do not count; the run keeps its place in the list."""
    run, before = finished(pipeline)
    pipeline.put("c.jsonl", {"id": "new", "text": "new"})
    again = Run(pipeline, run.key, run.source, pipeline.clock + 1, pipeline.options)
    again.prepare()
    details = run_details(CachedReader(pipeline.objects), pipeline.layout, run.key)
    assert not details.summary.has_ended
    assert (details.settled, details.documents) == (0, 1)
    assert details.summary.started_at == before.summary.started_at
    assert recent_runs(CachedReader(pipeline.objects), pipeline.layout) == [details.summary]


@pytest.mark.parametrize("steps", [*range(3, 105, 6), *range(105, 123)])
def test_a_run_that_is_killed_anywhere_can_be_read(pipeline: Pipeline, steps: int) -> None:
    """What is read never exceeds what there is, is the same in the list, and is complete when the run has ended."""
    run = pipeline.new_run()
    for lives in (steps, steps + 5, 1_000):
        run.killed_after(lives)
        for summary in recent_runs(CachedReader(pipeline.objects), pipeline.layout):
            details = run_details(CachedReader(pipeline.objects), pipeline.layout, summary.run_key)
            assert details.settled == sum(each.documents for each in details.throughput.intervals) <= details.documents
            assert details.settled == details.indexed + details.unchanged + details.dead_letters - 1
            assert sum(reason.count for reason in details.reasons) == details.dead_letters
            # The account is written before the summary.
            assert details.summary == summary or details.summary.has_ended > summary.has_ended
    assert (details.settled, details.summary.has_ended) == (6, True)


def test_a_run_without_a_manifest_is_refused(pipeline: Pipeline) -> None:
    """A name was misspelled."""
    with pytest.raises(ConfigError, match=r"k/manifest.json: no such run"):
        run_details(CachedReader(pipeline.objects), pipeline.layout, "k")


@pytest.mark.parametrize("job", ["", "repairing"], ids=["without its job", "with its job"])
def test_the_repair_of_a_run_in_progress(job: str) -> None:
    """Its shard loses a job that did not succeed; a job of an earlier attempt does not count."""
    objects = MemoryObjects()
    manifest = manifest_of(shards=[Shard("0000", staged="s3://work/staged/0", documents=3)], attempt="2")
    save(objects, LAYOUT.manifest("r"), manifest)
    verdicts = Verdicts(manifest.shard_digest(manifest.shards[0]), unanswered=1)
    save(objects, LAYOUT.ingest_report("r", "0000"), ShardReport("i", "DONE", IngestCounts(read=2), verdicts=verdicts))
    earlier = msgspec.structs.replace(manifest, attempt="1")
    for attempt, found in ((earlier, ""), (manifest, "repairing")):
        identity = f"{attempt.shard_digest(Shard(REPAIR))} keys"
        save(objects, LAYOUT.repair_job("r"), RepairJob("repairing", 1, identity))
        details = run_details(CachedReader(objects), LAYOUT, "r")
        assert (states_of(details), details.shards[-1].job is not None) == (["written", "waiting"], bool(found))
    shard = Shard(REPAIR, job=job, staged=LAYOUT.staged("r", REPAIR))
    report = ShardReport("i", "DONE", IngestCounts(read=1), verdicts=Verdicts(manifest.shard_digest(shard)))
    save(objects, LAYOUT.ingest_report("r", REPAIR), report)
    details = run_details(CachedReader(objects), LAYOUT, "r")
    assert (states_of(details), progress_of(details)["repair"]) == (["written", "written"], (1, 1))


class ManyShards:
    """A run of 1,000 shards of ten records each, each with a job."""

    def __init__(self) -> None:
        self.objects = CountedObjects()
        shards = [
            Shard(f"{number:04}", f"job{number}", records=10, staged=f"s3://work/staged/{number}", documents=10)
            for number in range(SHARDS)
        ]
        counts = PrepareCounts(read=10 * SHARDS, records=10 * SHARDS, new=10 * SHARDS)
        self.manifest: Manifest = manifest_of(shards=shards, counts=counts, attempt="1", started_at=5.0)
        save(self.objects, LAYOUT.manifest("r"), self.manifest)

    def submit(self, number: int, *, ended: bool = False) -> None:
        """Store the record of a job."""
        record = JobRecord(f"job{number}", f"n{number}", "openai", "m", "i", "o", 1.0, ml_task_id=f"t{number}")
        end = End("COMPLETED", 2.0) if ended else None
        JobRecords(self.objects, LAYOUT.job(record.job)).write(msgspec.structs.replace(record, end=end), etag=None)

    def write(self, number: int) -> None:
        """Store the report of a shard."""
        shard = self.manifest.shards[number]
        report = ShardReport(
            "i",
            "DONE",
            IngestCounts(read=10, indexed=10),
            verdicts=Verdicts(self.manifest.shard_digest(shard)),
            throughput=Throughput(1.0, [Interval(float(number), 10, 1, 0.5, 0.5)]),
        )
        save(self.objects, LAYOUT.ingest_report("r", shard.id), report)


@pytest.fixture(scope="module")
def running() -> ManyShards:
    """The first half of the shards is written, ten jobs are in flight, and the others are not submitted."""
    run = ManyShards()
    for number in range(500):
        run.submit(number, ended=True)
        run.write(number)
    for number in range(500, 510):
        run.submit(number)
    status = PolledStatus(1, "in_progress", {"completed": 4})
    save(run.objects, polled_status_uri(LAYOUT.job("job500")), status)
    return run


def test_a_run_of_many_shards_is_read_in_bounded_steps(running: ManyShards) -> None:
    """Each request reads at most what it may, and goes on where the one before has stopped."""
    now = [0.0]
    reader = CachedReader(running.objects, clock=lambda: now[0])
    unread = []
    for _ in range(500 // MAX_READS):
        with running.objects.expect(LIST=1, GET=1 + 1 + MAX_READS):
            details = run_details(reader, LAYOUT, "r", first=500, limit=20)
        unread.append(details.unread)
        now[0] += LISTED_FRESH_S
    assert unread[:1] == [500 - MAX_READS + 500]
    # All reports are remembered; now the jobs are read, the shown ones first.
    with running.objects.expect(LIST=1, GET=2 + MAX_READS):
        details = run_details(reader, LAYOUT, "r", first=500, limit=20)
    assert details.shard_states == {"written": 500, "predicting": 10, "waiting": 30, "unknown": 460}
    assert (details.shards[0].job is not None, details.unread) == (True, 460)


def test_a_run_of_many_shards_is_read_whole_and_then_remembered(running: ManyShards) -> None:
    """Without a bound, everything is read at once; after that, only what may have changed."""
    now = [0.0]
    reader = CachedReader(running.objects, clock=lambda: now[0])
    # Manifest and account, the reports, the jobs that are shown or not written yet, and the status of those in flight.
    with running.objects.expect(LIST=1, GET=2 + 500 + 50 + 500 + 10):
        details = run_details(reader, LAYOUT, "r", max_reads=None)
    assert (details.unread, details.settled, details.indexed) == (0, 5_000, 5_000)
    assert details.shard_states == {"written": 500, "predicting": 10, "waiting": 490}
    assert details.job_states == {"COMPLETED": 500, "RUNNING": 10, "WAITING": 490}
    assert details.seconds_left is None
    with running.objects.expect(GET=2):
        assert run_details(reader, LAYOUT, "r", max_reads=None) == details
    now[0] = FRESH_S
    with running.objects.expect(LIST=1, GET=2 + 500):
        assert run_details(reader, LAYOUT, "r", max_reads=None) == details


def test_the_shards_in_a_state_are_shown(running: ManyShards) -> None:
    """So many of them as there are, whatever comes before them."""
    reader = CachedReader(running.objects)
    details = run_details(reader, LAYOUT, "r", state="predicting", limit=4, max_reads=None)
    assert [shard.id for shard in details.shards] == ["0500", "0501", "0502", "0503"]
    assert (details.shards_found, set(states_of(details))) == (10, {"predicting"})
    last = run_details(reader, LAYOUT, "r", state="written", first=498, max_reads=None)
    assert [(shard.id, present(shard.job).state) for shard in last.shards] == [
        ("0498", "COMPLETED"),
        ("0499", "COMPLETED"),
    ]
    assert run_details(reader, LAYOUT, "r", state="failed", max_reads=None).shards_found == 0
    assert run_details(reader, LAYOUT, "r").shards_found == SHARDS


def test_a_job_that_was_not_read_is_needed_nevertheless(running: ManyShards) -> None:
    """A page tells it from a shard without a job."""
    (shard,) = run_details(CachedReader(running.objects), LAYOUT, "r", first=900, limit=1, max_reads=0).shards
    assert (shard.needs_job, shard.job, shard.state) == (True, None, "unknown")


def test_the_counts_of_the_service_are_those_of_the_last_poll(running: ManyShards) -> None:
    """A job that has not been polled has none."""
    reader = CachedReader(running.objects)
    first, second = run_details(reader, LAYOUT, "r", first=500, limit=2, max_reads=None).shards
    assert (present(first.job).service_state, present(first.job).counts) == ("in_progress", {"completed": 4})
    assert (present(second.job).state, present(second.job).counts) == ("RUNNING", {})


def test_an_ended_run_of_many_shards_needs_three_reads_and_its_shown_jobs() -> None:
    """Its account has the parts of the sum."""
    run = ManyShards()
    for number in range(SHARDS):
        run.submit(number, ended=True)
        run.write(number)
    account = reconcile(run.objects, LAYOUT, run.manifest, run.manifest.shards, now=9.0)
    record_end(run.objects, LAYOUT, run.manifest, account)
    reader = CachedReader(run.objects)
    with run.objects.expect(GET=2 + 50):
        details = run_details(reader, LAYOUT, "r")
    assert (details.shard_states, details.unread) == ({"written": SHARDS}, 0)
    assert (details.indexed, details.summary.ended_at) == (10 * SHARDS, 9.0)
    assert len(details.throughput.intervals) <= 120
    assert sum(each.documents for each in details.throughput.intervals) == 10 * SHARDS
    with run.objects.expect(GET=2):
        run_details(reader, LAYOUT, "r")
