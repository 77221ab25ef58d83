"""Runs of one pipeline from its staged records on: jobs answer, ingests write into an index, and letters are replayed.

The record ledger is written as a run of `reconcile` leaves it. What a job answers is made of the texts of its records.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.ingest.replay import ReplayReport, replay
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.staged_ingest import StagedIngest
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.ledger.content_keys import content_key
from opensearch_batch.core.ledger.head import Entry, ScopeHead
from opensearch_batch.core.ledger.predictions import NewShard, PredictionStore
from opensearch_batch.core.ledger.rows import RecordState, RowsReader, RowsWriter, with_verdicts
from opensearch_batch.core.ledger.rows_builder import RowsBuilder
from opensearch_batch.core.ledger.staged import StagedRecord, StagedWriter, read_staged
from opensearch_batch.core.ledger.verdicts import ShardReport
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.storage.dead_letters import DeadLetter
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import End, JobRecord
from opensearch_batch.core.types.manifest import DELETIONS, REPAIR, Manifest, Shard
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.core.types.vector_field import VectorField
from opensearch_batch.services.registry import adapter_of, row_errors
from tests.core.versioned_index import VersionedIndex
from tests.scripted import Answer, Scripted
from tests.stored import dead_letters, present

SOURCE = "s3://docs/a.jsonl"
BARE = {"DataProcessing": {"JoinSource": "None"}}
FIELD_MAP = {"_id": "$.id", "text": "$.text", "v": "prediction"}
VECTOR = VectorField("v", 2)


def record(number: int, **more: Any) -> dict[str, Any]:
    """Return a record whose id and text are of this number."""
    return {"id": f"d{number}", "text": f"t{number}", **more}


class StagedRuns:
    """A pipeline; each run has a claim of its own unless it is a trial.

    Args:
        objects: the store of the work prefix.
        cluster: the cluster of the index.
        service: the AI service.
        parameters: override those of its example.
        index: the name of the index.
        request: members of the pipeline's request.
    """

    def __init__(
        self,
        objects: Objects,
        cluster: Cluster,
        *,
        service: str = "openai",
        parameters: dict[str, Any] | None = None,
        index: str = "i",
        work_prefix: str = "s3://work",
        **request: Any,
    ) -> None:
        self.objects, self.cluster = objects, cluster
        self.layout = Layout(work_prefix, "p")
        self.adapter = adapter_of(service)
        self.parameters = {**self.adapter.example_parameters, **(parameters or {})}
        self.request = msgspec.structs.replace(
            IngestRequest(index, dict(FIELD_MAP), on_unmatched="dead_letter"), **request
        )
        self.inputs = ("$.text",)
        self.head = ScopeHead(objects, self.layout.scope_head("scope"))
        self.store = PredictionStore(objects, self.layout.predictions())
        self.vectors = [VECTOR]
        # Why the service returns no prediction for a text; None: it returns no row.
        self.fails: dict[str, str | None] = {}
        self.manifest = self.prepare("run-1")
        self.jobs = 0

    def prepare(self, run_key: str, *, trial: bool = False) -> Manifest:
        """Begin a run; the runs before it have lost their claim."""
        claim = None if trial else self.head.claim(0.0, run_key).claim
        found = self.cluster.index(self.request.index)
        self.manifest = Manifest(
            pipeline="p",
            run_key=run_key,
            source="s3://docs/",
            scope="scope",
            service=self.adapter.name,
            model_id="m",
            index=self.request.index,
            index_uuid="" if found is None else found.uuid,
            vectors=self.vectors,
            parameters=self.parameters,
            inputs=self.inputs,
            claim=claim,
            version=self.head.load().claim.version + 1,
            predictions=self.layout.predictions(),
        )
        return self.manifest

    def key(self, text: object) -> bytes:
        """Return the content key of a text."""
        return content_key(self.adapter, self.parameters, self.inputs)(json.dumps({"text": text}).encode())

    def stage(
        self, records: Iterable[dict[str, Any]], name: str = "0000", *, job: bool = True, uri: str = SOURCE
    ) -> Shard:
        """Stage the records of a shard, the lines of an object, and reserve the keys of its job."""
        staged = self.layout.staged(self.manifest.run_key, name)
        with StagedWriter(self.objects, staged) as writer:
            count = 0
            for count, each in enumerate(records, 1):
                content = json.dumps(each).encode()
                writer.add(StagedRecord(uri, count, 100 * count, content, self.key(each["text"])))
        shard = Shard(name, staged=staged, documents=count)
        return self._with_job(shard) if job else shard

    def repair(self, *shards: Shard, job: bool = True) -> Shard:
        """Stage the unanswered records of shards again."""
        staged = self.layout.staged(self.manifest.run_key, REPAIR)
        with StagedWriter(self.objects, staged) as writer:
            count = 0
            for shard in shards:
                for each in read_staged(self.objects, self.layout.unanswered(self.manifest.run_key, shard.id)):
                    writer.add(each)
                    count += 1
        repaired = Shard(REPAIR, staged=staged, documents=count)
        return self._with_job(repaired) if job else repaired

    def _with_job(self, shard: Shard) -> Shard:
        self.jobs += 1
        keys = list(dict.fromkeys(each.content_key or b"" for each in read_staged(self.objects, *shard.files)))
        job_key = f"job-{self.jobs}"
        _, (new,) = self.store.reserve(keys, lambda located: [NewShard(job_key, b"".join(keys))])  # noqa: ARG005 - all
        return msgspec.structs.replace(shard, job=new.job_key, records=len(keys))

    def answer(self, shard: Shard, *, more: Sequence[bytes] = ()) -> JobOutput:
        """Write the output of a shard's job: a row for each text, in another order if rows name their records."""
        texts = dict.fromkeys(json.loads(each.record)["text"] for each in read_staged(self.objects, *shard.files))
        rows = [self._row(at, text) for at, text in enumerate(texts) if self.fails.get(text, "") is not None]
        if self.adapter.row_matching(self.parameters) != "by_position":
            rows.reverse()
        folder = self.layout.job(shard.job)
        uri = f"{folder}/output/1/input.jsonl.out"
        self.objects.write(uri, b"\n".join([*(json.dumps(row).encode() for row in rows), *more]))
        job = JobRecord(shard.job, "n", self.adapter.name, "m", "in", f"{folder}/output/1/", 0.0, ml_task_id="t")
        save(
            self.objects, JobRecords(self.objects, folder).uri, msgspec.structs.replace(job, end=End("COMPLETED", 1.0))
        )
        return JobOutput([uri], folder=folder, ml_task_id="t")

    def _row(self, at: int, text: str) -> Any:
        reason, vector = self.fails.get(text), vector_of(text)
        name = record_id(at)
        if self.adapter.name == "openai":
            body = {"data": [{"embedding": vector}], "usage": {"total_tokens": at}}
            response = {"status_code": 400 if reason else 200, "body": {"error": reason} if reason else body}
            return {"id": f"b{at}", "custom_id": name, "response": response, "error": None}
        if self.adapter.name == "bedrock":
            return {"recordId": name, **({"error": reason} if reason else {"modelOutput": {"embedding": vector}})}
        if self.adapter.name == "cohere":
            return {"record_id": name, "embeddings": {"float": vector}}
        if self.adapter.row_matching(self.parameters) == "by_position":
            return {"SageMakerInferenceError": reason} if reason else vector
        answer = {"SageMakerInferenceError": reason} if reason else {"SageMakerOutput": vector}
        return {"id": "of another record", "text": text, **answer}

    def ingest(self, shard: Shard, output: JobOutput | None = None, *, manifest: Manifest | None = None) -> ShardReport:
        """Ingest a shard of the last run, or of another one; its job answers unless an output is given."""
        if shard.job and output is None:
            output = self.answer(shard)
        return StagedIngest(
            self.objects,
            self.cluster,
            layout=self.layout,
            manifest=manifest or self.manifest,
            adapter=self.adapter,
            request=self.request,
        ).run(shard, output)

    def run(self, *records: dict[str, Any]) -> ShardReport:
        """Stage records in one shard, and ingest it."""
        return self.ingest(self.stage(records))

    def delete(self, tables: Iterable[Any]) -> Shard:
        """Stage deletions."""
        from opensearch_batch.core.ledger.staged import write_deletions

        staged = self.layout.staged(self.manifest.run_key, DELETIONS)
        return Shard(DELETIONS, staged=staged, documents=write_deletions(self.objects, staged, tables))

    def commit(self, report: ShardReport, *records: dict[str, Any], uri: str = SOURCE) -> None:
        """Commit the records of an object with the verdicts of their ingest, as `reconcile` does."""
        states = {(name, line): state for name, line, state in report.verdicts.exceptions}
        builder = RowsBuilder()
        for line, each in enumerate(records, 1):
            state = states.get((uri, line), RecordState.INDEXED)
            builder.add(each["id"], json.dumps(each).encode(), [self.key(each["text"])], line=line, state=state)
        table, writer = builder.table(), RowsWriter(self.objects, self.layout.scope_rows("scope"))
        found = table["state"].to_numpy()
        versions = (found == RecordState.INDEXED) * self.manifest.version
        writer.add(uri, with_verdicts(table, found, versions))
        (written,) = writer.close().values()
        entry = Entry(**msgspec.structs.asdict(written), etag="e")
        claim = present(self.manifest.claim)
        self.head.commit(claim, lambda head: msgspec.structs.replace(head, objects={**head.objects, uri: entry}))

    def remove(self, uri: str = SOURCE) -> None:
        """Commit that an object is gone."""
        claim = present(self.manifest.claim)
        self.head.commit(
            claim,
            lambda head: msgspec.structs.replace(
                head, objects={name: entry for name, entry in head.objects.items() if name != uri}
            ),
        )

    def rows(self, uri: str = SOURCE) -> list[tuple[str, str, int]]:
        """Return id, state and version of the rows that the ledger has of an object."""
        entry = self.head.load().objects[uri]
        rows = [row for table in RowsReader(self.objects).read(entry) for row in table.to_pylist()]
        assert entry.states == {
            state.name.lower(): count
            for state, count in sorted(Counter(RecordState(row["state"]) for row in rows).items())
        }
        return [(row["id"], RecordState(row["state"]).name, row["version"]) for row in rows]

    def replay(self, report: ShardReport, request: IngestRequest | None = None) -> ReplayReport:
        """Send the dead letters of a report again."""
        return replay(report.dead_letters or "", self.objects, self.cluster, request=request, row_errors=row_errors())

    def letters(self, report: ShardReport) -> list[DeadLetter]:
        """Return the dead letters of a report."""
        return dead_letters(self.objects, report.dead_letters)

    def unanswered(self, shard: Shard) -> list[StagedRecord]:
        """Return the unanswered records of a shard."""
        uri = self.layout.unanswered(self.manifest.run_key, shard.id)
        return list(read_staged(self.objects, uri)) if self.objects.head(uri) else []


# Makes the runs of a pipeline; its arguments are members of `StagedRuns`.
MakeRuns = Callable[..., StagedRuns]


class Target:
    """The index `i`: it may refuse documents, or drop them as an ingest pipeline does."""

    def __init__(self, scripted: Scripted) -> None:
        self.scripted, self.index = scripted, VersionedIndex()
        self.found: Index | None = Index("i", "uuid", (VECTOR,), {}, {})
        self.refuses, self.drops = b"refused", b"dropped"
        # Called with each body before it is answered.
        self.before: Callable[[bytes], object] = lambda body: None  # noqa: ARG005 - nothing happens
        scripted.answer = self.answer

    def answer(self, body: bytes) -> Answer:
        """Answer a bulk request."""
        self.before(body)
        lines, items = [line + b"\n" for line in body.splitlines()], []
        while lines:
            action = lines.pop(0)
            document = b"" if action.startswith(b'{"delete"') else lines.pop(0)
            if document and self.refuses in document:
                items.append({"index": {"status": 400, "error": {"type": "mapper", "reason": "no"}}})
            elif document and self.drops in document:
                items.append({"index": {"status": 200, "result": "noop"}})
            else:
                items += present(self.index.answer(action + document))[1]["items"]
        errors = any("error" in result for item in items for result in item.values())
        return 200, {"errors": errors, "items": items}


def vector_of(text: str) -> list[float]:
    """Return the prediction for a text."""
    return [len(text) + 0.5, 0.25]


def exceptions(report: ShardReport) -> dict[int, str]:
    """Return the state of each record that was not indexed, by its line."""
    return {line: state.name for _, line, state in report.verdicts.exceptions}
