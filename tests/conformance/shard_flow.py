"""Takes the one shard of a run through its stages without Airflow: prepare, submit, wait, ingest, repair, reconcile."""

from __future__ import annotations

import json
import struct
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from opensearch_batch.core.errors import FatalError, RetriableError
from opensearch_batch.core.ingest.prediction_map import with_source_paths, written_fields
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.staged_ingest import StagedIngest
from opensearch_batch.core.jobs.contract import output_uris
from opensearch_batch.core.jobs.job_records import JobRecords, SubmitDecision, bad_end_message
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.jobs.predict_action import RealtimeLimit, realtime_limit
from opensearch_batch.core.jobs.realtime import RealtimeSubmitter, in_real_time
from opensearch_batch.core.jobs.submission import MLCommonsSubmitter, Submission
from opensearch_batch.core.ledger.commit import commit
from opensearch_batch.core.ledger.verdicts import ShardReport
from opensearch_batch.core.opensearch.ml_commons import MLCommons, Model, fill
from opensearch_batch.core.runs.index_check import check_index, create_missing_index
from opensearch_batch.core.runs.preparation import Preparation
from opensearch_batch.core.runs.prepare_options import PrepareOptions, fingerprint_of, scope_of
from opensearch_batch.core.runs.repair import Repair
from opensearch_batch.core.runs.run_account import ShardRunAccount, reconcile, shard_reports, written_shards
from opensearch_batch.core.sharding.listing import find_documents
from opensearch_batch.core.storage.by_uri import Scheme
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.job import BAD_ENDS, End, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import Manifest, Shard
from opensearch_batch.services.cohere import cohere_api
from opensearch_batch.services.openai import openai_api
from opensearch_batch.services.registry import adapter_of, service_of, stores
from tests.lab import MODEL, Lab
from tests.stored import dead_letters, present
from tests.waiting import WAIT_S, eventually

CONNECTORS = Path(__file__).resolve().parents[2] / "plugins" / "opensearch_batch" / "connectors"
TITAN = "amazon.titan-embed-text-v2:0"
VALUES = {
    "sagemaker": {"region": "us-east-1", "model_name": MODEL, "endpoint_name": MODEL},
    "bedrock": {"region": "us-east-1", "model_name": TITAN, "job_role_arn": "arn:aws:iam::123456789012:role/batch"},
    "openai": {"model_name": "text-embedding-3-small"},
    "cohere": {"model_name": "embed-english-v3.0"},
}
KEYS = {"openai": "openAI_key", "cohere": "cohere_key"}
BODY = {
    "settings": {"index.knn": True, "number_of_shards": 1, "number_of_replicas": 0},
    "mappings": {
        "properties": {
            "text": {"type": "text"},
            "v": {"type": "knn_vector", "dimension": 384, "method": {"name": "hnsw", "engine": "lucene"}},
        }
    },
}
FIELD_MAP = {"_id": "$.id", "text": "$.text", "v": "prediction[0]"}
RECORDS = 6
# A prediction of any kind is moved alike, so most outcomes are tried with one kind.
SUBMIT = {
    "sagemaker": "CreateTransformJob",
    "bedrock": "CreateModelInvocationJob",
    "openai": "CreateBatch",
    "cohere": "CreateEmbedJob",
}


class ShardFlow:
    """A pipeline with documents of its own, whose runs have one shard, on their way through one service."""

    def __init__(
        self,
        lab: Lab,
        name: str,
        bucket: str,
        index: str,
        *,
        inputs: Sequence[str] = ("$.text",),
        field_map: dict[str, Any] | None = None,
        connector: dict[str, Any] | None = None,
        body: dict[str, Any] | None = None,
    ) -> None:
        self.lab, self.name, self.index = lab, name, index
        self.cluster = lab.cluster()
        self.ml = MLCommons(self.cluster)
        self.adapter = adapter_of(name)
        self.inputs = tuple(inputs)
        self.work_prefix = Layout(f"s3://{bucket}/kept", "flow")
        self.runs = 0
        self.request = IngestRequest(index, field_map or FIELD_MAP, on_unmatched="dead_letter")
        # As many as the service needs for a job, so that a repair of some of them may be too small for one.
        self.ids = [f"{uuid.uuid4().hex}" for _ in range(max(RECORDS, self.adapter.limits.min_records))]
        self.bucket = bucket
        self._body = body or BODY
        keys, url = lab.stack.credentials, lab.stack.addresses.ai_services
        self._openai = openai_api(keys.secret_key, f"{url}/v1")
        self._cohere = cohere_api(keys.secret_key, url)
        apis: dict[str, Any] = {"openai": self._openai, "cohere": self._cohere}
        self.objects = stores({"s3": Scheme(lambda: lab.objects)}, lambda entry: apis[entry.name], services=apis)
        self.client = service_of(name).client(apis.get(name) or lab.aws(name), lab.objects)
        self.model = self._ensure_model(connector or {})
        self.jobs_before = self.jobs()

    def prepare(self) -> Shard:
        """Put the documents below a prefix, and prepare a run, which has one shard."""
        rows = (json.dumps({"id": name, "text": f"text {name}", "title": f"title {name}"}) for name in self.ids)
        self.lab.objects.write(f"s3://{self.bucket}/in/a.jsonl", "\n".join(rows).encode())
        (shard,) = self.prepare_run()
        return shard

    def prepare_run(self, **options: Any) -> list[Shard]:
        """Prepare the next run as `prepare` does; return its shards, or none if nothing changed."""
        self.runs += 1
        parameters, request = self.model.parameters, self.request
        self.adapter.check(parameters, self.inputs)
        mapped = with_source_paths(request, self.adapter, parameters, self.inputs)
        fields = written_fields(mapped, self.adapter, parameters, self.inputs)
        vectors, uuid = check_index(self.cluster, mapped, fields, index_body=self._body, dimension=None)
        source = f"s3://{self.bucket}/in/"
        chosen = PrepareOptions(
            **{"max_records": 1000, "max_bytes": 10_000_000, "realtime": self.realtime_limit(), **options}
        )
        draft = Manifest(
            pipeline="flow",
            run_key=f"run{self.runs}",
            source=source,
            scope=scope_of(source, (), ()),
            service=self.name,
            model_id=self.model.id,
            index=self.index,
            index_uuid=uuid,
            fingerprint=fingerprint_of(
                request,
                self.adapter,
                parameters,
                self.inputs,
                objects=self.lab.objects,
                index_body=self._body,
                options=chosen,
            ),
            vectors=vectors,
            parameters=parameters,
            inputs=self.inputs,
            predictions=self.work_prefix.predictions(),
            realtime_below=chosen.realtime.below,
        )
        prepared = Preparation(
            self.lab.objects,
            self.work_prefix,
            find_documents(self.lab.objects, self.work_prefix, source),
            draft,
            adapter=self.adapter,
            request=request,
            at_s=time.time(),
            options=chosen,
        ).run()
        if prepared is None:
            return []
        uuid = uuid or create_missing_index(self.cluster, self.index, self._body)
        self.manifest = msgspec.structs.replace(prepared.manifest, index_uuid=uuid)
        save(self.lab.objects, self.work_prefix.run_ledger(draft.run_key), prepared.ledger)
        save(self.lab.objects, self.work_prefix.manifest(draft.run_key), self.manifest)
        return self.manifest.shards

    def realtime_limit(self, below: int | None = None) -> RealtimeLimit:
        """Return how few records are predicted in real time: by default as a pipeline without `realtime_below`."""
        return realtime_limit(below, self.adapter, self.model.actions, self.model.parameters, self.inputs)

    def submit(
        self,
        shard: Shard,
        asked: ResubmitRequest = ResubmitRequest(),  # noqa: B008 - frozen
        *,
        later_s: float = 0.0,
    ) -> tuple[SubmitDecision, JobRecord]:
        """Submit a shard's job, or find it; raise FatalError for one that did not succeed, as batch_predict does."""
        decision, record = self.attempt(shard, asked, later_s=later_s)
        if decision == "refuse":
            raise FatalError(bad_end_message(record))
        return decision, record

    def attempt(
        self, shard: Shard, asked: ResubmitRequest, *, later_s: float = 0.0
    ) -> tuple[SubmitDecision, JobRecord]:
        """Submit a shard's job, or find it; `later_s` lets an intent of before be that old."""
        folder = self.work_prefix.job(shard.job)
        through = MLCommonsSubmitter(
            self.ml, self.adapter, self.client, model=self.model, overrides={}, inputs=self.inputs
        )

        def draft(submission: int) -> JobRecord:
            return JobRecord(
                shard.job,
                self.adapter.job_name("flow", folder, submission),
                self.name,
                self.model.id,
                shard.input,
                f"{folder}/output/{submission}/",
                time.time(),
                submission,
                realtime=is_realtime,
            )

        job_records = JobRecords(self.lab.objects, folder)
        is_realtime = in_real_time(shard, job_records.read())

        def clock() -> float:
            return time.time() + later_s

        one_by_one = RealtimeSubmitter(through, self.lab.objects, job_records, clock, time.sleep)
        submission = Submission(job_records, one_by_one if is_realtime else through, clock=clock, sleep=time.sleep)
        return submission.run(draft, asked)

    def look(self, record: JobRecord) -> dict[str, Any]:
        """Ask for a job: ML Commons, or the service where that has no task of it."""
        if record.ml_task_id is None:
            return self.client.describe(record)
        return {**record.remote_job, **(self.ml.task(record.ml_task_id).get("remote_job") or {})}

    def wait(self, shard: Shard, record: JobRecord) -> JobRecord:
        """Wait for a job's end, and record it; real-time requests have ended."""
        if record.end is not None:
            return record

        def ended() -> JobRecord | None:
            try:
                remote_job = self.look(record)
            except RetriableError:
                # ML Commons polls the service, too: its write of the task and ours may conflict.
                return None
            status = self.adapter.job_status(remote_job)
            if status.state == "RUNNING":
                return None
            job_records = JobRecords(self.lab.objects, self.work_prefix.job(shard.job))
            job_records.end(record.submission, End(status.state, time.time(), status.reason), remote_job)
            return job_records.read()

        return eventually(ended, f"the end of {record.name} at {self.name}")

    def ingest(self, shard: Shard) -> ShardReport:
        """Ingest the staged records of a shard; its job has ended."""
        output = None
        if shard.job:
            folder = self.work_prefix.job(shard.job)
            record = present(JobRecords(self.lab.objects, folder).read())
            uris = output_uris(self.adapter, record, record.remote_job)
            output = JobOutput(uris, folder=folder, ml_task_id=record.ml_task_id, submission=record.submission)
        return StagedIngest(
            self.objects,
            self.cluster,
            layout=self.work_prefix,
            manifest=self.manifest,
            adapter=self.adapter,
            request=self.request,
        ).run(shard, output)

    def repair(
        self,
        asked: ResubmitRequest = ResubmitRequest(),  # noqa: B008 - frozen
        *,
        at_most: str = "100%",
    ) -> Shard | None:
        """Submit what has no prediction once more, and wait; return its shard, as `repair` does."""
        repair = Repair(self.objects, self.work_prefix, self.manifest, self.adapter, at_most)
        shard = repair.shard()
        if shard is None or not shard.job:
            return shard
        _, record = self.attempt(shard, asked)
        ended = self.wait(shard, record) if record.end is None else record
        return repair.without_job(shard) if present(ended.end).state in BAD_ENDS else shard

    def finish(
        self,
        shard: Shard,
        asked: ResubmitRequest = ResubmitRequest(),  # noqa: B008 - frozen
    ) -> ShardRunAccount:
        """Run the stages after the end of the shard's job."""
        self.ingest(shard)
        repaired = self.repair(asked)
        if repaired is not None:
            self.ingest(repaired)
        return self.reconcile([] if repaired is None else [repaired])

    def reconcile(self, repaired: Sequence[Shard] = ()) -> ShardRunAccount:
        """Add up the counts of the run, and commit it."""
        store, layout, manifest = self.lab.objects, self.work_prefix, self.manifest
        shards = written_shards(store, layout, manifest, repaired)
        account = reconcile(store, layout, manifest, shards, now=1.0)
        reports = shard_reports(store, layout, manifest, shards)
        commit(store, layout, manifest, (each for _, report in reports for each in report.verdicts.exceptions))
        return account

    def run(self) -> ShardRunAccount:
        """Run all stages."""
        shard = self.prepare()
        record = self.wait(shard, self.submit(shard)[1])
        assert record.end is not None
        assert record.end.state == "COMPLETED", record.end
        return self.finish(shard)

    def jobs(self) -> int:
        """Count the jobs the service ever accepted."""
        answer = self.lab.http.get(f"{self.lab.stack.addresses.ai_services}/jobs/count", timeout=WAIT_S)
        return int(answer.json()[self.name])

    def requests(self) -> int:
        """Count the real-time requests that the service ever answered."""
        answer = self.lab.http.get(f"{self.lab.stack.addresses.ai_services}/invocations/count", timeout=WAIT_S)
        return int(answer.json()[self.name])

    def paid(self) -> int:
        """Count the jobs of this flow."""
        return self.jobs() - self.jobs_before

    def fault(self, kind: str, **more: Any) -> None:
        """Let something go wrong with the next job."""
        self.lab.fault(**{"service": self.name, "fault": kind, "operation": SUBMIT[self.name], **more})

    def close(self) -> None:
        """Give the connections back."""
        self._openai.close()
        self._cohere._client_wrapper.httpx_client.httpx_client.close()  # noqa: SLF001 - it has no way of its own
        self.cluster.client.close()

    def documents(self) -> dict[str, Any]:
        """Return what a search finds."""
        return self.lab.documents(self.index)

    def letters(self, account: ShardRunAccount) -> dict[int, str]:
        """Return the reason of each dead letter by the line of its record."""
        letters = [letter for folder in account.dead_letters for letter in dead_letters(self.lab.objects, folder)]
        assert {letter.source for letter in letters} <= {f"s3://{self.bucket}/in/a.jsonl"}
        return {present(letter.line): letter.reason for letter in letters}

    def connector_body(self) -> dict[str, Any]:
        """Return the connector of the service, with its credential."""
        keys = self.lab.stack.credentials
        body = json.loads((CONNECTORS / f"{self.name}.json").read_text())
        del body["credential"]
        body = fill(body, VALUES[self.name], "connector")
        if self.name in KEYS:
            return {**body, "credential": {KEYS[self.name]: keys.secret_key}}
        return {**body, "credential": {"access_key": keys.access_key, "secret_key": keys.secret_key}}

    def _ensure_model(self, more: dict[str, Any]) -> Model:
        body = self.connector_body()
        body["parameters"] |= more

        def ensured() -> Model | None:
            # A model's name has letters, digits and little else (ML Commons 3.6).
            name = f"{self.name} {digest(json.dumps(more))}"
            try:
                return self.ml.ensure_model(name, body)
            except RetriableError:
                # A node that has just started makes the key for its credentials first.
                return None

        return eventually(ensured, "a model")


def as_floats(vector: list[float]) -> tuple[float, ...]:
    """Return a vector as the index keeps it."""
    return struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector))
