"""The night of the benchmark `incremental` as LangChain does it: one process, in an environment of its own.

`index` hashes every document and asks the record manager, a table on SQLite, which hashes it has. The vector store
counts what it gets and keeps nothing, so no embedding is computed. An edited document is a new one, and the old one is
deleted at the end (`cleanup="full"`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from langchain_classic.indexes import SQLRecordManager
from langchain_core.documents import Document
from langchain_core.indexing import index
from langchain_core.vectorstores import VectorStore

from benchmarks.client import Job, serve

# Of 100, 1,000 and 5,000, none is faster than this by more than the noise.
BATCH, FILL_BATCH = 1_000, 50_000
NAMESPACE = "bench"


class Counting(VectorStore):  # type: ignore[misc] # LangChain is not installed where mypy runs
    """Takes everything at once and keeps nothing."""

    def __init__(self) -> None:
        self.added = self.deleted = 0

    def add_documents(self, documents: list[Any], **_: object) -> list[str]:
        """Count documents."""
        self.added += len(documents)
        return []

    def delete(self, ids: Sequence[str] | None = None, **_: object) -> bool:
        """Count ids."""
        self.deleted += len(ids or ())
        return True

    def similarity_search(self, *_: object, **__: object) -> list[Any]:
        """Find nothing."""
        return []

    @classmethod
    def from_texts(cls, *_: object, **__: object) -> Counting:
        """Return an empty one."""
        return cls()


def work(job: Job) -> Callable[[], dict[str, int]]:
    """Fill the record manager in the file `job.index`, if it is missing, with the records of `job.rows`, or run."""
    path = Path(job.index)
    is_new = not path.exists()
    manager = SQLRecordManager(NAMESPACE, db_url=f"sqlite:///{path}")
    if is_new:
        manager.create_schema()
        return lambda: {"records": _fill(manager, Path(job.rows))}

    def night() -> dict[str, int]:
        store = Counting()
        found = index(_documents(Path(job.rows)), manager, store, batch_size=BATCH, cleanup="full", key_encoder=_key)
        read = found["num_added"] + found["num_skipped"]
        return {"records": read, "paid": store.added, "operations": store.added + store.deleted}

    return night


def _documents(folder: Path) -> Iterator[Any]:
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                record = json.loads(line)
                metadata = {"id": record["_id"], "title": record["title"], **record["metadata"]}
                yield Document(page_content=record["text"], metadata=metadata)


def _key(document: Any) -> str:  # noqa: ANN401 - LangChain is not installed where mypy runs
    """Return the hash of a document: of text and metadata in one, where LangChain's own ones take three."""
    content = json.dumps([document.page_content, document.metadata]).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _fill(manager: Any, folder: Path) -> int:  # noqa: ANN401 - LangChain is not installed where mypy runs
    """Write the rows that `index` would write, many at once; return their number."""
    from langchain_classic.indexes._sql_record_manager import UpsertionRecord
    from sqlalchemy import insert

    now, count, documents = manager.get_time(), 0, _documents(folder)
    with manager.engine.begin() as connection:
        while batch := list(islice(documents, FILL_BATCH)):
            rows = [{"key": _key(each), "namespace": NAMESPACE, "updated_at": now, "group_id": None} for each in batch]
            connection.execute(insert(UpsertionRecord), rows)
            count += len(batch)
    return count


if __name__ == "__main__":
    serve(work)
