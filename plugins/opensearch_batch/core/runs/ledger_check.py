"""Describes the record ledger and the prediction store of a pipeline, and compares them with each other and the index.

Counts are compared exactly, documents and segments by samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from opensearch_batch.core.errors import AnswersUnusable, FatalError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.ledger.content_keys import KEY_BYTES
from opensearch_batch.core.ledger.head import Head, in_file_order
from opensearch_batch.core.ledger.key_index import row_keys
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RecordState, RowsReader, state_counts
from opensearch_batch.core.ledger.scope_use import needed_segments, scopes_of
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects, list_folders
from opensearch_batch.core.types.counts import Savings

# The bytes of content keys in one lookup, and the maximum number of documents in one fetch.
LOOKUP_BYTES, FETCHED = 16 << 20, 500
_WRITTEN_AGAIN = "a run with rebuild writes them again from the prediction store, and pays for nothing"


class ScopeState(msgspec.Struct, frozen=True):
    """A scope of the ledger: counts of its objects, and of their records by state.

    `run` is the run that claimed it last, `is_committed` whether that run has committed. `savings` are those of all its
    runs.
    """

    scope: str
    index: str
    run: str
    is_committed: bool
    objects: int
    states: dict[str, int]
    savings: Savings

    @classmethod
    def of(cls, scope: str, head: Head) -> ScopeState:
        """Describe a scope."""
        states = sum((Counter(entry.states) for entry in head.objects.values()), Counter[str]())
        is_committed = head.claim.version == head.committed
        return cls(scope, head.index, head.claim.run_key, is_committed, len(head.objects), dict(states), head.savings)


class Size(msgspec.Struct, frozen=True):
    """The number and the bytes of the objects in a folder."""

    objects: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, objects: Objects, folder: str) -> Size:
        """Return the size of a folder."""
        sizes = [item.size_bytes for item in objects.list(f"{folder.rstrip('/')}/")]
        return cls(len(sizes), sum(sizes))


class StoreState(msgspec.Struct, frozen=True):
    """A prediction store: counts and bytes of its answers, and the records of each open shard by job key.

    `needed` is an upper bound of the answers that records of a ledger need: an answer that several records share is
    counted for each of them. The other answers are kept until their retention ends. `garbage` counts files that are
    deleted when their grace period ends. `size` is that of all files.
    """

    folder: str
    segments: int
    answers: int
    bytes: int
    open: dict[str, int]
    needed: int
    garbage: int
    size: Size

    @classmethod
    def of(cls, objects: Objects, folder: str) -> StoreState:
        """Describe a prediction store."""
        head = PredictionStore(objects, folder).head()
        segments = head.segments
        try:
            scopes = scopes_of(objects, head.ledgers, f"{folder}/scopes.json", writes=False)
            counts = needed_segments(scopes, folder)
        except FatalError:
            # A head is damaged, so it is unknown what it needs.
            counts = dict.fromkeys(segments, 0)
        return cls(
            folder,
            len(segments),
            sum(each.rows for each in segments.values()),
            sum(each.bytes for each in segments.values()),
            {job: shard.records for job, shard in head.open.items()},
            sum(min(counts[name] or each.rows, each.rows) for name, each in segments.items() if name in counts),
            len(head.garbage),
            Size.of(objects, folder),
        )


Heads: TypeAlias = Mapping[str, Head]


def read_heads(objects: Objects, layout: Layout) -> tuple[dict[str, Head], list[str]]:
    """Return the heads of all scopes by scope, and the reasons why others cannot be read."""
    heads, unreadable = dict[str, Head](), list[str]()
    for folder, _ in list_folders(objects, layout.scopes()):
        uri = f"{folder}/head.json"
        absent = FatalError(f"{uri}: missing, though the scope has rows")
        try:
            heads[folder.rpartition("/")[2]] = JsonDocument(objects, uri, Head).require(absent)
        except FatalError as error:
            unreadable.append(str(error))
    return heads, unreadable


def store_folders(objects: Objects, layout: Layout) -> list[str]:
    """Return the folders of the prediction stores that the pipeline uses."""
    own, shared = layout.predictions(), layout.predictions(shared=True)
    try:
        is_used = layout.scopes() in PredictionStore(objects, shared).head().ledgers
    except FatalError:
        # The head of the store is damaged, so the pipeline may use it.
        is_used = True
    return [own] * any(True for _ in objects.list(f"{own}/")) + [shared] * is_used


class LedgerCheck:
    """Finds differences between the ledger, the prediction stores and the index.

    `samples` is the number of documents of each scope, and of segments of each store, that are compared.
    """

    def __init__(self, objects: Objects, layout: Layout, cluster: Cluster, *, samples: int) -> None:
        self._objects = objects
        self._layout = layout
        self._cluster = cluster
        self._samples = samples
        self._stores = {folder: PredictionStore(objects, folder) for folder in store_folders(objects, layout)}

    def differences(self) -> Iterator[str]:
        """Yield a message for each difference, with its consequence or remedy."""
        heads, unreadable = read_heads(self._objects, self._layout)
        yield from unreadable
        indexed = Counter[str]()
        try:
            for folder, store in self._stores.items():
                yield from self._check_store(folder, store)
            for scope, head in heads.items():
                indexed[head.index] += ScopeState.of(scope, head).states.get("indexed", 0)
                yield from self._check_scope(scope, head)
        except FatalError as error:
            yield f"{error}; nothing else was compared"
            return
        for index, count in indexed.items():
            if self._cluster.index(index) is not None:
                self._cluster.refresh(index)
                actual = self._cluster.call("GET", f"/{index}/_count")["count"]
                if actual < count:
                    yield f"index {index}: {actual:,} documents, and the ledger has {count:,}; {_WRITTEN_AGAIN}"

    def _check_store(self, folder: str, store: PredictionStore) -> Iterator[str]:
        head, reader = store.head(), store.reader()
        names = list(head.segments)
        for name in names[:: -(-len(names) // max(self._samples, 1)) or 1]:
            try:
                list(reader.read([(name, 0)]))
            except AnswersUnusable as error:
                yield str(error)
        for job_key in head.open:
            if not has_files(self._objects, self._layout, job_key):
                remedy = "`opensearch-batch ledger rebuild --predictions` closes it"
                yield f"{folder}: the open shard {job_key} has no job and no input; {remedy}"

    def _check_scope(self, scope: str, head: Head) -> Iterator[str]:
        """Compare the rows of a scope with its head, its stores and its index."""
        samples, waiting, absent, indexed = list[tuple[str, str | None, int]](), list[bytes](), 0, 0
        reader, step = RowsReader(self._objects), head.documents // max(self._samples, 1) or 1
        for uri, entry in in_file_order(head.objects):
            counted = Counter[str]()
            try:
                for rows in reader.read(entry):
                    counted.update(state_counts(rows["state"].to_numpy()))
                    written = rows.filter(rows["state"].to_numpy() == RecordState.INDEXED)
                    columns = (
                        written[name].to_pylist()[-indexed % step :: step] for name in ("id", "routing", "version")
                    )
                    samples += zip(*columns, strict=True)
                    indexed += written.num_rows
                    waiting.append(row_keys(written).tobytes())
            except FatalError as error:
                yield str(error)
                continue
            if counted != entry.states:
                yield f"scope {scope}: {uri} has rows {dict(counted)}, and its head says {entry.states}"
            if sum(map(len, waiting)) >= LOOKUP_BYTES:
                absent += self._absent(waiting)
        absent += self._absent(waiting)
        if absent:
            yield (
                f"scope {scope}: the answers of {absent:,} of {indexed:,} indexed records are not in the prediction "
                "store; a run that needs them pays for them again"
            )
        yield from self._check_index(scope, head, samples)

    def _absent(self, keys: list[bytes]) -> int:
        """Return how many keys no store has, and forget them."""
        missing = b"".join(keys)
        keys.clear()
        for store in self._stores.values():
            located = store.lookup(missing)
            missing = located.keys[located.source < 0].tobytes()
        return len(missing) // KEY_BYTES

    def _check_index(self, scope: str, head: Head, samples: Sequence[tuple[str, str | None, int]]) -> Iterator[str]:
        index = self._cluster.index(head.index) if head.index else None
        if index is None or index.uuid != head.index_uuid:
            reason = "is missing" if index is None else f"has the UUID {index.uuid}, not {head.index_uuid}"
            yield f"scope {scope}: index {head.index or '(none)'} {reason}; the next run writes all documents to it"
            return
        missing, older = list[str](), list[str]()
        for start in range(0, len(samples), FETCHED):
            part = samples[start : start + FETCHED]
            docs = [{"_id": name} | ({} if routing is None else {"routing": routing}) for name, routing, _ in part]
            path, params = f"/{head.index}/_mget", {"_source": "false"}
            stored = self._cluster.call("POST", path, {"docs": docs}, params=params, timeout_s=120.0)["docs"]
            for (name, _, version), document in zip(part, stored, strict=True):
                if not document.get("found"):
                    missing.append(name)
                elif document["_version"] < version:
                    older.append(name)
        for ids, what in ((missing, "are missing"), (older, "are older than the ledger says")):
            if ids:
                yield (
                    f"scope {scope}: {len(ids):,} of {len(samples):,} sampled documents {what} in index {head.index}, "
                    f"such as {ids[0]!r}; {_WRITTEN_AGAIN}"
                )


def has_files(objects: Objects, layout: Layout, job_key: str) -> bool:
    """Return whether a job was submitted, or can be submitted."""
    folder = layout.job(job_key)
    return JobRecords(objects, folder).read() is not None or objects.head(f"{folder}/input.jsonl") is not None
