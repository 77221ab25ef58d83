"""Lists of runs and of jobs in flight: their order, what they cost, and what a damaged or refused summary does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.slots import Slot
from opensearch_batch.core.runs.run_account import ShardRunAccount, ShardRunCounts
from opensearch_batch.core.runs.run_lists import (
    MAX_LISTED_RUNS,
    OPEN_S,
    find_run,
    recent_runs,
    running_jobs,
)
from opensearch_batch.core.runs.run_summary import (
    HISTORY_S,
    RunSummary,
    delete_old_summaries,
    first_start,
    record_end,
    record_start,
    summary_uri,
)
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.identity import run_key
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.letter_reasons import LetterReason
from opensearch_batch.core.types.manifest import Manifest, Shard
from tests.core.counted_objects import CountedObjects
from tests.core.memory_objects import MemoryObjects
from tests.manifests import manifest_of

LAYOUT = Layout("s3://work", "p")
NOW = 1_800_000_000.0


def save_summary(objects: MemoryObjects, number: int, *, ended: bool = True) -> RunSummary:
    """Save the summary of a run that began so many minutes after `NOW`."""
    started_at = NOW + 60.0 * number
    summary = RunSummary(
        pipeline="p", run_key=f"k{number}", started_at=started_at, ended_at=started_at + 1 if ended else None
    )
    save(objects, summary_uri(LAYOUT, summary.run_key, started_at), summary)
    return summary


@pytest.fixture(scope="module")
def history() -> CountedObjects:
    """A pipeline with 10,000 runs."""
    objects = CountedObjects()
    for number in range(10_000):
        save_summary(objects, number)
    return objects


def keys(runs: list[RunSummary]) -> list[str]:
    """Return the keys of runs."""
    return [run.run_key for run in runs]


def test_the_newest_of_ten_thousand_runs_are_one_listing_and_one_read_each(history: CountedObjects) -> None:
    """They are read once, and an older page costs the same."""
    reader = CachedReader(history)
    with history.expect(LIST=1, GET=50):
        newest = recent_runs(reader, LAYOUT, limit=50)
    assert keys(newest) == [f"k{number}" for number in range(9_999, 9_949, -1)]
    with history.expect(LIST=1):
        assert recent_runs(reader, LAYOUT, limit=50) == newest
    with history.expect(LIST=1, GET=50):
        older = recent_runs(reader, LAYOUT, limit=50, before=newest[-1])
    assert keys(older) == [f"k{number}" for number in range(9_949, 9_899, -1)]
    oldest = RunSummary(pipeline="p", run_key="k20", started_at=NOW + 60 * 20)
    with history.expect(LIST=1, GET=20):
        assert len(recent_runs(reader, LAYOUT, limit=50, before=oldest)) == 20


def test_jobs_in_flight_are_found_without_the_ended_runs(history: CountedObjects) -> None:
    """The newest summaries tell which runs may have some."""
    reader = CachedReader(history)
    with history.expect(LIST=2, GET=MAX_LISTED_RUNS):
        assert running_jobs(reader, LAYOUT).jobs == []
    with history.expect(LIST=2):
        running_jobs(reader, LAYOUT)


@given(st.lists(st.tuples(st.integers(0, 10**12), st.sampled_from("abc")), unique=True, max_size=8))
def test_the_listing_of_summaries_is_the_order_of_time(runs: list[tuple[int, str]]) -> None:
    """The newest is the first; the name tells the start to the millisecond."""
    objects = MemoryObjects()
    for milliseconds, name in runs:
        record_start(objects, LAYOUT, manifest_at(milliseconds / 1000, f"{name}{milliseconds}"))
    found = recent_runs(CachedReader(objects), LAYOUT, limit=100)
    starts = [round(run.started_at * 1000) for run in found]
    assert starts == sorted((milliseconds for milliseconds, _ in runs), reverse=True)
    for item in list(objects.list(LAYOUT.summaries())):
        objects.write(item.uri, b"{")
    damaged = recent_runs(CachedReader(objects), LAYOUT, limit=100)
    assert [(run.run_key, run.started_at) for run in damaged] == [(run.run_key, run.started_at) for run in found]
    assert all("damaged" in run.remarks[0] for run in damaged)


def manifest_at(started_at: float, key: str = "r", **members: object) -> Manifest:
    """Return the manifest of a run."""
    return manifest_of(**{"run_key": key, "started_at": started_at, **members})


def test_a_run_writes_two_summaries_of_one_name() -> None:
    """The second replaces the first; both are small, whatever the number of shards."""
    objects = CountedObjects()
    shards = [Shard(str(number), f"job{number}", documents=2) for number in range(1_000)]
    manifest = manifest_at(NOW, shards=shards, remarks=["r"] * 1_000)
    with objects.expect(PUT=1):
        record_start(objects, LAYOUT, manifest)
    (first,) = objects.list(LAYOUT.summaries())
    counts = ShardRunCounts(read=2_000, indexed=1_999, dead_letters=1)
    account = ShardRunAccount(
        "p", "r", counts=counts, ended_at=NOW + 5, source="s3://d/", reasons=[LetterReason(1, "no")]
    )
    record_end(objects, LAYOUT, manifest, account)
    (second,) = objects.list(LAYOUT.summaries())
    assert second.uri == first.uri
    assert max(first.size_bytes, second.size_bytes) < 4_000
    (summary,) = recent_runs(CachedReader(objects), LAYOUT)
    assert (summary.shards, summary.jobs, summary.documents) == (1_000, 1_000, 2_000)
    assert (summary.counts, summary.dead_letters, summary.ended_at) == (counts, 1, NOW + 5)


class Refusing(MemoryObjects):
    """A store that does not take summaries."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, uri: str, content: bytes) -> None:
        """Write an object, unless it is a summary."""
        if uri.startswith(LAYOUT.summaries()):
            raise self._error
        super().write(uri, content)


def test_a_run_does_not_fail_because_its_summary_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A policy that does not allow the folder costs the list only; a store that is away is tried again."""
    record_start(Refusing(ConfigError("access denied")), LAYOUT, manifest_at(NOW))
    assert "the run will be missing in lists of runs: access denied" in caplog.text
    with pytest.raises(RetriableError, match="away"):
        record_start(Refusing(RetriableError("away")), LAYOUT, manifest_at(NOW))


def test_the_first_start_of_a_run_stays() -> None:
    """A damaged manifest, or one of an older version, has none."""
    objects = MemoryObjects()
    assert first_start(objects, LAYOUT, "r", now=7.0) == 7.0
    save(objects, LAYOUT.manifest("r"), manifest_at(5.0))
    assert first_start(objects, LAYOUT, "r", now=7.0) == 5.0
    for content in (b"{", b'{"pipeline":"p","run_key":"r"}'):
        objects.write(LAYOUT.manifest("r"), content)
        assert first_start(objects, LAYOUT, "r", now=7.0) == 7.0


def test_summaries_go_after_the_age_of_the_history() -> None:
    """One listing finds only those that are old."""
    objects = CountedObjects()
    for number in range(3):
        save_summary(objects, number)
    with objects.expect(LIST=1, DELETE=2):
        assert delete_old_summaries(objects, LAYOUT, now=NOW + HISTORY_S + 90.0) == 2
    assert keys(recent_runs(CachedReader(objects), LAYOUT)) == ["k2"]
    assert delete_old_summaries(objects, LAYOUT, now=NOW + HISTORY_S + 900.0, keep_s=HISTORY_S + 900.0) == 0


def test_a_run_is_found_by_its_id_its_key_or_as_the_newest() -> None:
    """A pipeline without runs has none to show."""
    objects = MemoryObjects()
    reader = CachedReader(objects)
    with pytest.raises(ConfigError, match="no run of pipeline p has had anything to do"):
        find_run(reader, LAYOUT)
    save_summary(objects, 1)
    assert find_run(reader, LAYOUT) == "k1"
    assert find_run(reader, LAYOUT, "scheduled 1") == run_key("p", "scheduled 1")
    assert find_run(reader, LAYOUT, run_key("p", "x")) == run_key("p", "x")


class Jobs:
    """A run that has not ended, and jobs."""

    def __init__(self) -> None:
        self.objects = CountedObjects()
        shards = [Shard(f"{number}", f"job{number}", records=number) for number in range(6)]
        manifest = manifest_at(NOW, shards=shards)
        save(self.objects, LAYOUT.manifest("r"), manifest)
        record_start(self.objects, LAYOUT, manifest)

    def add(self, key: str, at: float, *, slot: int | None = None, end: End | None = None) -> None:
        """Store the record of a job that was submitted at a time, and the slot that it holds."""
        record = JobRecord(key, f"n {key}", "openai", "m", "i", "o", at, ml_task_id=f"t {key}", end=end)
        JobRecords(self.objects, LAYOUT.job(key)).write(record, etag=None)
        if slot is not None:
            save(self.objects, f"{LAYOUT.slots('openai', 'm')}/{slot:04d}.json", Slot(LAYOUT.job(key), at))


@pytest.fixture
def jobs() -> Jobs:
    """Two jobs of the run are in flight, one has ended; one of another pipeline holds a slot, and one slot is free."""
    jobs = Jobs()
    jobs.add("job0", NOW + 3, slot=0)
    jobs.add("job1", NOW + 1)
    jobs.add("job2", NOW + 2, end=End("COMPLETED", NOW + 4), slot=1)
    jobs.add("foreign", NOW, slot=2)
    save(jobs.objects, f"{LAYOUT.slots('openai', 'm')}/0003.json", Slot())
    return jobs


def test_the_jobs_in_flight_are_those_of_slots_and_of_runs_that_have_not_ended(jobs: Jobs) -> None:
    """The oldest is the first."""
    reader = CachedReader(jobs.objects)
    # The slots, the summary, the manifest, the records of seven jobs, and what three of them reported.
    with jobs.objects.expect(LIST=2, GET=4 + 1 + 1 + 7 + 3):
        found = running_jobs(reader, LAYOUT, now=NOW + 10)
    assert [(job.job_key, job.run_key, job.shard, job.records, job.state) for job in found.jobs] == [
        ("foreign", "", "", 0, "RUNNING"),
        ("job1", "r", "1", 1, "RUNNING"),
        ("job0", "r", "0", 0, "RUNNING"),
    ]
    assert found.jobs[0].ml_task_id == "t foreign"


def test_the_holders_of_slots_are_read_first(jobs: Jobs) -> None:
    """Then what the bound leaves of the others."""
    # Four slots, three holders, and what two of them reported.
    found = running_jobs(CachedReader(jobs.objects), LAYOUT, max_reads=4 + 3 + 2, now=NOW + 10)
    assert [job.job_key for job in found.jobs] == ["foreign", "job0"]
    assert found.unread == 4


def test_a_run_that_failed_long_ago_has_no_jobs_in_flight(jobs: Jobs) -> None:
    """Only slots name its jobs."""
    found = running_jobs(CachedReader(jobs.objects), LAYOUT, now=NOW + OPEN_S + 1)
    assert [(job.job_key, job.shard) for job in found.jobs] == [("foreign", ""), ("job0", "")]
