"""What stages derive from their run: its account, resubmit requests, and asset events."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.ingest.replay import ReplayReport
from opensearch_batch.core.ingest.staged_ingest import StagedIngest
from opensearch_batch.core.jobs.job_records import JobRecords, consumed_requests, decide
from opensearch_batch.core.ledger.head import RunLedger, ScopeHead
from opensearch_batch.core.ledger.verdicts import ShardReport, Verdicts
from opensearch_batch.core.runs.outbox import PendingEvent, add_event
from opensearch_batch.core.runs.run_lists import recent_runs
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.dead_letters import DeadLetters, dead_letter
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import DONE, IngestCounts, SourceCounts
from opensearch_batch.core.types.job import End, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import Manifest, PrepareCounts, Shard, ShardGroup
from opensearch_batch.dag_factory.schedules import index_asset
from opensearch_batch.operators import ingest, publish, reconcile, replay
from opensearch_batch.operators.base import resubmit_request, run_key_of
from opensearch_batch.operators.ingest import OpenSearchBatchIngestOperator
from opensearch_batch.operators.publish import OpenSearchPublishOperator
from tests.core.aws import aws

NAME = "books"
PARAMETERS = {
    "ModelName": "m",
    "TransformInput": {"SplitType": "Line"},
    "TransformOutput": {"AssembleWith": "Line"},
    "TransformResources": {},
    "DataProcessing": {"JoinSource": "Input", "InputFilter": "$.text"},
}


class Ti:
    """A task instance that keeps pushed XComs."""

    max_tries = 2

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, *, key: str, value: Any) -> None:
        """Keep it."""
        self.pushed[key] = value


def context_of(run_id: str = "manual__1", ti: Any = None, **params: Any) -> Any:
    """Return the context of a task in a run of one partition."""
    run = SimpleNamespace(dag_id=NAME, partition_key="2026-11-01", logical_date=None, run_id=run_id, conf={})
    return {"dag_run": run, "ti": ti or Ti(), "params": params}


@pytest.fixture(scope="module")
def s3_client() -> Iterator[Any]:
    """A boto3 client of an S3 server of these tests' own."""
    with aws("s3") as client:
        yield client


@pytest.fixture
def bucket(s3_client: Any) -> str:
    """A new empty bucket."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> S3Objects:
    """The object storage of every connection; model and index exist and fit."""
    found = S3Objects(s3_client)
    for module in (ingest, publish):
        monkeypatch.setattr(module, "object_storage", lambda conn_id: found)  # noqa: ARG005 - one for all
    return found


class Prepared(Ti):
    """A task instance in a run with this XCom `run`; no record was repaired."""

    def __init__(self, run: dict[str, Any] | None) -> None:
        super().__init__()
        self.run = run

    def xcom_pull(self, *, task_ids: str, key: str = "return_value") -> Any:
        """Return the XCom of prepare or repair."""
        return {("prepare", "run"): self.run}.get((task_ids, key))


def reconciled(
    bucket: str, store: S3Objects, monkeypatch: pytest.MonkeyPatch, *, read: int, dead: int, most: str
) -> Any:
    """Run reconcile over a run of these counts."""
    work_prefix, key = Layout(f"s3://{bucket}/work", NAME), run_key_of(context_of())
    with DeadLetters(store, work_prefix.dead_letters(key, "prepare")) as letters:
        for line in range(dead):
            letters.add(dead_letter(b"{", stage="prepare", reason="not JSON", source="s3://in", line=line))
        letters.write()
    claim = ScopeHead(store, work_prefix.scope_head("scope")).claim(0.0, key).claim
    written = read - dead
    shard = Shard("0", staged=work_prefix.staged(key, "0"), documents=written)
    manifest = Manifest(
        pipeline=NAME,
        run_key=key,
        source="s3://in/",
        scope="scope",
        service="sagemaker",
        model_id="m",
        index=NAME,
        counts=PrepareCounts(read=read, records=written, dead_letters=dead, new=written),
        shards=[shard],
        dead_letters=letters.location,
        claim=claim,
        version=claim.version + 1,
        predictions=work_prefix.predictions(),
    )
    uri = work_prefix.manifest(key)
    save(store, uri, manifest)
    save(store, work_prefix.run_ledger(key), RunLedger())
    done = IngestCounts(read=written, indexed=written, sources=[SourceCounts("composed", read=written)])
    report = ShardReport(NAME, DONE, done, verdicts=Verdicts(manifest.shard_digest(shard)))
    save(store, work_prefix.ingest_report(key, "0"), report)
    monkeypatch.setattr(reconcile, "outputs_store", lambda **_: store)
    monkeypatch.setattr(reconcile, "object_storage", lambda _: store)
    task = reconcile.OpenSearchReconcileOperator(
        task_id="reconcile", work_prefix=f"s3://{bucket}/work", retention_days=None, max_dead_letters=most
    )
    return task.execute(context_of(ti=Prepared({"manifest": uri})))


@pytest.mark.parametrize(
    ("dead", "most", "is_green"),
    [(10, "5%", True), (11, "5%", False), (11, "11%", True), (12, "11%", False), (1, "0%", False), (0, "0%", True)],
)
def test_too_many_dead_letters_fail_the_run(
    bucket: str, store: S3Objects, monkeypatch: pytest.MonkeyPatch, *, dead: int, most: str, is_green: bool
) -> None:
    """The share counts the dead letters of all stages; the account is written and the run committed in any case.

    Ten may always be dead, unless the limit is 0 %.
    """
    if is_green:
        assert reconciled(bucket, store, monkeypatch, read=100, dead=dead, most=most)["counts"]["dead_letters"] == dead
    else:
        with pytest.raises(
            AirflowFailException, match=f"{dead} of 100 records are dead letters, and max_dead_letters is {most}"
        ):
            reconciled(bucket, store, monkeypatch, read=100, dead=dead, most=most)
    work_prefix = Layout(f"s3://{bucket}/work", NAME)
    assert store.read(work_prefix.run_account(run_key_of(context_of()))) is not None
    head = ScopeHead(store, work_prefix.scope_head("scope")).load()
    assert head.committed == head.claim.version > 0
    (listed,) = recent_runs(CachedReader(store), work_prefix)
    assert (listed.dead_letters, listed.has_ended) == (dead, True)


@pytest.mark.parametrize(("dead", "is_green"), [(5, True), (6, False)])
def test_of_few_records_at_most_half_may_be_dead(
    bucket: str, store: S3Objects, monkeypatch: pytest.MonkeyPatch, *, dead: int, is_green: bool
) -> None:
    """Of a hundred, ten may be dead whatever the share."""
    if is_green:
        reconciled(bucket, store, monkeypatch, read=11, dead=dead, most="5%")
        return
    with pytest.raises(AirflowFailException, match="6 of 11 records are dead letters"):
        reconciled(bucket, store, monkeypatch, read=11, dead=dead, most="5%")


def test_a_run_without_changes_has_nothing_to_reconcile(bucket: str, store: S3Objects) -> None:
    """Prepare pushes no XCom `run` then, and the stage is skipped."""
    assert list(store.list(f"s3://{bucket}/")) == []
    task = reconcile.OpenSearchReconcileOperator(task_id="reconcile", work_prefix=f"s3://{bucket}/work")
    with pytest.raises(AirflowSkipException, match="prepare found nothing to do"):
        task.execute(context_of(ti=Prepared(None)))
    assert list(store.list(f"s3://{bucket}/")) == []


def test_a_run_of_dead_letters_only_is_never_a_success(
    bucket: str, store: S3Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even with max_dead_letters 100%, and however few they are."""
    with pytest.raises(AirflowFailException, match="3 of 3 records are dead letters, and max_dead_letters is 100%"):
        reconciled(bucket, store, monkeypatch, read=3, dead=3, most="100%")


def test_a_replay_that_helps_nothing_fails(bucket: str, store: S3Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the first reason; one that writes some letters succeeds."""
    with DeadLetters(store, f"s3://{bucket}/queue") as letters:
        letters.add(dead_letter(b"{}", stage="ingest", reason="no field x", source="s3://in", line=1))
        letters.write()
    monkeypatch.setattr(replay, "object_storage", lambda _: store)
    monkeypatch.setattr(replay, "OpenSearchMLHook", lambda _: SimpleNamespace(cluster=None))
    task = replay.OpenSearchReplayOperator(task_id="replay", dead_letters=f"s3://{bucket}/queue/")
    for indexed, dead in ((0, 2), (1, 1)):
        report = ReplayReport(f"s3://{bucket}/queue/", NAME, read=2, indexed=indexed, dead_letters=dead)
        monkeypatch.setattr(replay, "replay", lambda *_, report=report, **__: report)
        if indexed:
            assert task.execute(context_of())["indexed"] == 1
        else:
            with pytest.raises(AirflowFailException, match="the replay wrote none of 2 dead letters: no field x"):
                task.execute(context_of())


def asked(run_id: str, *, max_tries: int = 2, force: bool = False) -> ResubmitRequest:
    """Return the resubmit request of a task with two retries."""
    return resubmit_request(context_of(run_id, SimpleNamespace(max_tries=max_tries), force=force), 2)


def ended(asked: ResubmitRequest, state: Any) -> JobRecord:
    """Return the record of a job that was submitted for this request."""
    return JobRecord(
        "j",
        "n",
        "sagemaker",
        "m",
        "i",
        "o",
        0.0,
        consumed_requests=consumed_requests([], asked),
        ml_task_id="t",
        end=End(state, 0.0),
    )


def test_each_forced_run_of_one_partition_pays_once() -> None:
    """Retries and clears of a forced run reuse its job; the next forced run submits another."""
    first = ended(asked("manual__1", force=True), "COMPLETED")
    assert decide(first, asked("manual__1", force=True)) == "reuse"
    assert decide(first, asked("manual__1", force=True, max_tries=5)) == "reuse"
    assert decide(first, asked("manual__2")) == "reuse"
    assert decide(first, asked("manual__2", force=True)) == "resubmit"


def test_each_cleared_run_of_one_partition_pays_once() -> None:
    """A clear in another run submits an unsuccessful job again."""
    first = ended(asked("manual__1", max_tries=5), "FAILED")
    assert decide(first, asked("manual__1", max_tries=5)) == "refuse"
    assert decide(first, asked("manual__2")) == "refuse"
    assert decide(first, asked("manual__2", max_tries=5)) == "resubmit"


class Counted(Ti):
    """A task instance whose XComs are known, in a DAG with other runs."""

    dag_id = NAME
    map_index = 0

    def __init__(self, counts: dict[str, int] | None = None, states: dict[str, str] | None = None) -> None:
        super().__init__()
        self.counts = counts or {}
        self.states = states or {}

    def xcom_pull(self, *, task_ids: str, **_: Any) -> Any:
        """Return the XCom of reconcile or poll."""
        polled = {"task_id": "t", "state": "COMPLETED", "outputs": []}
        return {"reconcile": {"counts": self.counts}, "poll": [polled]}.get(task_ids)

    def get_dagrun_state(self, *, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        assert dag_id == NAME
        return self.states[run_id]


def publishes(
    bucket: str, *, indexed: int = 0, deleted: int = 0, run_id: str = "manual__1", index: str = NAME, **states: str
) -> bool:
    """Return whether a run's publish updates the asset of the index books."""
    counts = {"indexed": indexed, "deleted": deleted}
    asset = index_asset("opensearch_default", NAME)
    task = OpenSearchPublishOperator(task_id="publish", index=index, work_prefix=f"s3://{bucket}/work", outlets=[asset])
    events = {asset: SimpleNamespace(extra=None)}
    context = context_of(run_id, Counted(counts, states)) | {"outlet_events": events}
    try:
        task.execute(context)
    except AirflowSkipException:
        assert events[asset].extra is None
        return False
    assert events[asset].extra == counts
    return True


def test_unpublished_writes_update_the_asset_once(bucket: str, store: S3Objects) -> None:
    """Writes of this run's earlier attempts, and of a failed run, update the asset once."""
    work_prefix = Layout(f"s3://{bucket}/work", NAME)
    assert not publishes(bucket)
    assert publishes(bucket, indexed=1)
    assert publishes(bucket, deleted=1)
    add_event(store, work_prefix, "a", PendingEvent("manual__1", NAME))
    assert [publishes(bucket) for _ in range(2)] == [True, False]
    add_event(store, work_prefix, "a", PendingEvent("manual__0", NAME))
    assert [publishes(bucket, manual__0="failed") for _ in range(2)] == [True, False]


def test_a_run_in_progress_publishes_its_own_writes(bucket: str, store: S3Objects) -> None:
    """A run in progress updates the asset itself; another run's publish leaves its outbox alone."""
    add_event(store, Layout(f"s3://{bucket}/work", NAME), "a", PendingEvent("manual__0", NAME))
    assert not publishes(bucket, manual__0="running")
    assert publishes(bucket, indexed=1, manual__0="running")
    assert publishes(bucket, run_id="manual__0")


def test_writes_to_another_index_update_no_asset(bucket: str, store: S3Objects) -> None:
    """Writes to another index, as in a trial, never update the asset of the pipeline's index."""
    work_prefix = Layout(f"s3://{bucket}/work", NAME)
    add_event(store, work_prefix, "a", PendingEvent("manual__0", "other"))
    assert not publishes(bucket, manual__0="failed")
    add_event(store, work_prefix, "a", PendingEvent("manual__0", NAME))
    assert not publishes(bucket, index="other", manual__0="failed")
    assert publishes(bucket, manual__0="failed")


def ingest_of(bucket: str, store: S3Objects, monkeypatch: pytest.MonkeyPatch, *attempts: int | Exception) -> None:
    """Run the attempts of one ingest task; each writes so many documents, or fails."""
    shard = Shard("0", "j", "i", 1, 1, staged="s3://staged", documents=1)
    found = Layout(f"s3://{bucket}/work", NAME)
    manifest = Manifest(
        pipeline=NAME,
        run_key="r",
        source="s",
        scope="scope",
        service="sagemaker",
        model_id="m",
        index=NAME,
        parameters=PARAMETERS,
    )
    save(store, found.manifest(run_key_of(context_of())), manifest)
    job = JobRecord("j", "j", "sagemaker", "m", "i", "o", intended_at=0.0, ml_task_id="t")
    JobRecords(store, found.job("j")).write(job, etag=None)
    done = iter(attempts)

    def run(*_: Any, **__: Any) -> ShardReport:
        attempt = next(done)
        if isinstance(attempt, Exception):
            raise attempt
        return ShardReport(NAME, DONE, IngestCounts(indexed=attempt), verdicts=Verdicts(""))

    monkeypatch.setattr(StagedIngest, "run", run)
    monkeypatch.setattr(ingest, "outputs_store", lambda **_: store)
    cluster = SimpleNamespace(search_url=lambda index: index)
    monkeypatch.setattr(ingest, "OpenSearchMLHook", lambda conn_id: SimpleNamespace(cluster=cluster))  # noqa: ARG005 - one for all
    task = OpenSearchBatchIngestOperator(
        task_id="ingest",
        shards=msgspec.to_builtins(ShardGroup.of([shard])),
        work_prefix=f"s3://{bucket}/work",
        service="sagemaker",
        index=NAME,
        field_map={"text": "$.text"},
    )
    for attempt in attempts:
        if isinstance(attempt, Exception):
            with pytest.raises(type(attempt), match=str(attempt)):
                task.execute(context_of(ti=Counted()))
        else:
            task.execute(context_of(ti=Counted()))


@pytest.mark.parametrize(
    ("attempts", "published"),
    [([RetriableError("it died"), 0], True), ([1], True), ([1, 0], True), ([0], False), ([0, 0], False)],
)
def test_writes_of_an_attempt_that_died_update_the_asset(
    bucket: str, store: S3Objects, monkeypatch: pytest.MonkeyPatch, attempts: list[int | Exception], *, published: bool
) -> None:
    """The asset is updated if any attempt wrote, though the last one finds all documents unchanged."""
    ingest_of(bucket, store, monkeypatch, *attempts)
    assert publishes(bucket) == published
