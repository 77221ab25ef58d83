"""Bulk writer: every document gets a verdict, in the order of the documents.

Bodies are limited by bytes. Several bodies are in flight, but never two with the same id. Only documents that a busy
index rejected are sent again. Documents that the index refuses are returned with the reason; none is dropped.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import chain
from typing import Any, cast

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError, NotFound, RetriableError, TooLarge
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.base import Body, Item, Refused, WrittenBody
from opensearch_batch.core.ingest.sinks.bulk_lines import is_guarded, is_versioned
from opensearch_batch.core.ingest.sinks.concurrency import ConcurrencyLimit
from opensearch_batch.core.opensearch.cluster import CONFLICT, RETRY_STATUSES, Cluster, reason_of

RETRY_WINDOW_S = 300.0
# With these statuses the index refuses every write, so no document becomes a dead letter.
FORBIDDEN = frozenset({401, 403})
TOO_LARGE = 413
INDEX_MISSING, BLOCKED = "index_not_found_exception", "cluster_block_exception"
DISK_FULL = "; a disk of the cluster is full (flood stage): free space there, and OpenSearch lifts the block by itself"
# Maximum number of bytes of an unexpected response in an error message.
SHOWN_BYTES = 200
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 20.0
# The response contains only these members; a full response repeats index and id of every document.
_ERROR_FILTER = "items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
# An update that changes nothing returns a sequence number; an update that an ingest pipeline dropped does not.
_RESPONSE_FILTER = f"errors,items.*.status,items.*.result,items.update._seq_no,{_ERROR_FILTER}"
# `noop`: an ingest pipeline dropped the document, or the update changes nothing. `not_found`: a delete without target.
_NOOP, _NOT_FOUND = "noop", "not_found"
_WRITTEN, _SUCCESS = frozenset({"created", "updated", "deleted"}), frozenset({200, 201})
# The error of a document whose external version is lower than that of the stored document.
_VERSION_CONFLICT = "version_conflict_engine_exception"
_DOCUMENT_MISSING = "document_missing_exception"


class _ItemError(msgspec.Struct):
    type: str = ""


class _Result(msgspec.Struct):
    status: int
    error: _ItemError | None = None


class _Response(msgspec.Struct):
    errors: bool
    items: list[dict[str, _Result]]


class _BulkBody(WrittenBody):
    was_busy: bool = False
    busy_reason: str = ""


def bodies(entries: Iterable[Any], *, max_body_bytes: Callable[[], int]) -> Iterator[Body]:
    """Group documents in bodies of at most `max_body_bytes`; a larger document is the only one in its body.

    No body contains an id twice. Entries that are not an `Item` are added to `other_entries` and count with their
    `size_bytes`, so that a source without documents makes progress too.
    """
    body = Body()
    for entry in entries:
        if isinstance(entry, Item):
            size_bytes = entry.size_bytes
            if body.items and (body.size_bytes + size_bytes > max_body_bytes() or entry.id in body.ids):
                yield body
                body = Body()
            body.add(entry, size_bytes)
        else:
            body.other_entries.append(entry)
            body.size_bytes += entry.size_bytes
            if body.size_bytes > max_body_bytes():
                yield body
                body = Body()
    if body.items or body.other_entries:
        yield body


class BulkWriter:
    """Writes documents to the index of a request, or to the indexes that documents name if the request names none.

    `max_body_bytes` of the request is lowered permanently when the server rejects a body as too large (413);
    `ConcurrencyLimit` finds the best number of bodies in flight, at most `max_in_flight`. `still_claimed`, whether no
    newer run has superseded this run, is asked before a body is sent again.
    """

    def __init__(
        self,
        cluster: Cluster,
        request: IngestRequest,
        *,
        retry_window_s: float = RETRY_WINDOW_S,
        still_claimed: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._cluster = cluster
        self._index = request.index
        self._params = {"filter_path": _RESPONSE_FILTER}
        if request.ingest_pipeline:
            self._params["pipeline"] = request.ingest_pipeline
        self._max_body_bytes = request.max_body_bytes
        self._max_in_flight = request.max_in_flight
        self._compress = request.compress
        self._retry_window_s = retry_window_s
        self._still_claimed = still_claimed
        self._clock = clock
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self.concurrency = ConcurrencyLimit(request.max_in_flight)

    def write(self, entries: Iterable[Any]) -> Iterator[WrittenBody]:
        """Write documents, yielding the verdicts of body after body, in the order of the documents.

        Raise ConfigError if the index refuses every write, RetriableError if it is busy for the whole retry window.
        """
        in_flight: deque[tuple[Body, Future[_BulkBody]]] = deque()
        self._stopped.clear()
        with ThreadPoolExecutor(self._max_in_flight, thread_name_prefix="bulk") as pool:
            try:
                for body in bodies(entries, max_body_bytes=lambda: self._max_body_bytes):
                    yield from self._settled(in_flight, until=lambda body=body: self._has_room(in_flight, body))  # type: ignore[misc]
                    in_flight.append((body, pool.submit(self._write_body, body)))
                yield from self._settled(in_flight, until=lambda: not in_flight)
            finally:
                self._stopped.set()
                for _, future in in_flight:
                    future.cancel()

    def _has_room(self, in_flight: deque[tuple[Body, Future[_BulkBody]]], body: Body) -> bool:
        pending = [other for other, future in in_flight if not future.done()]
        if len(in_flight) >= 2 * self._max_in_flight or len(pending) >= self.concurrency.limit:
            return False
        return all(body.ids.isdisjoint(other.ids) for other in pending)

    def _settled(
        self, in_flight: deque[tuple[Body, Future[_BulkBody]]], *, until: Callable[[], bool]
    ) -> Iterator[WrittenBody]:
        """Yield the verdicts at the head of the queue, and wait for more until the condition `until` holds."""
        while True:
            while in_flight and in_flight[0][1].done():
                body, future = in_flight.popleft()
                written = future.result()
                if written.was_busy:
                    self.concurrency.on_busy()
                elif body.items:
                    self.concurrency.on_done(body.size_bytes, self._clock())
                yield written
            if until():
                return
            wait([future for _, future in in_flight if not future.done()], return_when=FIRST_COMPLETED)

    def _write_body(self, body: Body) -> _BulkBody:
        written = _BulkBody(body)
        self._write_items(body.items, written)
        return written

    def _write_items(self, items: Sequence[Item], written: _BulkBody) -> None:
        """Send items until each has a verdict; halve a body that is too large for the server."""
        give_up_at, pause_s = self._clock() + self._retry_window_s, FIRST_PAUSE_S
        while items:
            try:
                items = self._send(items, written)
            except TooLarge as error:
                self._halve(items, written, error)
                return
            except RetriableError:
                written.was_busy = True
                if self._clock() >= give_up_at or self._stopped.is_set():
                    raise
            if items:
                written.was_busy = True
                if self._clock() >= give_up_at:
                    raise RetriableError(
                        f"index {self._index} stayed busy for {self._retry_window_s:.0f} s: {written.busy_reason}"
                    )
                if self._stopped.is_set():
                    raise RetriableError(f"index {self._index}: writing was stopped")
                self._sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
                if not self._still_claimed():
                    # After a deletion the index forgets the document's version, so it may not refuse a late write.
                    written.superseded += items
                    return
                written.resent += len(items)

    def _halve(self, items: Sequence[Item], written: _BulkBody, error: BatchError) -> None:
        if len(items) == 1:
            written.refused.append(Refused(items[0], TOO_LARGE, f"larger than the server accepts: {error}"))
            return
        half = len(items) // 2
        self._max_body_bytes = max(1, min(self._max_body_bytes, sum(item.size_bytes for item in items) // 2))
        self._write_items(items[:half], written)
        self._write_items(items[half:], written)

    def _send(self, items: Sequence[Item], written: _BulkBody) -> list[Item]:
        """Send items once, record their verdicts, and return those to retry."""
        sent_at = self._clock()
        try:
            response = self._cluster.call(
                "POST",
                f"/{self._index}/_bulk" if self._index else "/_bulk",
                b"".join(chain.from_iterable([item.pieces for item in items])),
                params=self._params,
                timeout_s=120.0,
                compress=self._compress,
            )
        except NotFound as error:
            if error.type == INDEX_MISSING:
                raise index_deleted(self._index) from error
            raise RetriableError(
                f"{error}; OpenSearch never responds to a bulk request like this; check the proxy in front of it"
            ) from error
        finally:
            written.count_request(self._clock() - sent_at)
        retried: list[Item] = []
        if _all_written(response, len(items)):
            written.indexed += len(items)
            return retried
        results = self._results(response, len(items))
        for item, result in zip(items, results, strict=True):
            self._record(item, result, written, retried)
        return retried

    def _results(self, response: object, sent: int) -> list[dict[str, Any]]:
        """Return the items of a response; raise RetriableError for any other JSON.

        A proxy may respond instead of OpenSearch. All documents are then sent again: their verdicts are unknown.
        """
        try:
            converted = msgspec.convert(response, _Response)
        except msgspec.ValidationError as error:
            shown = msgspec.json.encode(response)[:SHOWN_BYTES].decode(errors="replace")
            raise RetriableError(
                f"index {self._index}: the response to a bulk request is not from OpenSearch ({error}): {shown}"
            ) from error
        if len(converted.items) != sent:
            raise RetriableError(f"index {self._index}: {sent} documents were sent, {len(converted.items)} returned")
        return cast("dict[str, list[dict[str, Any]]]", response)["items"]

    def _record(self, item: Item, response: dict[str, Any], written: _BulkBody, retried: list[Item]) -> None:
        ((action, result),) = response.items()
        status = result["status"]
        if "error" not in result:
            outcome = result.get("result")
            if outcome == _NOOP and "_seq_no" not in result:
                written.filtered.append(item)
            elif outcome in (_NOOP, _NOT_FOUND):
                written.unchanged += 1
            else:
                written.indexed += 1
        elif is_guarded(item) and (status == CONFLICT or result["error"].get("type") == _DOCUMENT_MISSING):
            written.waiting.append(item)
        elif action == "create" and status == CONFLICT:
            written.unchanged += 1
        elif status == CONFLICT and result["error"].get("type") == _VERSION_CONFLICT and is_versioned(item):
            written.superseded.append(item)
        elif status in RETRY_STATUSES or status == CONFLICT:
            retried.append(item)
            written.busy_reason = _reason(result["error"])
        elif result["error"].get("type") == INDEX_MISSING:
            raise index_deleted(self._index)
        elif status in FORBIDDEN:
            raise ConfigError(
                f"index {self._index} refuses writes ({status}): {_reason(result['error'])}; "
                "remove the block of the index, or grant the connection's user this permission"
            )
        else:
            written.refused.append(Refused(item, status, _reason(result.get("error", {}))))


def _all_written(response: Any, sent: int) -> bool:  # noqa: ANN401 - any JSON
    """Return whether a response says that each document was written; most do, and need no further check."""
    try:
        outcomes = [outcome for result in response["items"] for outcome in result.values()]
        written = [outcome["result"] in _WRITTEN and outcome["status"] in _SUCCESS for outcome in outcomes]
        return len(written) == sent and response["errors"] is False and all(written)
    except (AttributeError, KeyError, TypeError):
        return False


def index_deleted(name: str) -> ConfigError:
    """Return the error for an index that was deleted, or recreated, between two bulk requests."""
    return ConfigError(
        f"index {name} was deleted while it was being written; delete the index that a bulk request may have created "
        "in its place, create the index again, and run ingest again"
    )


def _reason(error: dict[str, Any]) -> str:
    cause = reason_of(error.get("caused_by"))
    is_full = error.get("type") == BLOCKED and "flood" in str(error.get("reason"))
    return f"{error.get('type')}: {error.get('reason')}" + (f" ({cause})" if cause else "") + (DISK_FULL * is_full)
