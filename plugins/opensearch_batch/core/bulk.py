"""Bulk writer: every document has a verdict before anybody calls it done.

Bodies are cut by bytes, not by documents. What the index is too busy to take is sent again, alone; what it refuses is
returned with its reason; a document is never dropped. Equal ids make a repeated body harmless.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from opensearch_batch.core.cluster import RETRY_STATUSES, Cluster, reason_of
from opensearch_batch.core.errors import ConfigError, NotFound, RetriableError

MAX_BODY_BYTES = 5_000_000
RETRY_WINDOW_S = 300.0
# These say that the index is closed to us, not that a document is wrong: nothing becomes a dead letter for it.
CLOSED = frozenset({401, 403, 404})
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 20.0
# Only what a verdict needs travels back; the full answer repeats index and id of every document.
_VERDICT = {
    "filter_path": "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
}


class Item(NamedTuple):
    """One document on its way: its id, its ``_source`` bytes, and whatever the caller needs to know it again by."""

    id: str
    source: bytes
    origin: Any = None


class Refused(NamedTuple):
    """A document the index does not take, and why."""

    item: Item
    status: int
    reason: str


class Written(NamedTuple):
    """The verdicts of one body: how many were indexed, and which were refused."""

    indexed: int
    refused: list[Refused]


def action(item: Item) -> bytes:
    """Return the two lines of one document in a bulk body."""
    return b'{"index":{"_id":%b}}\n%b\n' % (msgspec.json.encode(item.id), item.source)


def bodies(items: Iterable[Item], *, max_body_bytes: int = MAX_BODY_BYTES) -> Iterator[list[tuple[Item, bytes]]]:
    """Cut documents into bodies of at most `max_body_bytes`; a larger document travels alone."""
    body: list[tuple[Item, bytes]] = []
    size = 0
    for item in items:
        lines = action(item)
        if body and size + len(lines) > max_body_bytes:
            yield body
            body, size = [], 0
        body.append((item, lines))
        size += len(lines)
    if body:
        yield body


class BulkWriter:
    """Writes documents to one index.

    Args:
        cluster: where the index is.
        index: its name.
        max_body_bytes: the size a body is cut at.
        retry_window_s: how long a body may be refused as busy before the writer gives up.
        clock, sleep: seconds; given by tests.
    """

    def __init__(
        self,
        cluster: Cluster,
        index: str,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        retry_window_s: float = RETRY_WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cluster = cluster
        self._index = index
        self._max_body_bytes = max_body_bytes
        self._retry_window_s = retry_window_s
        self._clock = clock
        self._sleep = sleep

    def write(self, items: Iterable[Item]) -> Iterator[Written]:
        """Write documents, yielding the verdicts of body after body.

        Raises:
            ConfigError: the index is missing, blocked or closed to us.
            RetriableError: the cluster stayed away or busy for the whole retry window.
        """
        for body in bodies(items, max_body_bytes=self._max_body_bytes):
            yield self._write_body(body)

    def _write_body(self, body: list[tuple[Item, bytes]]) -> Written:
        indexed, refused = 0, list[Refused]()
        give_up_at, pause_s = self._clock() + self._retry_window_s, FIRST_PAUSE_S
        while body:
            try:
                done, denied, body = self._send(body)
            except RetriableError:
                if self._clock() >= give_up_at:
                    raise
            else:
                indexed += done
                refused += denied
                if body and self._clock() >= give_up_at:
                    raise RetriableError(f"index {self._index} stayed busy for {self._retry_window_s:.0f} s")
            if body:
                self._sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
        return Written(indexed, refused)

    def _send(self, body: list[tuple[Item, bytes]]) -> tuple[int, list[Refused], list[tuple[Item, bytes]]]:
        """Send one body; return how many were indexed, what was refused, and what has to be sent again."""
        try:
            answer = self._cluster.call(
                "POST",
                f"/{self._index}/_bulk",
                b"".join(lines for _, lines in body),
                params=_VERDICT,
                timeout_s=120.0,
            )
        except NotFound as error:
            raise ConfigError(f"index {self._index} is gone; clear prepare to create it again") from error
        if not answer.get("errors"):
            return len(body), [], []
        refused: list[Refused] = []
        again: list[tuple[Item, bytes]] = []
        for entry, verdict in zip(body, answer["items"], strict=True):
            (result,) = verdict.values()
            if result["status"] in RETRY_STATUSES:
                again.append(entry)
            elif result["status"] in CLOSED:
                raise ConfigError(
                    f"index {self._index} does not let us write ({result['status']}): {_reason(result['error'])}"
                )
            elif "error" in result:
                refused.append(Refused(entry[0], result["status"], _reason(result["error"])))
        return len(body) - len(refused) - len(again), refused, again


def _reason(error: dict[str, Any]) -> str:
    cause = reason_of(error.get("caused_by"))
    return f"{error.get('type')}: {error.get('reason')}" + (f" ({cause})" if cause else "")
