"""Every contender gets the same rows, the same request and the same index; the same ones in each run.

The request is the documented one of the OpenSearch documentation, "Asynchronous batch ingestion"; the index is its
index with engine lucene, because the local node has no native faiss.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROWS, DIMENSION, TEMPLATES = 5_000, 384, 256
FIELD_MAP = {
    "chapter": "$.content[0]",
    "title": "$.content[1]",
    "chapter_embedding": "$.SageMakerOutput[0]",
    "title_embedding": "$.SageMakerOutput[1]",
    "_id": "$.id",
}
INGEST_FIELDS = ["$.id"]
_CHAPTER = "a chapter of some words " * 10
_WRITE_BUFFER_BYTES = 1 << 20


def index_body(dimension: int = DIMENSION) -> dict[str, Any]:
    """Return the index: two HNSW fields, one shard, no replica."""
    vector = {
        "type": "knn_vector",
        "dimension": dimension,
        "method": {
            "engine": "lucene",
            "space_type": "cosinesimil",
            "name": "hnsw",
            "parameters": {"ef_construction": 512, "m": 16},
        },
    }
    text = {"type": "text"}
    return {
        "settings": {"index": {"knn": True, "number_of_shards": 1, "number_of_replicas": 0}},
        "mappings": {
            "properties": {
                "id": text,
                "chapter": text,
                "title": text,
                "chapter_embedding": vector,
                "title_embedding": vector,
            }
        },
    }


def request(path: Path, index: str) -> dict[str, Any]:
    """Return the `_batch_ingestion` request for a file of rows."""
    return {
        "index_name": index,
        "field_map": FIELD_MAP,
        "ingest_fields": INGEST_FIELDS,
        "data_source": {"type": "local", "source": [str(path)]},
    }


def rows(count: int) -> Iterator[bytes]:
    """Yield rows with two texts and two vectors of their own each, without line ends."""
    source = random.Random(7)  # noqa: S311 - test data
    for number in range(count):
        yield _row(_vectors(source), number)


def write_rows(path: Path, count: int) -> None:
    """Write rows whose vectors all differ, so that a graph of them is a real one."""
    with path.open("wb", buffering=_WRITE_BUFFER_BYTES) as file:
        for row in rows(count):
            file.write(row + b"\n")


def write_bytes(path: Path, size_bytes: int) -> int:
    """Write rows up to a size, repeating a few vectors, for files nobody searches in; return how many."""
    source = random.Random(7)  # noqa: S311 - test data
    vectors = [_vectors(source) for _ in range(TEMPLATES)]
    count = written = 0
    with path.open("wb", buffering=_WRITE_BUFFER_BYTES) as file:
        while written < size_bytes:
            written += file.write(_row(vectors[count % TEMPLATES], count) + b"\n")
            count += 1
    return count


def short_vectors(count: int) -> list[str]:
    """Return vectors of six significant digits, the same ones each time."""
    source = random.Random(7)  # noqa: S311 - test data
    return [f"[{','.join(f'{source.gauss(0, 0.05):.6g}' for _ in range(DIMENSION))}]" for _ in range(count)]


def _vectors(source: random.Random) -> str:
    """Return two vectors as a model writes them: eight significant digits, as float32 needs."""
    return ",".join(f"[{','.join(f'{source.gauss(0, 0.05):.8g}' for _ in range(DIMENSION))}]" for _ in range(2))


def _row(vectors: str, number: int) -> bytes:
    content = json.dumps([f"{_CHAPTER}{number}", f"title {number}"])
    return f'{{"SageMakerOutput":[{vectors}],"content":{content},"id":{number}}}'.encode()
