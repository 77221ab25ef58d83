"""Files go when their time has come; what was paid for stays known, and what a run needs stays there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.jobs.job_records import JobRecords, decide, next_submission
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.compaction import SMALL_SEGMENTS
from opensearch_batch.core.ledger.garbage import GRACE_S, new_name
from opensearch_batch.core.ledger.head import Entry, Head
from opensearch_batch.core.ledger.predictions import MIN_RETENTION_S, NewShard, PredictionStore
from opensearch_batch.core.runs.retention import UNSUBMITTED_S, Retention
from opensearch_batch.core.runs.run_summary import HISTORY_S, RunSummary, summary_uri
from opensearch_batch.core.storage.json_document import JsonDocument, save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.job import End, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import ScopeClaim
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects
from tests.stored import present

DAY_S = 86_400.0
KEEP_S = 30 * DAY_S
START = 1_800_000_000.0
KEYS = [bytes([n]) * 16 for n in range(4)]
FILES = {"input.jsonl", "output/1/input.jsonl.out", "failures-1.json"}


class Killed(BaseException):
    """The process is killed."""


class Work:
    """The files of pipelines that share a work prefix."""

    def __init__(self) -> None:
        self.now = START
        self.objects = MemoryObjects(lambda: self.now)
        self.layout = Layout("s3://work", "p")
        self.unstaged: list[str] = []

    def store(self, pipeline: str = "p", *, shared: bool = False) -> PredictionStore:
        """The prediction store of a pipeline."""
        folder = Layout("s3://work", pipeline).predictions(shared=shared)
        return PredictionStore(self.objects, folder, clock=lambda: self.now)

    def job(self, key: str, *, pipeline: str = "p", **changes: Any) -> JobRecord:
        """A job that was paid for, with its files."""
        folder = self.layout.job(key)
        for name in FILES:
            self.objects.write(f"{folder}/{name}", b"{}\n")
        uri, output = f"{folder}/input.jsonl", f"{folder}/output/1/"
        record = JobRecord(key, "n", "openai", "m", uri, output, self.now, pipeline=pipeline, staged={"f": key})
        defaults = {"ml_task_id": "t", "end": End("COMPLETED", self.now)}
        record = msgspec.structs.replace(record, **{**defaults, **changes})
        assert JobRecords(self.objects, folder).write(record, etag=None)
        return record

    def head(self, pipeline: str, scope: str, *segments: str) -> None:
        """Commit a head that names segments."""
        entry = Entry("rows", 0, 1, etag="e", segments=dict.fromkeys(segments, 1))
        save(self.objects, Layout("s3://work", pipeline).scope_head(scope), Head(objects={"s3://d/a": entry}))

    def clean(self, *, days: float = 0, keep_s: float | None = KEEP_S, pipeline: str = "p", **store: bool) -> int:
        """Let a pipeline remove what is too old, some days later."""
        self.now += days * DAY_S
        retention = Retention(
            self.objects,
            Layout("s3://work", pipeline),
            self.store(pipeline, **store),
            outputs=lambda record, response: adapter_of(record.service).outputs(record, response),
            unstage=lambda record: self.unstaged.append(record.staged["f"]),
        )
        return retention.run(keep_s, now=self.now)

    def names(self, folder: str) -> set[str]:
        """What is in a folder."""
        return {item.uri.removeprefix(f"{folder}/") for item in self.objects.list(f"{folder}/")}

    def of_job(self, key: str) -> set[str]:
        """What is in the folder of a job."""
        return self.names(self.layout.job(key))

    def record(self, key: str) -> JobRecord:
        """The record of a job."""
        return present(JobRecords(self.objects, self.layout.job(key)).read())


@pytest.fixture
def work() -> Work:
    """No files yet."""
    return Work()


def reserve(store: PredictionStore, key: str, *keys: bytes) -> None:
    """Open the shard of a job."""
    store.reserve(keys, lambda located: [NewShard(key, b"".join(keys))] if len(located.absent()) else [])


def test_the_files_of_a_job_go_after_their_time_and_its_record_stays(work: Work) -> None:
    """Not a second before; what was uploaded goes too; a second cleaning finds nothing."""
    work.job("a")
    assert work.clean(days=30 - 0.001) == 0
    assert work.of_job("a") == {"job.json", *FILES}
    assert work.clean(days=0.001) == 1
    assert (work.of_job("a"), work.unstaged) == ({"job.json"}, ["a"])
    assert work.clean(days=100) == 0


def test_a_job_whose_files_were_removed_is_submitted_again_with_another_number(work: Work) -> None:
    """Its name at the service differs then, and the store takes the new answers."""
    work.job("a")
    assert decide(work.record("a"), ResubmitRequest()) == "reuse"
    work.clean(days=31)
    assert decide(work.record("a"), ResubmitRequest()) == "resubmit"
    draft = msgspec.structs.replace(work.record("a"), submission=2, removed_at=None, end=None)
    assert decide(next_submission(work.record("a"), draft, ResubmitRequest()), ResubmitRequest()) == "reattach"


@pytest.mark.parametrize(
    ("changes", "goes"),
    [
        ({"end": None}, False),
        ({"end": None, "ml_task_id": None}, False),
        ({"end": End("COMPLETED", START + 5 * DAY_S)}, False),
        ({"end": End("FAILED", START)}, True),
        ({"end": None, "ml_task_id": None, "refused": "no such model"}, True),
        ({"pipeline": "q"}, False),
        ({"pipeline": ""}, False),
    ],
)
def test_only_own_jobs_that_have_ended_go(work: Work, changes: dict[str, Any], *, goes: bool) -> None:
    """A running job reads its input; another pipeline may keep its files longer."""
    work.job("a", **changes)
    assert work.clean(days=31) == goes
    assert work.of_job("a") == ({"job.json"} if goes else {"job.json", *FILES})


def test_a_run_that_needs_a_job_again_keeps_its_files(work: Work) -> None:
    """Also a run of another pipeline, which has its own store: prepare writes the input again."""
    work.job("a")
    work.now += 31 * DAY_S
    work.objects.write(f"{work.layout.job('a')}/input.jsonl", b"{}\n")
    assert work.clean() == 0
    assert work.clean(days=31) == 1


def test_an_output_that_no_run_has_read_is_kept_longer(work: Work) -> None:
    """It was paid for; after a time in which any run ends, its shard is closed and the files go."""
    store = work.store()
    reserve(store, "a", *KEYS[:2])
    work.job("a")
    assert work.clean(days=2, keep_s=DAY_S) == 0
    assert work.clean(days=MIN_RETENTION_S / DAY_S, keep_s=DAY_S) == 1
    assert store.head().open == {}
    assert work.of_job("a") == {"job.json"}


def test_an_open_shard_is_closed_before_its_files_go(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a run would find the shard, and could not submit its job."""
    reserve(work.store(), "a", *KEYS[:2])
    work.job("a")

    def killed(_: str) -> None:
        raise Killed("delete")

    monkeypatch.setattr(work.objects, "delete", killed)
    with pytest.raises(Killed, match="delete"):
        work.clean(days=31)
    monkeypatch.undo()
    assert work.store().head().open == {}
    assert decide(work.record("a"), ResubmitRequest()) == "resubmit"
    assert work.clean() == 0
    assert work.clean(days=31) == 1


def test_an_input_that_was_never_submitted_goes(work: Work) -> None:
    """With its shard; that of an unknown pipeline, which may submit it, much later."""
    for key in "ab":
        work.objects.write(f"{work.layout.job(key)}/input.jsonl", b"{}\n")
    reserve(work.store(), "a", *KEYS[:2])
    assert work.clean(days=31) == 1
    assert (work.of_job("a"), work.of_job("b"), work.store().head().open) == (set(), {"input.jsonl"}, {})
    assert work.clean(days=UNSUBMITTED_S / DAY_S) == 1


@pytest.mark.parametrize(
    ("service", "changes", "uri", "goes"),
    [
        ("openai", {"remote_job": {"output_file_id": "file-1"}}, "openai://file-1", True),
        ("openai", {"remote_job": {"output_file_id": "file-1"}}, "openai://file-2", False),
        ("openai", {"history": [{"remote_job": {"output_file_id": "file-0"}}]}, "openai://file-0", True),
        ("cohere", {"remote_job": {"output_dataset_id": "dataset-1"}}, "cohere://dataset-1", True),
        ("sagemaker", {"output": "s3://mine/out", "remote_job": {"x": 1}}, "s3://mine/out/input.jsonl.out", True),
        ("sagemaker", {"output": "s3://mine/out", "remote_job": {"x": 1}}, "s3://mine/out/another.jsonl.out", False),
        (
            "sagemaker",
            {"output": "s3://mine/out", "input": "s3://mine/in/job.manifest", "remote_job": {"x": 1}},
            "s3://mine/out/input.jsonl.out",
            False,
        ),
    ],
)
def test_outputs_elsewhere_go_if_the_record_names_them(
    work: Work, service: str, changes: dict[str, Any], uri: str, *, goes: bool
) -> None:
    """The service keeps them, or the user has chosen their folder; what is beside them stays."""
    work.job("a", service=service, **changes)
    work.objects.write(uri, b"{}\n")
    assert work.clean(days=31) == 1
    assert (work.objects.head(uri) is None) == goes


def test_a_pipeline_without_retention_keeps_everything(work: Work) -> None:
    """Of another pipeline that shares its store, the retention knows what it needs."""
    store = work.store(shared=True)
    for number, job in enumerate(("own", "other", "nobody")):
        store.add(job, 1, [(KEYS[number], StoredAnswer(b"1"))])
    own, other, _ = store.head().segments
    work.job("a")
    work.head("p", "scope", own)
    work.head("q", "scope", other)
    assert work.clean(days=31, keep_s=None, pipeline="q", shared=True) == 0
    assert work.of_job("a") == {"job.json", *FILES}
    for _ in range(2):
        work.clean(days=31, shared=True)
    assert list(store.head().segments) == [own, other]


def test_answers_stay_as_long_as_any_head_names_them(work: Work) -> None:
    """Of all scopes; a head that cannot be read deletes nothing."""
    store = work.store()
    for number in range(3):
        store.add(f"job{number}", 1, [(KEYS[number], StoredAnswer(b"1"))])
    one, two, three = store.head().segments
    work.head("p", "one", one, three)
    work.head("p", "two", two)
    for _ in range(2):
        work.clean(days=31)
    assert list(store.head().segments) == [one, two, three]
    work.head("p", "one", one)
    work.clean()
    assert list(store.head().segments) == [one, two, three]
    work.objects.write(work.layout.scope_head("two"), b"{")
    with pytest.raises(FatalError, match="ledger/two"):
        work.clean(days=31)
    work.head("p", "two", two)
    work.clean()
    assert list(store.head().segments) == [one, two]


def test_the_files_of_a_run_go_but_not_its_account_and_its_dead_letters(work: Work) -> None:
    """A run that has not ended keeps its files longer; other folders of the pipeline are no runs."""
    staged = {"ledger.json", "rows/x.parquet", "staged/0000.parquet", "ingest/0000.json"}
    kept = {"manifest.json", "dead_letters/prepare/00000.jsonl"}
    for run in ("ended", "failed"):
        for name in (*staged, *kept, *(["run.json"] if run == "ended" else [])):
            work.objects.write(f"{work.layout.run(run)}/{name}", b"{}")
    work.objects.write(f"{work.layout.outbox()}event.json", b"{}")
    work.clean(days=1, keep_s=2 * DAY_S)
    assert work.names(work.layout.run("ended")) == {*staged, *kept, "run.json"}
    work.clean(days=1, keep_s=2 * DAY_S)
    assert work.names(work.layout.run("ended")) == {*kept, "run.json"}
    assert work.names(work.layout.run("failed")) == {*staged, *kept}
    work.clean(days=MIN_RETENTION_S / DAY_S, keep_s=2 * DAY_S)
    assert work.names(work.layout.run("failed")) == kept
    assert work.objects.head(f"{work.layout.outbox()}event.json") is not None


def test_summaries_of_runs_go_after_the_history_or_the_retention(work: Work) -> None:
    """The longer one of both; nothing goes without a retention."""
    folder, summary = work.layout.summaries().rstrip("/"), RunSummary(pipeline="p", run_key="r")
    for days in (0, 800):
        save(work.objects, summary_uri(work.layout, f"r{days}", START + days * DAY_S), summary)
    names = work.names(folder)
    work.clean(days=HISTORY_S / DAY_S - 1)
    work.clean(days=10, keep_s=900 * DAY_S)
    work.clean(keep_s=None)
    assert work.names(folder) == names
    work.clean()
    assert [name.split("-")[1] for name in work.names(folder)] == ["r800.json"]


def test_what_the_next_run_needs_of_a_failed_run_stays(work: Work) -> None:
    """All of it until a run has committed; then what the head names."""
    folder, scope = work.layout.run("failed"), work.layout.scope_head("scope")
    needed = {"manifest.json", "rows/x.parquet", "staged/deletions.parquet"}
    for name in (*needed, "ledger.json", "staged/0000.parquet"):
        work.objects.write(f"{folder}/{name}", b"{}")
    entry = Entry(f"{folder}/rows/x.parquet", 0, 1, etag="")
    head = Head(
        claim=ScopeClaim(5, "failed"),
        committed=4,
        objects={"s3://d/a": entry},
        deletions=f"{folder}/staged/deletions.parquet",
    )
    save(work.objects, scope, head)
    work.clean(days=1_000)
    assert len(work.names(folder)) == 5
    save(work.objects, scope, msgspec.structs.replace(head, claim=ScopeClaim(6, "next"), committed=6))
    work.clean()
    assert work.names(folder) == needed


def test_rows_that_no_head_names_go_after_their_grace_period(work: Work) -> None:
    """A run that compares may read them still; what nobody named this way stays."""
    old, named, new = (f"{new_name(f'{number:032x}', now=START)}.parquet" for number in range(3))
    rows = work.layout.scope_rows("one")
    for name in (old, named, "notes.parquet"):
        work.objects.write(f"{rows}/{name}", b"PAR1")
    entry = Entry(f"{rows}/{named}", 0, 1, etag="e")
    document = JsonDocument(work.objects, work.layout.scope_head("one"), Head)
    document.write(Head(objects={"s3://d/a": entry}))
    work.clean()
    work.objects.write(f"{rows}/{new}", b"PAR1")
    work.clean(days=GRACE_S / DAY_S - 0.001)
    assert work.names(rows) == {named, new, old, "notes.parquet"}
    assert set(present(document.read()).garbage) == {f"{rows}/{old}", f"{rows}/{new}"}
    work.clean(days=0.002)
    assert work.names(rows) == {named, new, "notes.parquet"}


def test_rows_that_are_named_again_stay(work: Work) -> None:
    """A head that was restored names them; their mark is gone, and so they are marked anew later."""
    a, b = (f"{work.layout.scope_rows('one')}/{new_name(f'{number:032x}', now=START)}.parquet" for number in range(2))
    work.objects.write(a, b"PAR1")
    document = JsonDocument(work.objects, work.layout.scope_head("one"), Head)
    document.write(Head())
    work.clean()
    marked = present(document.read())
    assert marked.garbage == {a: START}
    document.write(msgspec.structs.replace(marked, objects={"s3://d/a": Entry(a, 0, 1, etag="e")}))
    work.objects.write(b, b"PAR1")
    work.clean(days=GRACE_S / DAY_S)
    assert present(work.objects.head(a))
    assert set(present(document.read()).garbage) == {b}


def test_heads_that_did_not_change_are_not_read_again(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many partitions there are; uses that are damaged are computed again."""
    store, loaded = work.store(), list[str]()
    for number in range(3):
        store.add(f"job{number}", 1, [(KEYS[number], StoredAnswer(b"1"))])
    for number, name in enumerate(store.head().segments):
        work.head("p", f"scope{number}", name)
    plain = JsonDocument.load

    def load(document: Any) -> Any:
        if "/ledger/" in document.uri:
            loaded.append(document.uri)
        return plain(document)

    monkeypatch.setattr(JsonDocument, "load", load)
    scopes = [work.layout.scope_head(f"scope{number}") for number in range(3)]
    work.clean()
    assert sorted(set(loaded)) == scopes
    loaded.clear()
    work.clean(days=31)
    assert loaded == []
    work.head("p", "scope1", *list(store.head().segments)[:1])
    work.clean()
    assert set(loaded) == {scopes[1]}
    work.objects.write(f"{work.layout.predictions()}/scopes.json", b"{")
    loaded.clear()
    work.clean()
    assert sorted(set(loaded)) == scopes
    assert len(store.head().segments) == 3


def test_a_compaction_that_fails_does_not_end_retention(work: Work, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing depends on it; the reason is in the log, and other files go."""
    store, segments = work.store(), list[str]()
    for number in range(SMALL_SEGMENTS + 1):
        store.add(f"job{number}", 1, [(number.to_bytes(16, "big"), StoredAnswer(b"1"))])
        segments = list(store.head().segments)
    work.head("p", "one", *segments)
    work.job("a")
    assert work.clean(days=31) == 1
    assert "could not compact the prediction store" in caplog.text
    assert list(store.head().segments) == segments
