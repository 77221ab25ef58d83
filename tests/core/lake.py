"""Sources in the stack's store, and requests that bring them into its node."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opensearch_batch.core.ingest.batch_ingestion import parse_request
from opensearch_batch.core.ingest.join import MEMORY_BYTES
from opensearch_batch.core.ingest.request_ingest import run_batch_ingestion
from opensearch_batch.core.storage.dead_letters import DeadLetter
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestCounts, IngestReport
from opensearch_batch.services.registry import row_errors
from tests.lab import Lab
from tests.stored import dead_letters


class Lake:
    """A bucket with sources, and one index to bring them into."""

    def __init__(self, lab: Lab, bucket: str, index: str) -> None:
        self.lab, self.bucket, self.index = lab, bucket, index
        self.objects: Objects = lab.objects
        self.sources: list[str] = []
        self.field_map: dict[str, Any] = {"_id": "$.id", "n": "$.n", "text": "$.text"}

    def put(self, name: str, *rows: dict[str, Any] | bytes) -> str:
        """Write a source, or write it anew; it is part of all later requests."""
        uri = f"s3://{self.bucket}/{name}"
        content = b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
        self.lab.objects.write(uri, content)
        if uri not in self.sources:
            self.sources.append(uri)
        return uri

    def run(
        self,
        *,
        force: bool = False,
        memory_bytes: int = MEMORY_BYTES,
        folder: Path | None = None,
        on_progress: Callable[[IngestCounts, int], None] = lambda counts, size: None,  # noqa: ARG005 - nobody watches
        **more: Any,
    ) -> IngestReport:
        """Run the request; `more` are members of it."""
        request = {
            "index_name": self.index,
            "field_map": self.field_map,
            "data_source": {"type": "s3", "source": self.sources},
            **more,
        }
        return run_batch_ingestion(
            parse_request(request),
            self.objects,
            self.lab.cluster(),
            work_prefix=f"s3://{self.bucket}/work",
            row_errors=row_errors(),
            force=force,
            memory_bytes=memory_bytes,
            spill_folder=folder,
            on_progress=on_progress,
        )

    def letters(self, report: IngestReport) -> list[DeadLetter]:
        """Read the dead letters a report names."""
        return dead_letters(self.lab.objects, report.dead_letters)

    def documents(self) -> dict[str, Any]:
        """Return what a search finds."""
        return self.lab.documents(self.index)

    def operations(self) -> int:
        """Count the documents the index ever wrote."""
        return self.lab.writes(self.index)
