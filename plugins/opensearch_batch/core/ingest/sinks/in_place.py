"""Updates fields of existing documents in place, each only if its input of the model has not changed.

Before documents are updated, they are fetched. The update of each one names the sequence number of the fetched version,
so the index refuses it if the document was written meanwhile. A document that changed or was deleted is left to the
next run, which reads it again: its prediction is of another text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.errors import RecordRejected, RetriableError
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.base import Attempt, Entry, Item, WrittenBody
from opensearch_batch.core.ingest.sinks.bulk import BulkWriter
from opensearch_batch.core.ingest.sinks.bulk_lines import address_of, guarded
from opensearch_batch.core.ingest.sinks.opensearch import IndexSink
from opensearch_batch.core.ingest.sinks.recovery import unreadable
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.rows import Waiting

# At most this number of documents, and of bytes, are fetched at once.
FETCHED_DOCUMENTS, FETCHED_BYTES = 500, 2_000_000


class _Document(msgspec.Struct, frozen=True, gc=False):
    """A fetched document; without a sequence number it does not exist."""

    seq_no: int | None = msgspec.field(name="_seq_no", default=None)
    primary_term: int | None = msgspec.field(name="_primary_term", default=None)
    source: msgspec.Raw = msgspec.field(name="_source", default=msgspec.Raw(b""))
    error: dict[str, Any] | None = None


class _Response(msgspec.Struct, frozen=True):
    docs: list[_Document]


class InPlaceSink(IndexSink):
    """Updates the documents of an index from which the records were read.

    `key_of` is the content key of a record, and `fields` are the paths of `_source` on which it depends.
    """

    def __init__(
        self,
        objects: Objects,
        cluster: Cluster,
        request: IngestRequest,
        *,
        key_of: Callable[[bytes], bytes],
        fields: Sequence[str],
    ) -> None:
        super().__init__(objects, cluster, request)
        self._key_of = key_of
        self._fields = list(fields)

    def write(self, entries: Iterable[Entry], attempt: Attempt) -> Iterator[WrittenBody]:
        """Update documents by bulk requests; an update that an interrupted attempt has made changes nothing."""
        writer = BulkWriter(self._cluster, self.request, still_claimed=attempt.still_claimed)
        return writer.write(self._guarded(entries, attempt.still_claimed))

    def _guarded(self, entries: Iterable[Entry], still_claimed: Callable[[], bool]) -> Iterator[Entry | Waiting]:
        stream = iter(entries)
        while batch := _next_batch(stream):
            items = [entry for entry in batch if isinstance(entry, Item)]
            documents = dict(zip(map(id, items), self._fetched(items), strict=True))
            # Asked after the fetch: a newer run that claims from now on writes after it, so the index refuses ours.
            is_claimed = still_claimed()
            for entry in batch:
                if isinstance(entry, Item):
                    yield self._update(entry, documents[id(entry)]) if is_claimed else Waiting(entry.context)
                else:
                    yield entry

    def _update(self, item: Item, document: _Document) -> Item | Waiting:
        """Return the update of a document as it was fetched; `Waiting` if it is not the one that was read."""
        if document.seq_no is None or document.primary_term is None or not self._is_same(item, document):
            return Waiting(item.context)
        return guarded(item, seq_no=document.seq_no, primary_term=document.primary_term)

    def _is_same(self, item: Item, document: _Document) -> bool:
        try:
            return self._key_of(bytes(document.source)) == self._key_of(item.context.rows[0].content)
        except RecordRejected:
            return False

    def _fetched(self, items: Sequence[Item]) -> list[_Document]:
        if not items:
            return []
        docs = [{**address_of(item), "_source": self._fields} for item in items]
        path = f"/{self.request.index}/_mget"
        text = self._cluster.text("POST", path, {"docs": docs}, params={}, timeout_s=120.0)
        try:
            documents = msgspec.json.decode(text, type=_Response).docs
        except msgspec.MsgspecError as error:
            raise RetriableError(f"index {self.request.index}: invalid response to _mget ({error})") from error
        if len(documents) != len(items):
            counts = f"{len(items)} documents requested, {len(documents)} returned"
            raise RetriableError(f"index {self.request.index}: {counts}")
        for document in documents:
            if document.error is not None:
                raise unreadable({"error": document.error}, self.request.index)
        return documents


def _next_batch(stream: Iterator[Entry]) -> list[Entry]:
    batch, size_bytes = list[Entry](), 0
    for entry in stream:
        batch.append(entry)
        size_bytes += entry.size_bytes
        if len(batch) == FETCHED_DOCUMENTS or size_bytes >= FETCHED_BYTES:
            break
    return batch
