"""A run whose jobs left records without a prediction."""

from __future__ import annotations

import json
from collections.abc import Sequence

from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.predictions import NewShard, PredictionStore
from opensearch_batch.core.ledger.staged import StagedRecord, StagedWriter, read_staged
from opensearch_batch.core.ledger.verdicts import ShardReport, Verdicts
from opensearch_batch.core.runs.repair import Repair
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.manifest import Manifest, Shard
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects

LAYOUT = Layout("s3://work", "p")
ADAPTER = adapter_of("openai")
PAID = 10
ANSWER = StoredAnswer(b"1")


def key(text: str) -> bytes:
    """The content key of a text."""
    return text.encode().rjust(16, b"\0")


class Run:
    """A run whose jobs were paid for ten records each."""

    def __init__(self, run_key: str = "r") -> None:
        self.objects = MemoryObjects()
        self.run_key = run_key
        self.shards: list[Shard] = []
        self.realtime_below = 0
        self.parameters = dict(ADAPTER.example_parameters)
        self.store = PredictionStore(self.objects, "s3://work/p/predictions")

    def manifest(self) -> Manifest:
        """Return the manifest."""
        return Manifest(
            pipeline="p",
            run_key=self.run_key,
            source="s3://d/",
            scope="s",
            service="openai",
            model_id="m",
            index="i",
            shards=self.shards,
            parameters=self.parameters,
            inputs=("$.text",),
            predictions="s3://work/p/predictions",
            realtime_below=self.realtime_below,
        )

    def ingest(self, *unanswered: str, reasons: dict[str, int] | None = None) -> Shard:
        """Add a shard, of which the records with these texts got no prediction."""
        name = f"{len(self.shards):04d}"
        shard = Shard(name, f"job-{name}", f"in-{name}", PAID, 1, f"staged-{name}", PAID)
        self.shards.append(shard)
        if unanswered:
            with StagedWriter(self.objects, LAYOUT.unanswered(self.run_key, name)) as writer:
                for line, text in enumerate(unanswered, 1):
                    record = json.dumps({"text": text, "line": line}).encode()
                    writer.add(StagedRecord(f"s3://d/{name}", line, 0, record, key(text), f"no {text}"))
        report = ShardReport(
            "i",
            "DONE",
            IngestCounts(read=PAID - len(unanswered)),
            verdicts=Verdicts(
                self.manifest().shard_digest(shard),
                unanswered=len(unanswered),
                reasons=reasons or {f"no {text}": 1 for text in unanswered},
            ),
        )
        save(self.objects, LAYOUT.ingest_report(self.run_key, name), report)
        return shard

    def repair(self, at_most: str = "20%", service: str = "openai") -> Repair:
        """Return the repair of the run."""
        return Repair(self.objects, LAYOUT, self.manifest(), adapter_of(service), at_most)

    def staged(self, shard: Shard) -> list[StagedRecord]:
        """Return the records that the ingest of a shard writes."""
        return list(read_staged(self.objects, *shard.files))

    def reserve(self, job_key: str, texts: Sequence[str]) -> None:
        """Reserve keys, as another run."""
        keys = b"".join(map(key, texts))
        self.store.reserve(keys, lambda _: [NewShard(job_key, keys)])
