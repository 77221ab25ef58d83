"""The stage prepare: trials, watched sources, dry runs, refusals, and replays of its dead letters."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from structlog.testing import capture_logs

from opensearch_batch.core.ledger.head import RunLedger, ScopeHead
from opensearch_batch.core.ledger.staged import read_staged
from opensearch_batch.core.opensearch.ml_commons import Model
from opensearch_batch.core.runs.prepare_options import scope_of
from opensearch_batch.core.runs.run_lists import recent_runs
from opensearch_batch.core.sharding.listing import list_source, source_change
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.dead_letters import list_parts
from opensearch_batch.core.storage.json_document import JsonDocument, load_manifest
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.manifest import Manifest, Shard
from opensearch_batch.core.types.versions import next_version
from opensearch_batch.operators import prepare, run_start
from opensearch_batch.operators.base import interval_start, run_key_of
from opensearch_batch.operators.prepare import OpenSearchPrepareOperator
from opensearch_batch.operators.replay import OpenSearchReplayOperator
from opensearch_batch.services.registry import adapter_of
from tests.core.aws import aws
from tests.stored import content, present

NAME = "books"
PARAMETERS = {
    "ModelName": "m",
    "TransformInput": {"SplitType": "Line"},
    "TransformOutput": {"AssembleWith": "Line"},
    "TransformResources": {},
    "DataProcessing": {"JoinSource": "Input", "InputFilter": "$.text"},
}
PARTITION = {"key_format": "%Y-%m-%d", "timezone": "UTC"}
OWN = {"index": "books", "service": "sagemaker"}
RECORDS = b'{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n'


class Ti:
    """A task instance that keeps pushed XComs."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, *, key: str, value: Any) -> None:
        """Keep it."""
        self.pushed[key] = value


def context_of(partition_key: str = "2026-11-01", run_id: str = "", **params: Any) -> Any:
    """The context of a task in a run of one partition."""
    run = SimpleNamespace(
        dag_id=NAME,
        partition_key=partition_key,
        partition_date=datetime(2026, 11, 1, tzinfo=UTC),
        logical_date=None,
        run_id=run_id or f"manual__{partition_key}",
        conf={},
    )
    return {"dag_run": run, "ti": Ti(), "params": params}


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
    monkeypatch.setattr(prepare, "object_storage", lambda conn_id: found)  # noqa: ARG005 - one for all
    monkeypatch.setattr(OpenSearchPrepareOperator, "_model", lambda self, **_: Model("m", PARAMETERS))  # noqa: ARG005 - as above
    monkeypatch.setattr(OpenSearchPrepareOperator, "_check_index", lambda *_, **__: ([], "uuid"))
    cluster = SimpleNamespace(url="http://search:9200")
    monkeypatch.setattr(prepare, "OpenSearchMLHook", lambda _: SimpleNamespace(cluster=cluster))
    return found


def prepares(bucket: str, **arguments: Any) -> OpenSearchPrepareOperator:
    """The stage of a pipeline whose own runs read the prefix `in/`."""
    defaults = {"source": f"s3://{bucket}/in/", **OWN, "field_map": {"_id": "$.id", "text": "$.text"}}
    return OpenSearchPrepareOperator(
        task_id="prepare",
        work_prefix=f"s3://{bucket}/work",
        inputs=["$.text"],
        own={**OWN, "source": f"s3://{bucket}/in/"},
        **{**defaults, **arguments},
    )


def layout(bucket: str) -> Layout:
    """The locations of the pipeline."""
    return Layout(f"s3://{bucket}/work", NAME)


def manifest_of(store: S3Objects, bucket: str, context: Any) -> Manifest:
    """The manifest of a run."""
    return load_manifest(store, layout(bucket).manifest(run_key_of(context)), Manifest)


@pytest.mark.parametrize(
    ("arguments", "news"),
    [
        ({}, "unchanged"),
        ({"limit": "1"}, "new"),
        ({"index": "other"}, "new"),
        ({"service": "bedrock"}, "new"),
        ({"dry_run": True}, "new"),
    ],
)
def test_a_trial_claims_nothing_and_does_not_record_the_source(
    bucket: str, store: S3Objects, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], news: str
) -> None:
    """`new_objects` still fires after a trial: only a run with the pipeline's own values records the source."""
    # One service's parameters will do here: what counts is which one was chosen.
    adapter = adapter_of("sagemaker")
    monkeypatch.setattr(prepare, "adapter_of", lambda name: adapter)  # noqa: ARG005 - as above
    store.write(f"s3://{bucket}/in/a.jsonl", RECORDS)
    dry_run = arguments.pop("dry_run", False)
    context = context_of(dry_run=dry_run)
    shards = prepares(bucket, watched=True, **arguments).execute(context)
    assert len(shards) == (0 if dry_run else 1)
    found = list_source(store, f"s3://{bucket}/in/")
    assert source_change(store, layout(bucket), found) == news
    head = ScopeHead(store, layout(bucket).scope_head(scope_of(f"s3://{bucket}/in/", (), ()))).load()
    if not dry_run:
        claim = manifest_of(store, bucket, context).claim
        assert (claim is None) == (news == "new")
    assert (head.claim.version > 0) == (news == "unchanged")


def test_a_trial_of_a_partition_leaves_the_files_of_another_run_of_it(bucket: str, store: S3Objects) -> None:
    """The next run needs them if that run did not end."""
    store.write(f"s3://{bucket}/in/a.jsonl", RECORDS)
    context = context_of()
    prepares(bucket).execute(context)
    prepares(bucket, limit="1").execute(context_of(run_id="manual__1"))
    head = ScopeHead(store, layout(bucket).scope_head(scope_of(f"s3://{bucket}/in/", (), ()))).load()
    assert manifest_of(store, bucket, context).claim == head.claim


def test_a_run_has_a_manifest_and_what_it_will_commit(bucket: str, store: S3Objects) -> None:
    """Its shard is staged; without a change there is neither a manifest nor an XCom."""
    store.write(f"s3://{bucket}/in/a.jsonl", RECORDS)
    context = context_of()
    (group,) = prepares(bucket, watched=True).execute(context)
    (shard,) = group["shards"]
    manifest = manifest_of(store, bucket, context)
    assert manifest.shards == [msgspec.convert(shard, Shard)]
    assert context["ti"].pushed["run"] == {"manifest": layout(bucket).manifest(manifest.run_key), "model_id": "m"}
    assert [each.line for each in read_staged(store, shard["staged"])] == [1, 2]
    assert manifest.index_uuid == "uuid"
    ledger = JsonDocument(store, layout(bucket).run_ledger(manifest.run_key), RunLedger).read()
    assert list(present(ledger).entries) == [f"s3://{bucket}/in/a.jsonl"]
    scope = ScopeHead(store, layout(bucket).scope_head(manifest.scope))
    entries = present(ledger).entries
    claim = present(manifest.claim)
    scope.commit(
        claim,
        lambda head: msgspec.structs.replace(
            head, objects=entries, index_uuid="uuid", fingerprint=manifest.fingerprint
        ),
    )
    later = context_of("2026-11-02")
    assert prepares(bucket, watched=True).execute(later) == []
    assert later["ti"].pushed == {}
    (listed,) = recent_runs(CachedReader(store), layout(bucket))
    assert (listed.run_id, listed.run_key) == (context["dag_run"].run_id, manifest.run_key)
    assert (listed.started_at, listed.prepared, listed.has_ended) == (manifest.started_at, manifest.counts, False)


@pytest.mark.parametrize(("source", "is_interval"), [("in/", True), ("other/", False)])
def test_a_partition_has_the_version_of_its_interval(
    bucket: str, store: S3Objects, source: str, *, is_interval: bool
) -> None:
    """So the newest partition wins, in any order of runs; another source has that of its listing."""
    store.write(f"s3://{bucket}/{source}a.jsonl", RECORDS)
    context = context_of()
    prepares(bucket, partition=PARTITION, source=f"s3://{bucket}/{source}").execute(context)
    start = next_version(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
    version = manifest_of(store, bucket, context).version
    assert (version == start + 1) == is_interval


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (
            {"partition_date": datetime(2026, 11, 1, tzinfo=UTC), "partition_key": "x"},
            datetime(2026, 11, 1, tzinfo=UTC),
        ),
        ({"partition_key": "2026-11-01"}, datetime(2026, 10, 31, 23, tzinfo=UTC)),
        ({"partition_key": "x"}, None),
        ({"logical_date": datetime(2026, 11, 2, tzinfo=UTC)}, datetime(2026, 11, 2, tzinfo=UTC)),
        ({}, None),
    ],
)
def test_a_partition_has_a_date(run: dict[str, Any], expected: datetime | None) -> None:
    """Also if a user gave its key, which then is a date in the time zone of the schedule."""
    context: Any = {"dag_run": SimpleNamespace(**{"logical_date": None, **run})}
    found = interval_start(context, key_format="%Y-%m-%d", timezone="Europe/Vienna")
    assert found == (expected and expected.timestamp())


def test_the_settings_of_documents_are_part_of_the_fingerprint(bucket: str, store: S3Objects) -> None:
    """Another one has all documents written again."""
    store.write(f"s3://{bucket}/in/a.jsonl", RECORDS)
    fingerprints = []
    for settings in ({}, {"op_type": "index"}, {"on_missing": {"text": "omit"}}):
        context = context_of()
        prepares(bucket, document_settings=settings).execute(context)
        fingerprints.append(manifest_of(store, bucket, context).fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_dry_run_shows_samples_and_writes_nothing(bucket: str, store: S3Objects) -> None:
    """The classes, the first dead letters with their reasons, and the fields that would be null."""
    store.write(f"s3://{bucket}/in/a.jsonl", b'{"id": 1, "text": "a", "lemma": "b"}\n{"id": 2, "text": "c"}\n{oops\n')
    context = context_of(dry_run=True)
    with capture_logs() as logs:
        assert prepares(bucket, field_map={"_id": "$.id", "lemma": "$.lemma"}).execute(context) == []
    lines = [str(line["event"]).removeprefix("dry run: ") for line in logs]
    assert any(line.startswith("2 new, 0 input changed, 0 other changed, 0 unchanged,") for line in lines)
    assert "2 records to pay for; 0 have a stored prediction, 0 wait" in lines
    (dead,) = (line for line in lines if line.startswith("dead letter: "))
    assert f"s3://{bucket}/in/a.jsonl line 3: " in dead
    assert dead.endswith(": {oops")
    nothing = "1 of the first 2 records have nothing at $.lemma"
    null = f"null: field lemma: {nothing}, the first is s3://{bucket}/in/a.jsonl line 2"
    assert [line for line in lines if line.startswith("null: ")] == [null]
    assert [item.uri for item in store.list(f"s3://{bucket}/")] == [f"s3://{bucket}/in/a.jsonl"]
    assert context["ti"].pushed["plan"]["jobs"] == 1


def test_a_refused_run_creates_no_index(bucket: str, store: S3Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index is created last; and the refusal says what is wrong with the records."""
    created = list[str]()
    index = SimpleNamespace(uuid="new uuid")
    cluster = SimpleNamespace(
        url="http://search:9200",
        index=lambda name: index if name in created else None,
        create_index=lambda name, body: created.append(name),  # noqa: ARG005 - any body
    )
    for module in (prepare, run_start):
        monkeypatch.setattr(module, "OpenSearchMLHook", lambda conn_id: SimpleNamespace(cluster=cluster))  # noqa: ARG005 - one
    monkeypatch.setattr(OpenSearchPrepareOperator, "_check_index", lambda *_, **__: ([], ""))
    store.write(f"s3://{bucket}/in/a.jsonl", b"{oops\n")
    with pytest.raises(AirflowFailException, match=r"no usable record; first reasons: .*JSON"):
        prepares(bucket, index_body={"mappings": {}}).execute(context_of())
    assert created == []
    store.write(f"s3://{bucket}/in/a.jsonl", RECORDS)
    context = context_of()
    assert len(prepares(bucket, index_body={"mappings": {}}).execute(context)) == 1
    assert created == ["books"]
    assert manifest_of(store, bucket, context).index_uuid == "new uuid"


ONE_BAD = b'{"text": "a"}\n' * 9 + b"{oops\n"


def test_prepare_pays_nothing_for_a_source_of_dead_letters(bucket: str, store: S3Objects) -> None:
    """With more dead letters than allowed there is no manifest and no shard; the error names the reason."""
    store.write(f"s3://{bucket}/in/a.jsonl", ONE_BAD * 11)
    reason = r"11 of 110 records are dead letters, and max_dead_letters is 5%: 11 x not JSON: .*; they are in s3://"
    by_position = {"text": "$.text"}
    with pytest.raises(AirflowFailException, match=reason):
        prepares(bucket, field_map=by_position).execute(context_of())
    assert store.read(layout(bucket).manifest(run_key_of(context_of()))) is None
    assert len(prepares(bucket, field_map=by_position, max_dead_letters="10%").execute(context_of())) == 1


def test_dead_letters_of_prepare_are_replayed(bucket: str, store: S3Objects) -> None:
    """A run with their location as its source submits the corrected records only, at their old origins."""
    uri, by_position = f"s3://{bucket}/in/a.jsonl", {"text": "$.text"}
    store.write(uri, ONE_BAD + b"{again\n")
    first_context = context_of()
    prepares(bucket, field_map=by_position, max_dead_letters="50%").execute(first_context)
    first = manifest_of(store, bucket, first_context)
    (part,) = list_parts(store, present(first.dead_letters))
    store.write(part, content(store, part).replace(b'"{oops"', b'"{\\"text\\": \\"mended\\"}"'))

    later = context_of("replay")
    replayed = prepares(bucket, field_map=by_position, source=first.dead_letters)
    (group,) = replayed.execute(later)
    (shard,) = group["shards"]
    again = manifest_of(store, bucket, later)
    assert content(store, shard["input"]) == b'{"text": "mended"}\n'
    (staged,) = read_staged(store, shard["staged"])
    assert (staged.uri, staged.line) == (uri, 10)
    assert (again.counts.read, again.counts.records, again.counts.dead_letters) == (2, 1, 1)
    assert again.claim is None

    store.write(part, b'{"stage": "prepare"}\n')
    with pytest.raises(AirflowFailException, match="no usable record; first reasons: not a dead letter"):
        prepares(bucket, field_map=by_position, source=first.dead_letters).execute(later)


def test_force_and_rebuild_exclude_each_other(bucket: str, store: S3Objects) -> None:
    """One pays for everything, the other for nothing."""
    store.write(f"s3://{bucket}/in/a.jsonl", RECORDS)
    with pytest.raises(AirflowFailException, match="force pays for all predictions, and rebuild pays for none"):
        prepares(bucket).execute(context_of(force=True, rebuild=True))


@pytest.mark.parametrize(
    ("conf", "hint"),
    [
        ({"sourc": "s3://my-secret/"}, "'source'"),
        ({"dry_rum": True}, "'dry_run'"),
        ({"x": 1}, "Its parameters are source,"),
    ],
)
def test_a_misspelled_key_of_a_conf_starts_nothing(conf: dict[str, Any], hint: str) -> None:
    """Airflow ignores a key that it does not know: the run would pay for the defaults. Its value is not quoted."""
    with DAG(dag_id=NAME, schedule=None, params={"source": "s3://in/", "dry_run": False}):
        task = OpenSearchPrepareOperator(
            task_id="prepare", source="s3://in/", work_prefix="s3://w", index="i", service="sagemaker", field_map={}
        )
        replay = OpenSearchReplayOperator(task_id="replay", dead_letters="s3://letters/")
    context = context_of()
    context["dag_run"].conf = conf
    for operator in (task, replay):
        with pytest.raises(AirflowFailException, match=f"conf: this DAG has no parameter.*{hint}") as error:
            operator.execute(context)
        assert "my-secret" not in str(error.value)
