"""Index and service of the nights of the benchmark `incremental`: one takes everything, both count."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from benchmarks import rows
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.opensearch.cluster import Cluster, Index, vector_fields
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.manifest import Shard

INDEX, UUID = "bench", "the only index"
FIELD, DIMENSION = "embedding", rows.DIMENSION
_VECTOR = rows.index_body()["mappings"]["properties"]["chapter_embedding"]
INDEX_BODY: dict[str, Any] = {
    "settings": rows.index_body()["settings"],
    "mappings": {"properties": {"text": {"type": "text"}, "title": {"type": "text"}, FIELD: _VECTOR}},
}
# A transform job of SageMaker whose output rows contain their records.
PARAMETERS: dict[str, Any] = {
    "ModelName": "m",
    "TransformInput": {"SplitType": "Line"},
    "TransformOutput": {"AssembleWith": "Line"},
    "TransformResources": {},
    "DataProcessing": {"JoinSource": "Input", "InputFilter": "$.text"},
}
_INDEXED, _DELETED = (
    b'{"%b":{"status":200,"result":"%b"}}' % (action, result)
    for action, result in ((b"index", b"created"), (b"delete", b"deleted"))
)
_DELETION = re.compile(rb'^\{"delete":', re.MULTILINE)


class AnyIndex(Cluster):
    """Takes every document and deletion at once, counts them and keeps none."""

    def __init__(self) -> None:
        self.name = "bench"
        self.operations = 0
        self._index = Index(INDEX, UUID, vector_fields(INDEX_BODY["mappings"]), INDEX_BODY["mappings"])

    def index(self, name: str) -> Index | None:
        """Return the index, which is always there."""
        return self._index if name == INDEX else None

    def create_index(self, name: str, body: Mapping[str, Any]) -> None:
        """Do nothing: the index is there."""

    def refresh(self, name: str) -> None:
        """Do nothing: nobody searches."""

    def call(self, method: str, path: str, body: Any = None, **_: object) -> Any:  # noqa: ANN401 - JSON
        """Answer a bulk body; a file of deletions is sent in bodies of its own.

        Raises:
            ValueError: it is another request.
        """
        if not path.endswith("/_bulk"):
            raise ValueError(f"{method} {path}")
        deletions = len(_DELETION.findall(body, 0, 1 << 16)) and len(_DELETION.findall(body))
        items = [_DELETED] * deletions if deletions else [_INDEXED] * (body.count(b"\n") // 2)
        self.operations += len(items)
        return msgspec.json.decode(b'{"errors":false,"items":[%b]}' % b",".join(items))


class AnyService:
    """Answers a job at once with vectors of 384 numbers, and counts the records; `vectors` of them are different."""

    def __init__(self, objects: Objects, *, vectors: int = rows.TEMPLATES) -> None:
        self.paid = 0
        self._objects = objects
        self._endings = [
            b',"SageMakerOutput":[%b]}\n' % ",".join(map(repr, vector)).encode() for vector in vectors_of(vectors)
        ]

    def output(self, layout: Layout, shard: Shard) -> JobOutput:
        """Compute the job of a shard, and return its output."""
        folder = layout.job(shard.job)
        uri = f"{folder}/output/1/input.jsonl.out"
        if self._objects.head(uri) is None:
            with self._objects.open(shard.input) as lines, Spool() as file:
                for line in lines:
                    file.write(line.rstrip()[:-1] + self._endings[self.paid % len(self._endings)])
                    self.paid += 1
                file.seek(0)
                self._objects.upload(uri, file)
        return JobOutput([uri], folder=folder, ml_task_id="t")


def vectors_of(count: int) -> list[list[float]]:
    """Return vectors, the same ones each time, in the eight digits that a 32-bit float needs."""
    source = random.Random(7)  # noqa: S311 - test data
    return [[float(f"{source.gauss(0, 0.05):.8g}") for _ in range(DIMENSION)] for _ in range(count)]
