"""Whole runs of a pipeline without servers, which may be killed at any write, and what index and service then have.

The stages are those of the operators, with the real core; store, service and index are in memory. A killed process
does nothing any more: the write at which it died may or may not have happened.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import msgspec

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.staged_ingest import StagedIngest
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.jobs.submission import Submission
from opensearch_batch.core.ledger.commit import announce, commit
from opensearch_batch.core.ledger.head import Head, ScopeHead
from opensearch_batch.core.opensearch.cluster import Cluster, Index
from opensearch_batch.core.runs.preparation import Preparation, PreparedRun
from opensearch_batch.core.runs.prepare_options import PrepareOptions, fingerprint_of, scope_of
from opensearch_batch.core.runs.repair import Repair
from opensearch_batch.core.runs.run_account import ShardRunAccount, reconcile, shard_reports, written_shards
from opensearch_batch.core.runs.run_summary import first_start, record_end, record_start
from opensearch_batch.core.runs.spread import Spread, SpreadSettings, begin
from opensearch_batch.core.sharding.listing import Listing
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.job import Accepted, End, JobRecord, ResubmitRequest
from opensearch_batch.core.types.manifest import Manifest, Shard
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.vector_field import VectorField
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects
from tests.core.versioned_index import VersionedIndex
from tests.stored import present

INDEX, INPUTS = "books", ("$.text",)
VECTOR = VectorField("v", 2)
FIELD_MAP = {"_id": "$.id", "text": "$.text", "more": "$.more", "v": "prediction"}
Record = Mapping[str, Any]


class Killed(BaseException):
    """The process ends here."""


class Life:
    """How many more steps a process makes until it is killed; None: any number."""

    def __init__(self) -> None:
        self.left: int | None = None

    def step(self) -> None:
        """Live on, or die."""
        if self.left is not None:
            if self.left <= 0:
                raise Killed
            self.left -= 1


class MortalObjects(MemoryObjects):
    """Objects in memory; a process may be killed before and after each write."""

    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life
        self.opened: list[str] = []

    def write(self, uri: str, content: bytes) -> None:
        """Write an object."""
        self._life.step()
        super().write(uri, content)
        self._life.step()

    def create(self, uri: str, content: bytes) -> bool:
        """Write an object if it is absent."""
        self._life.step()
        is_new = super().create(uri, content)
        self._life.step()
        return is_new

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        """Write an object if it still has this ETag."""
        self._life.step()
        is_replaced = super().replace(uri, content, etag=etag)
        self._life.step()
        return is_replaced

    def delete(self, uri: str) -> None:
        """Delete an object if it exists."""
        self._life.step()
        super().delete(uri)
        self._life.step()

    def open(self, uri: str, **how: Any) -> Any:
        """Open an object."""
        self.opened.append(uri)
        return super().open(uri, **how)


class MortalCluster(Cluster):
    """A cluster with one index in memory."""

    def __init__(self, life: Life) -> None:
        self.name = "memory"
        self.found = VersionedIndex()
        self.uuid = "u1"
        self._life = life

    def index(self, name: str) -> Index:
        """Return the index."""
        return Index(name, self.uuid, (VECTOR,), {}, {})

    def refresh(self, name: str) -> None:
        """Refresh the index."""

    def call(self, method: str, path: str, body: Any = None, **how: Any) -> Any:  # noqa: ARG002 - as the original
        """Answer a bulk request, `_mget`, `_count`, or a search for all documents, which has one page."""
        if path.endswith(("_count", "_search", "_search/scroll")):
            hits = [{"_id": name, "_version": self.found.versions[name]} for name in self.documents_of(path)]
            return {"count": len(self.found.documents), "hits": {"hits": hits}, "_scroll_id": "scroll"}
        self._life.step()
        answer: Any = self.found.answer(body if isinstance(body, bytes) else json.dumps(body).encode())
        self._life.step()
        return answer[1]

    def documents_of(self, path: str) -> list[str]:
        """Return the ids of the documents on the first page of a search."""
        return sorted(self.found.documents) if path.endswith("/_search") else []

    def delete_index(self) -> None:
        """Delete the index; it is created again without documents."""
        self.found = VersionedIndex()
        self.uuid = f"u{int(self.uuid[1:]) + 1}"


class AiService:
    """A service that counts the texts that were paid for; its jobs end at once.

    `fails` has the number of failures that are left for a text.
    """

    def __init__(self, objects: MemoryObjects, service: str, life: Life) -> None:
        self.paid = Counter[str]()
        self.fails = dict[str, int]()
        self._objects = objects
        self._name = service
        self._life = life
        self._jobs = dict[str, str]()

    def stage(self, record: JobRecord) -> dict[str, str]:  # noqa: ARG002 - the protocol's
        """Upload nothing."""
        return {}

    def unstage(self, record: JobRecord) -> None:
        """Delete nothing."""

    def submit(self, record: JobRecord) -> Accepted:
        """Run the job."""
        self._life.step()
        assert record.name not in self._jobs, "the service takes a name once"
        stored = self._objects.read(record.input)
        if stored is None:
            raise FatalError(f"{record.input}: no such object")
        rows = [self._row(json.loads(line)) for line in stored.content.splitlines()]
        # Each names its record.
        rows.reverse()
        output = f"{record.output}input.jsonl.out"
        content = b"\n".join(json.dumps(row).encode() for row in rows)
        MemoryObjects.write(self._objects, output, content)
        self._jobs[record.name] = f"task of {record.name}"
        self._life.step()
        return Accepted(self._jobs[record.name])

    def find(self, record: JobRecord) -> Accepted | None:
        """Find an orphan."""
        task = self._jobs.get(record.name)
        return None if task is None else Accepted(task)

    def _row(self, line: Any) -> Any:
        text = line["body"]["input"][0] if self._name == "openai" else line["text"]
        self.paid[text] += 1
        failed = self.fails.get(text, 0) > 0
        if failed:
            self.fails[text] -= 1
        if self._name != "openai":
            return {**line, **({"SageMakerInferenceError": "no"} if failed else {"SageMakerOutput": vector_of(text)})}
        body = {"error": "no"} if failed else {"data": [{"embedding": vector_of(text)}], "usage": {}}
        return {"custom_id": line["custom_id"], "response": {"status_code": 400 if failed else 200, "body": body}}


def vector_of(text: str) -> list[float]:
    """Return the prediction for a text."""
    return [len(text) + 0.5, float(sum(text.encode()) % 64)]


def document_of(record: Record) -> dict[str, Any]:
    """Return the document of a record."""
    return {"text": record["text"], "more": record.get("more"), "v": vector_of(record["text"])}


class Pipeline:
    """The source, the work prefix, the service and the index of a pipeline."""

    def __init__(self, service: str = "openai", **options: Any) -> None:
        self.life = Life()
        self.objects = MortalObjects(self.life)
        self.cluster = MortalCluster(self.life)
        self.service = AiService(self.objects, service, self.life)
        self.adapter = adapter_of(service)
        self.parameters = {**self.adapter.example_parameters}
        self.layout = Layout("s3://lake/work", "p")
        self.predictions = self.layout.predictions()
        self.request = IngestRequest(INDEX, dict(FIELD_MAP), on_unmatched="dead_letter", max_in_flight=1)
        self.options = {"max_records": 3, "max_bytes": 10_000, "repair_at_most": "100%", **options}
        self.index, self.in_place, self.source_prefix = INDEX, False, "s3://lake/in/"
        self.clock = 1_000.0
        # How large a source is prepared by several tasks; None: none.
        self.split_bytes: int | None = None
        self.runs = 0
        self._modified = dict[str, float]()

    @property
    def documents(self) -> dict[str, Any]:
        """The documents of the index."""
        return self.cluster.found.documents

    def put(self, name: str, *records: Record) -> None:
        """Write an object of the source as JSON Lines."""
        self.put_content(name, b"".join(json.dumps(each).encode() + b"\n" for each in records))

    def put_content(self, name: str, content: bytes) -> None:
        """Write an object of the source."""
        uri = f"{self.source_prefix}{name}"
        MemoryObjects.write(self.objects, uri, content)
        self.clock += 1
        self._modified[uri] = self.clock

    def remove(self, name: str) -> None:
        """Delete an object of the source."""
        MemoryObjects.delete(self.objects, f"{self.source_prefix}{name}")

    def listing(self, prefix: str) -> Listing:
        """Return the objects of a source."""
        items = [self._dated(item) for item in self.objects.list(prefix)]
        return Listing(prefix, tuple(items))

    @contextmanager
    def opened(self, source: str) -> Iterator[tuple[Objects, Listing]]:
        """Open a source, and list it."""
        yield self.objects, self.listing(source)

    def _dated(self, item: ObjectInfo) -> ObjectInfo:
        return msgspec.structs.replace(item, modified=self._modified[item.uri])

    def new_run(self, partition: str = "", at_s: float | None = None, **options: Any) -> Run:
        """Begin a run of the whole source, or of a partition of it."""
        self.runs += 1
        self.clock += 1
        return Run(
            self, f"run{self.runs}", f"{self.source_prefix}{partition}", at_s or self.clock, self.options | options
        )

    def run(self, partition: str = "", at_s: float | None = None, **options: Any) -> Run:
        """Run from the beginning to the end."""
        run = self.new_run(partition, at_s, **options)
        run.finish()
        return run

    def head(self, partition: str = "") -> Head:
        """Return the head of a scope."""
        scope = scope_of(f"{self.source_prefix}{partition}", (), ())
        return ScopeHead(self.objects, self.layout.scope_head(scope)).load()


class Run:
    """One run: its next stages. A stage that was killed is done again."""

    def __init__(self, pipeline: Pipeline, key: str, source: str, at_s: float, options: Mapping[str, Any]) -> None:
        self.run_id, self.key, self.source = f"manual {key}", key, source
        self.stages: list[Callable[[], None]] = [self.prepare]
        self.manifest: Manifest | None = None
        self.account: ShardRunAccount | None = None
        self._pipeline = pipeline
        self._at_s = at_s
        self._repair_at_most = options["repair_at_most"]
        self._options = PrepareOptions(**{name: value for name, value in options.items() if name != "repair_at_most"})
        self._repaired: list[Shard] = []
        self.now = 0.0

    def finish(self) -> None:
        """Do all stages that are left."""
        while self.stages:
            self.stages[0]()
            self.stages.pop(0)

    def killed_after(self, steps: int) -> bool:
        """Do stages until the process is killed; return False if all stages were done before."""
        life = self._pipeline.life
        life.left = steps
        try:
            with suppress(Killed):
                self.finish()
        finally:
            life.left = None
        return bool(self.stages)

    def prepare(self) -> None:
        """Prepare the run."""
        with self._pipeline.opened(self.source) as (store, listing):
            self._prepare(store, listing)

    def _prepare(self, store: Objects, listing: Listing) -> None:
        pipeline, layout = self._pipeline, self._pipeline.layout
        draft = Manifest(
            pipeline=layout.pipeline,
            run_key=self.key,
            run_id=self.run_id,
            started_at=first_start(pipeline.objects, layout, self.key, now=pipeline.clock),
            source=self.source,
            scope=scope_of(self.source, (), ()),
            service=pipeline.adapter.name,
            model_id="m",
            index=pipeline.index,
            index_uuid=present(pipeline.cluster.index(pipeline.index)).uuid,
            in_place=pipeline.in_place,
            fingerprint=fingerprint_of(
                pipeline.request,
                pipeline.adapter,
                pipeline.parameters,
                INPUTS,
                objects=pipeline.objects,
                index_body=None,
                options=self._options,
            ),
            vectors=[VECTOR],
            parameters=pipeline.parameters,
            inputs=INPUTS,
            predictions=pipeline.predictions,
        )
        preparation = Preparation(
            store,
            layout,
            listing,
            draft,
            adapter=pipeline.adapter,
            request=pipeline.request,
            at_s=self._at_s,
            options=self._options,
        )
        size = pipeline.split_bytes
        if size and begin(store, layout, preparation, SpreadSettings(size)):
            self.stages.insert(1, self._split)
        else:
            self._start(preparation.run())

    def _spread(self) -> Spread:
        """Return what a task has that shares the work of prepare."""
        return Spread(self._pipeline.objects, self._pipeline.layout, self.key, adapter_of)

    def _split(self) -> None:
        reads = [partial(self._read, split.number) for split in self._spread().split()]
        self.stages[1:1] = [*reads, self._compare]

    def _read(self, number: int) -> None:
        self._spread().read(number)

    def _compare(self) -> None:
        staging = [partial(self._stage, split.number) for split in self._spread().compare()]
        self.stages[1:1] = [*staging, self._reserve]

    def _stage(self, number: int) -> None:
        self._spread().stage(number)

    def _reserve(self) -> None:
        self._start(self._spread().finish())

    def _start(self, prepared: PreparedRun | None) -> None:
        """Announce a run, and add its next stages."""
        pipeline, layout = self._pipeline, self._pipeline.layout
        if prepared is None:
            return
        self.manifest = prepared.manifest
        announce(pipeline.objects, layout, prepared.manifest, prepared.ledger)
        record_start(pipeline.objects, layout, prepared.manifest)
        for shard in prepared.manifest.shards:
            if shard.job:
                self.stages.append(partial(self._predict, shard))
            self.stages.append(partial(self.ingest, shard))
        self.stages += [self._repair, self._reconcile]

    def _predict(self, shard: Shard) -> None:
        """Submit the job of a shard, or find it, and wait for its end."""
        pipeline, folder = self._pipeline, self._pipeline.layout.job(shard.job)
        records = JobRecords(pipeline.objects, folder)

        def draft(number: int) -> JobRecord:
            name = pipeline.adapter.job_name(pipeline.layout.pipeline, folder, number)
            output = f"{folder}/output/{number}/"
            return JobRecord(shard.job, name, pipeline.adapter.name, "m", shard.input, output, self._time(), number)

        submission = Submission(records, pipeline.service, clock=self._time, sleep=lambda seconds: None)  # noqa: ARG005 - time passes
        _, record = submission.run(draft, ResubmitRequest())
        records.end(record.submission, End("COMPLETED", 1.0))

    def _time(self) -> float:
        """Return a time that is long after the last one."""
        self._pipeline.clock += 100
        return self._pipeline.clock

    def ingest(self, shard: Shard) -> None:
        """Ingest a shard."""
        pipeline, output = self._pipeline, None
        assert self.manifest is not None
        if shard.job:
            folder = pipeline.layout.job(shard.job)
            record = JobRecords(pipeline.objects, folder).read()
            assert record is not None
            uri = f"{record.output}input.jsonl.out"
            output = JobOutput([uri], folder=folder, ml_task_id=record.ml_task_id, submission=record.submission)
        StagedIngest(
            pipeline.objects,
            pipeline.cluster,
            layout=pipeline.layout,
            manifest=self.manifest,
            adapter=pipeline.adapter,
            request=pipeline.request,
        ).run(shard, output)

    def _repair(self) -> None:
        pipeline = self._pipeline
        assert self.manifest is not None
        repair = Repair(pipeline.objects, pipeline.layout, self.manifest, pipeline.adapter, self._repair_at_most)
        shard = repair.shard()
        if shard is None:
            return
        if shard.job:
            self._predict(shard)
        self._repaired = [shard]
        self.stages.insert(1, partial(self.ingest, shard))

    def _reconcile(self) -> None:
        pipeline = self._pipeline
        store, layout, manifest = pipeline.objects, pipeline.layout, self.manifest
        assert manifest is not None
        shards = written_shards(store, layout, manifest, self._repaired)
        self.account = reconcile(store, layout, manifest, shards, now=pipeline.clock)
        reports = shard_reports(store, layout, manifest, shards)
        commit(store, layout, manifest, (each for _, report in reports for each in report.verdicts.exceptions))
        record_end(store, layout, manifest, self.account)
