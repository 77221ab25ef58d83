"""Runs of one pipeline without Airflow: the real prepare and commit; the service and the index are dicts."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.commit import committed_entries, head_change
from opensearch_batch.core.ledger.head import Head, ScopeHead
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RecordState
from opensearch_batch.core.ledger.staged import StagedRecord, read_deletions, read_staged
from opensearch_batch.core.runs.preparation import Preparation, PreparedRun
from opensearch_batch.core.runs.prepare_options import PrepareOptions, fingerprint_of, scope_of
from opensearch_batch.core.sharding.document_ids import document_ids, ids_reader
from opensearch_batch.core.sharding.listing import list_source
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.manifest import DELETIONS, Manifest, Shard
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects

SOURCE = "s3://lake/in/"
INPUTS = ("$.text",)


def record(number: object, text: str, **more: object) -> dict[str, Any]:
    """A record; the model reads its text."""
    return {"id": str(number), "text": text, **more}


class Nights:
    """A source, the work prefix, the service and the index of one pipeline."""

    def __init__(self, service: str = "sagemaker", **options: Any) -> None:
        self.objects = MemoryObjects()
        self.layout = Layout("s3://lake/work", "p")
        self.index: dict[str, dict[str, Any]] = {}
        self.paid = Counter[str]()
        self.operations = 0
        self.runs = 0
        self.include: tuple[str, ...] = ()
        self.index_uuid = "u1"
        self.adapter = adapter_of(service)
        self.parameters = dict(self.adapter.example_parameters)
        self.request = IngestRequest("books", {"_id": "$.id", "text": "$.text", "vector": "prediction"})
        self.options = {"max_records": 3, "max_bytes": 10_000, **options}
        self.clock = 1_000.0

    @property
    def store(self) -> PredictionStore:
        """The prediction store."""
        return PredictionStore(self.objects, self.layout.predictions())

    @property
    def scope(self) -> str:
        """The name of the scope."""
        return scope_of(SOURCE, self.include, ())

    def head(self) -> Head:
        """The head of the scope."""
        return self.scope_head().load()

    def scope_head(self) -> ScopeHead:
        """The document of the head."""
        return ScopeHead(self.objects, self.layout.scope_head(self.scope))

    def put(self, name: str, *records: dict[str, Any] | bytes) -> None:
        """Write an object of the source."""
        lines = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in records]
        self.objects.write(f"{SOURCE}{name}", b"".join(line + b"\n" for line in lines))

    def delete(self, name: str) -> None:
        """Delete an object of the source."""
        self.objects.delete(f"{SOURCE}{name}")

    def preparation(self, **options: Any) -> Preparation:
        """The prepare of the next run."""
        self.runs += 1
        self.clock += 1
        chosen = PrepareOptions(**{**self.options, **options})
        manifest = Manifest(
            pipeline="p",
            run_key=f"run{self.runs}",
            source=SOURCE,
            scope=self.scope,
            service=self.adapter.name,
            model_id="m",
            index="books",
            index_uuid=self.index_uuid,
            fingerprint=fingerprint_of(
                self.request,
                self.adapter,
                self.parameters,
                INPUTS,
                objects=self.objects,
                index_body=None,
                options=chosen,
            ),
            parameters=self.parameters,
            inputs=INPUTS,
            predictions=self.layout.predictions(),
        )
        return Preparation(
            self.objects,
            self.layout,
            list_source(self.objects, SOURCE, include=self.include),
            manifest,
            adapter=self.adapter,
            request=self.request,
            at_s=self.clock,
            options=chosen,
        )

    def prepare(self, **options: Any) -> PreparedRun:
        """Prepare the next run, for which there is something to do."""
        prepared = self.preparation(**options).run()
        assert prepared is not None
        return prepared

    def is_done(self) -> bool:
        """Whether the next run finds nothing to do."""
        return self.preparation().run() is None

    def staged(self, prepared: PreparedRun) -> list[StagedRecord]:
        """All staged records of a run, shard by shard."""
        return [each for shard in prepared.manifest.shards for each in self.staged_of(shard)]

    def staged_of(self, shard: Shard) -> list[StagedRecord]:
        """The staged records of a shard."""
        return [] if shard.id == DELETIONS else list(read_staged(self.objects, *shard.files))

    def deleted(self, prepared: PreparedRun) -> list[str]:
        """The ids that a run deletes."""
        shards = [shard for shard in prepared.manifest.shards if shard.id == DELETIONS]
        return [each.id for shard in shards for each in read_deletions(self.objects, shard.staged)]

    def predict(self, prepared: PreparedRun) -> None:
        """Run the jobs that a run pays for, and add their answers to the store."""
        for shard in prepared.manifest.shards:
            if not shard.job:
                continue
            with self.objects.open(shard.input) as stream:
                lines = stream.read().splitlines()
            keys = self.store.shard_keys(shard.job)
            assert keys is not None
            assert len(keys) == len(lines) == shard.records
            self.paid.update(key.hex() for key in keys)
            self.store.add(shard.job, 1, [(key, StoredAnswer(b'{"SageMakerOutput":[1.0]}')) for key in keys])

    def finish(self, prepared: PreparedRun, dead: tuple[str, ...] = ()) -> None:
        """Predict, write the documents, and commit; records with a text of `dead` become dead letters."""
        self.predict(prepared)
        for name in self.deleted(prepared):
            self.operations += 1
            self.index.pop(name, None)
        read_ids = ids_reader(document_ids(self.request, self.adapter))
        staged, exceptions = self.staged(prepared), list[tuple[str, int, RecordState]]()
        assert len(staged) == sum(shard.documents for shard in prepared.manifest.shards if shard.id != DELETIONS)
        assert (self.store.lookup([each.content_key or b"" for each in staged]).source >= 0).all()
        for each in staged:
            document = json.loads(each.record)
            if document["text"] in dead:
                exceptions.append((each.uri, each.line, RecordState.DEAD))
            else:
                self.operations += 1
                self.index[read_ids(each.record, each.uri, each.line)[0]] = document
        manifest, ledger = prepared.manifest, prepared.ledger
        if manifest.claim is not None:
            entries = committed_entries(
                self.objects,
                ledger,
                exceptions,
                self.store,
                folder=self.layout.scope_rows(self.scope),
                version=manifest.version,
            )
            self.scope_head().commit(manifest.claim, head_change(ledger, entries, manifest))

    def run(self, **options: Any) -> PreparedRun:
        """Prepare and finish a run."""
        prepared = self.prepare(**options)
        self.finish(prepared)
        return prepared
