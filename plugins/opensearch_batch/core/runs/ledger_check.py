"""Describes the record ledger and the prediction store of a pipeline, and compares them with each other and the index.

Counts are compared exactly, documents and segments by samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from opensearch_batch.core.errors import AnswersUnusable, FatalError
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.ledger.head import Head
from opensearch_batch.core.ledger.key_index import keys_of
from opensearch_batch.core.ledger.predictions import PredictionStore
from opensearch_batch.core.ledger.rows import RecordState, RowsReader, state_counts
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects, list_folders

if TYPE_CHECKING:
    import pyarrow as pa

# Keys are looked up together until there are so many; so many documents are fetched at once.
LOOKUP_KEYS, FETCHED = 1 << 20, 500
_REWRITES = "the next run writes all documents again, and pays for none whose answer is in the store"


class ScopeState(msgspec.Struct, frozen=True):
    """A scope of the ledger: counts of its objects, and of their records by state.

    `run` has claimed it last; `is_committed`: that run has ended well.
    """

    scope: str
    index: str
    run: str
    is_committed: bool
    objects: int
    documents: int
    states: dict[str, int]


class StoreState(msgspec.Struct, frozen=True):
    """A prediction store: counts and bytes of its answers, and the records of each open shard by job key."""

    folder: str
    segments: int
    answers: int
    bytes: int
    unused_segments: int
    open: dict[str, int]


class SampledDocument(NamedTuple):
    """A document that should be in the index, with at least this version."""

    id: str
    routing: str | None
    version: int


def read_heads(objects: Objects, layout: Layout) -> tuple[dict[str, Head], list[str]]:
    """Return the heads of all scopes by scope, and the reasons why others cannot be read."""
    heads, unreadable = dict[str, Head](), list[str]()
    for folder, _ in list_folders(objects, layout.scopes()):
        scope = folder.rpartition("/")[2]
        try:
            head = JsonDocument(objects, layout.scope_head(scope), Head).read()
        except FatalError as error:
            unreadable.append(str(error))
            continue
        if head is None:
            unreadable.append(f"{layout.scope_head(scope)}: missing, though the scope has rows")
        else:
            heads[scope] = head
    return heads, unreadable


def store_folders(objects: Objects, layout: Layout) -> list[str]:
    """Return the folders of the prediction stores that the pipeline uses."""
    own, shared = layout.predictions(), layout.predictions(shared=True)
    folders = [own] if next(iter(objects.list(f"{own}/")), None) else []
    try:
        is_used = layout.scopes() in PredictionStore(objects, shared).head().ledgers
    except FatalError:
        # Nobody knows whose it is.
        is_used = True
    return [*folders, *([shared] if is_used else [])]


def scope_state(scope: str, head: Head) -> ScopeState:
    """Describe a scope."""
    states = sum((Counter(entry.states) for entry in head.objects.values()), Counter[str]())
    is_committed = head.claim.version == head.committed
    return ScopeState(
        scope, head.index, head.claim.run_key, is_committed, len(head.objects), head.documents, dict(states)
    )


def store_state(objects: Objects, folder: str) -> StoreState:
    """Describe a prediction store."""
    head = PredictionStore(objects, folder).head()
    segments = head.segments.values()
    return StoreState(
        folder,
        len(segments),
        sum(segment.rows for segment in segments),
        sum(segment.bytes for segment in segments),
        sum(segment.unused_since is not None for segment in segments),
        {job_key: shard.records for job_key, shard in head.open.items()},
    )


class LedgerCheck:
    """Finds differences between the ledger, the prediction stores and the index.

    Args:
        objects: the store of the work prefix.
        layout: the locations of the pipeline.
        cluster: the cluster of the indexes.
        samples: how many documents of each scope, and segments of each store, are compared.
    """

    def __init__(self, objects: Objects, layout: Layout, cluster: Cluster, *, samples: int) -> None:
        self._objects = objects
        self._layout = layout
        self._cluster = cluster
        self._samples = samples
        self._stores = {folder: PredictionStore(objects, folder) for folder in store_folders(objects, layout)}

    def differences(self) -> Iterator[str]:
        """Yield each difference, with what follows from it."""
        heads, unreadable = read_heads(self._objects, self._layout)
        yield from unreadable
        indexed = Counter[str]()
        try:
            for folder, store in self._stores.items():
                yield from self._check_store(folder, store)
            for scope, head in heads.items():
                indexed[head.index] += scope_state(scope, head).states.get("indexed", 0)
                yield from self._check_scope(scope, head)
        except FatalError as error:
            yield f"{error}; nothing else was compared"
            return
        for index, count in indexed.items():
            if index and self._cluster.index(index) is not None:
                self._cluster.refresh(index)
                found = self._cluster.call("GET", f"/{index}/_count")["count"]
                if found < count:
                    yield f"index {index}: {found:,} documents, and the ledger has {count:,}; {_REWRITES}, with rebuild"

    def _check_store(self, folder: str, store: PredictionStore) -> Iterator[str]:
        head = store.head()
        names, reader = list(head.segments), store.reader()
        for name in _spread(names, self._samples):
            try:
                list(reader.read([(name, 0)]))
            except AnswersUnusable as error:
                yield str(error)
        for job_key in head.open:
            job = self._layout.job(job_key)
            if JobRecords(self._objects, job).read() is None and self._objects.head(f"{job}/input.jsonl") is None:
                yield f"{folder}: the open shard {job_key} has no job and no input; rebuild --predictions closes it"

    def _check_scope(self, scope: str, head: Head) -> Iterator[str]:
        """Compare the rows of a scope with its head, its stores and its index."""
        samples, waiting, absent, indexed = list[SampledDocument](), list[bytes](), 0, 0
        reader, step = RowsReader(self._objects), max(head.documents // max(self._samples, 1), 1)
        for uri, entry in sorted(head.objects.items(), key=lambda item: (item[1].rows, item[1].first)):
            counted = Counter[str]()
            try:
                for rows in reader.read(entry):
                    counted.update(state_counts(rows["state"].to_numpy()))
                    written = _indexed(rows)
                    samples += _sampled(written, -indexed % step, step)
                    indexed += written.num_rows
                    waiting.append(_content_keys(written))
            except FatalError as error:
                yield str(error)
                continue
            if counted != entry.states:
                yield f"scope {scope}: {uri} has rows {dict(counted)}, and its head says {entry.states}"
            if sum(map(len, waiting)) >= LOOKUP_KEYS * 16:
                absent += self._absent(waiting)
        reader.close()
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
            missing = located.keys.take((located.source < 0).nonzero()[0]).to_bytes()
        return len(missing) // 16

    def _check_index(self, scope: str, head: Head, samples: Sequence[SampledDocument]) -> Iterator[str]:
        index = self._cluster.index(head.index) if head.index else None
        if index is None or index.uuid != head.index_uuid:
            reason = "is missing" if index is None else f"has the UUID {index.uuid}, not {head.index_uuid}"
            yield f"scope {scope}: index {head.index or '(none)'} {reason}; {_REWRITES}"
            return
        missing, older = list[str](), list[str]()
        for start in range(0, len(samples), FETCHED):
            part = samples[start : start + FETCHED]
            documents = [
                {"_id": each.id} | ({"routing": each.routing} if each.routing is not None else {}) for each in part
            ]
            found = self._cluster.call(
                "POST", f"/{head.index}/_mget", {"docs": documents}, params={"_source": "false"}, timeout_s=120.0
            )
            for each, document in zip(part, found["docs"], strict=True):
                if not document.get("found"):
                    missing.append(each.id)
                elif document["_version"] < each.version:
                    older.append(each.id)
        for ids, what in ((missing, "are missing"), (older, "are older than the ledger says")):
            if ids:
                yield (
                    f"scope {scope}: {len(ids):,} of {len(samples):,} sampled documents {what} in index {head.index}, "
                    f"such as {ids[0]!r}; a run with rebuild writes them again and pays nothing"
                )


def _indexed(rows: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return rows.filter(pc.equal(rows["state"], int(RecordState.INDEXED)))


def _sampled(rows: pa.Table, first: int, step: int) -> Iterable[SampledDocument]:
    columns = [rows[name].to_pylist()[first::step] for name in ("id", "routing", "version")]
    return map(SampledDocument._make, zip(*columns, strict=True))


def _content_keys(rows: pa.Table) -> bytes:
    import pyarrow.compute as pc

    return keys_of(pc.list_flatten(rows["content_keys"]).combine_chunks()).to_bytes()


def _spread(names: Sequence[str], count: int) -> Sequence[str]:
    """Return so many names, spread over all."""
    return names[:: max(-(-len(names) // max(count, 1)), 1)]
