"""Takes one shard through its stages without Airflow: prepare, submit, wait, repair, ingest."""

from __future__ import annotations

import json
import struct
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opensearch_batch.core.errors import FatalError, RetriableError
from opensearch_batch.core.ingest.prediction_map import contains_record, with_source_paths
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.shard_ingest import ShardIngest
from opensearch_batch.core.jobs.contract import job_keys
from opensearch_batch.core.jobs.job_records import JobRecords, SubmitDecision, bad_end_message
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.jobs.repair import Repair, RepairAccount
from opensearch_batch.core.jobs.submission import MLCommonsSubmitter, Submission
from opensearch_batch.core.opensearch.ml_commons import MLCommons, Model, fill
from opensearch_batch.core.sharding.listing import find_documents
from opensearch_batch.core.sharding.shard_writer import ShardWriter
from opensearch_batch.core.storage.by_uri import Scheme
from opensearch_batch.core.storage.dead_letters import DeadLetters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.job import End, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import Manifest, Shard
from opensearch_batch.core.types.shard_limits import ShardLimits
from opensearch_batch.services.cohere import cohere_api
from opensearch_batch.services.openai import openai_api
from opensearch_batch.services.registry import adapter_of, service_of, stores
from tests.lab import MODEL, Lab
from tests.stored import dead_letters
from tests.waiting import WAIT_S, eventually

CONNECTORS = Path(__file__).resolve().parents[2] / "include" / "connectors"
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
# A prediction of any kind is moved alike, so most outcomes are tried with one kind.
SUBMIT = {
    "sagemaker": "CreateTransformJob",
    "bedrock": "CreateModelInvocationJob",
    "openai": "CreateBatch",
    "cohere": "CreateEmbedJob",
}


class ShardFlow:
    """One shard of documents of their own on its way through one service."""

    def __init__(
        self,
        lab: Lab,
        name: str,
        bucket: str,
        index: str,
        *,
        records: int = 6,
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
        self.field_map = field_map or FIELD_MAP
        self.work_prefix = Layout(f"s3://{bucket}/kept", "flow")
        self.ids = [f"{uuid.uuid4().hex}" for _ in range(records)]
        self.bucket = bucket
        self._body = body or BODY
        keys, url = lab.stack.credentials, lab.stack.addresses.ai_services
        self._openai = openai_api(keys.secret_key, f"{url}/v1")
        self._cohere = cohere_api(keys.secret_key, url)
        apis: dict[str, Any] = {"openai": self._openai, "cohere": self._cohere}
        self.objects = stores(
            {"s3": Scheme(lambda: lab.objects, compressed=True)}, lambda entry: apis[entry.name], services=apis
        )
        self.client = service_of(name).client(apis.get(name) or lab.aws(name), lab.objects)
        self.model = self._ensure_model(connector or {})
        self.jobs_before = self.jobs()

    def prepare(self) -> Shard:
        """Put the documents below a prefix, and cut them into one shard."""
        rows = (json.dumps({"id": name, "text": f"text {name}", "title": f"title {name}"}) for name in self.ids)
        self.lab.objects.write(f"s3://{self.bucket}/in/a.jsonl", "\n".join(rows).encode())
        parameters = self.model.parameters
        self.adapter.check(parameters, self.inputs)
        with DeadLetters(self.lab.objects, self.work_prefix.dead_letters("run", "prepare")) as dead:
            (prepared,), counts = ShardWriter(
                self.lab.objects,
                self.work_prefix,
                limits=ShardLimits(1000, 10_000_000, 1_000_000),
                request_line=self.adapter.request_line(parameters, self.inputs),
                keeps_records=not contains_record(self.adapter, parameters),
                job_key=job_keys(self.adapter, parameters, self.inputs),
                dead=dead,
            ).run(find_documents(self.lab.objects, self.work_prefix, f"s3://{self.bucket}/in/"))
        self.manifest = Manifest(
            "flow", "run", "in", self.name, self.model.id, counts, [prepared], parameters=parameters, inputs=self.inputs
        )
        return prepared.shard

    def submit(
        self,
        shard: Shard,
        asked: ResubmitRequest = ResubmitRequest(),  # noqa: B008 - frozen
        *,
        later_s: float = 0.0,
    ) -> tuple[SubmitDecision, JobRecord]:
        """Submit a shard's job, or find it; raise FatalError for one that ended badly, as batch_predict does."""
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
            )

        job_records = JobRecords(self.lab.objects, folder)
        submission = Submission(job_records, through, clock=lambda: time.time() + later_s, sleep=time.sleep)
        return submission.run(draft, asked)

    def look(self, record: JobRecord) -> dict[str, Any]:
        """Ask for a job: ML Commons, or the service where that has no task of it."""
        if record.ml_task_id is None:
            return self.client.describe(record)
        return {**record.remote_job, **(self.ml.task(record.ml_task_id).get("remote_job") or {})}

    def wait(self, shard: Shard, record: JobRecord) -> JobRecord:
        """Wait for a job's end, and record it."""

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
            found = job_records.load()
            return found and found[0]

        return eventually(ended, f"the end of {record.name} at {self.name}")

    def repair(
        self,
        shard: Shard,
        record: JobRecord,
        asked: ResubmitRequest = ResubmitRequest(),  # noqa: B008 - frozen
        *,
        rounds: int = 2,
    ) -> RepairAccount:
        """Ask again for what failed, as often as is allowed."""
        repair = Repair(
            self.objects,
            self.work_prefix,
            shard,
            adapter=self.adapter,
            parameters=self.model.parameters,
            inputs=self.inputs,
            rounds=rounds,
        )

        def submit(smaller: Shard) -> JobRecord:
            _, submitted = self.attempt(smaller, asked)
            return self.wait(smaller, submitted) if submitted.end is None else submitted

        outputs, folder = self.adapter.outputs(record, record.remote_job), self.work_prefix.job(shard.job)
        done = repair.run(JobOutput(outputs, None, folder, record.ml_task_id), submit)
        assert isinstance(done, RepairAccount)
        return done

    def ingest(self, shard: Shard, account: RepairAccount) -> IngestReport:
        """Bring what the jobs answered into the index."""
        if self.cluster.index(self.index) is None:
            self.cluster.create_index(self.index, self._body)
        parameters = self.model.parameters
        request = IngestRequest(self.index, self.field_map, on_unmatched="dead_letter")
        return ShardIngest(
            self.objects,
            self.cluster,
            layout=self.work_prefix,
            manifest=self.manifest,
            adapter=self.adapter,
            row_matching=self.adapter.row_matching(parameters),
            request=with_source_paths(request, self.adapter, parameters, self.inputs),
        ).run(shard, account.job_outputs)

    def run(self, *, rounds: int = 2) -> IngestReport:
        """Run all stages."""
        shard = self.prepare()
        record = self.wait(shard, self.submit(shard)[1])
        assert record.end is not None
        assert record.end.state == "COMPLETED", record.end
        return self.ingest(shard, self.repair(shard, record, rounds=rounds))

    def jobs(self) -> int:
        """Count the jobs the service ever accepted."""
        answer = self.lab.http.get(f"{self.lab.stack.addresses.ai_services}/jobs/count", timeout=WAIT_S)
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

    def letters(self, report: IngestReport) -> dict[str, str]:
        """Return reason by document id (or by the record, where none is known) of the dead letters."""
        letters = dead_letters(self.lab.objects, report.dead_letters)
        return {f"{letter.source}:{letter.line}": letter.reason for letter in letters}

    def _ensure_model(self, more: dict[str, Any]) -> Model:
        keys = self.lab.stack.credentials
        body = json.loads((CONNECTORS / f"{self.name}.json").read_text())
        del body["credential"]
        body = fill(body, VALUES[self.name], "connector")
        body["parameters"] |= more
        credential = (
            {KEYS[self.name]: keys.secret_key}
            if self.name in KEYS
            else {"access_key": keys.access_key, "secret_key": keys.secret_key}
        )
        # A model's name has letters, digits and little else (ML Commons 3.6).
        return self.ml.ensure_model(f"{self.name} {digest(json.dumps(more))}", {**body, "credential": credential})


def as_floats(vector: list[float]) -> tuple[float, ...]:
    """Return a vector as the index keeps it."""
    return struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector))
