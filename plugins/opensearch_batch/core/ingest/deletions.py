"""Deletes the documents whose records a source no longer has.

The version of a run's deletions is lower than that of its documents, so a deletion never wins over a document of the
same run. A retry repeats all deletions: a document that was already deleted counts as unchanged.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.base import Item
from opensearch_batch.core.ingest.sinks.bulk import BulkWriter
from opensearch_batch.core.ingest.sinks.bulk_lines import lines_of, version_members
from opensearch_batch.core.ledger.staged import read_deletions
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestCounts, SourceCounts

CLAIM_CHECK_S = 2.0


def delete_documents(
    objects: Objects,
    cluster: Cluster,
    request: IngestRequest,
    uri: str,
    *,
    count: int,
    still_claimed: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> IngestCounts:
    """Delete the documents listed in the file `uri`, with the version of the request; they count as indexed.

    When `still_claimed` returns False, a newer run has claimed the scope, and the other deletions count as superseded.

    Raises:
        FatalError: the index refused a deletion.
        RetriableError: a server did not respond.
    """
    counts, refused, checked_at = Counter[str](), list[str](), clock()
    is_claimed = still_claimed()
    writer = BulkWriter(cluster, request, still_claimed=still_claimed)
    for written in writer.write(_items(objects, uri, request)) if is_claimed else ():
        counts.update(written.counts())
        refused += [refusal.cause for refusal in written.refused]
        if clock() >= checked_at + CLAIM_CHECK_S:
            is_claimed, checked_at = still_claimed(), clock()
        if not is_claimed:
            break
    if refused:
        raise FatalError(
            f"index {request.index}: {len(refused)} of {count} documents could not be deleted: {refused[0]}; correct "
            "the index, then clear ingest"
        )
    cluster.refresh(request.index)
    if not is_claimed:
        counts["superseded"] += count - counts.total()
    return IngestCounts(counts.total(), **counts, sources=[SourceCounts("deletions", counts.total())])


def _items(objects: Objects, uri: str, request: IngestRequest) -> Iterator[Item]:
    version = version_members(request.version)
    for deletion in read_deletions(objects, uri):
        yield Item(deletion.id, lines_of(deletion.id, op_type="delete", routing=deletion.routing, version=version))
