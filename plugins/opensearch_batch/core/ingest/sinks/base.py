"""The interface between the engine and a sink. The sink returns one `WrittenBody` for each body of items, in order.

A sink never drops an item: each one is written, found unchanged, filtered, superseded, left to the next run, or
refused with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import msgspec

from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.transform.json_path import Text
from opensearch_batch.core.types.rows import Blank, Filtered, Rejected, Source
from opensearch_batch.core.types.vector_field import VectorField


class Item(msgspec.Struct, frozen=True, gc=False):
    """One document for a sink; the sink returns `context` unchanged, so the caller can identify the document.

    For an index, `id` is the document's id (empty if OpenSearch generates it), and the pieces, joined, are the
    document's lines in a bulk body. For S3, `id` is the folder of the object that the document is written to, and the
    only piece is the document's text. A vector is a separate piece, so that it is copied only once, from its row to
    the body.
    """

    id: str
    pieces: tuple[Text, ...]
    context: Any = None

    @property
    def content(self) -> bytes:
        """All pieces, joined."""
        return b"".join(self.pieces)

    @property
    def size_bytes(self) -> int:
        """The size of all pieces."""
        return sum(map(len, self.pieces))


Entry = Item | Rejected | Blank | Filtered


class Refused(NamedTuple):
    """An item that the sink did not write, and the reason; `status` is the HTTP status of the index, or 0."""

    item: Item
    status: int
    reason: str

    @property
    def cause(self) -> str:
        """The reason, with the HTTP status if the index refused the item."""
        return f"refused by the index ({self.status}): {self.reason}" if self.status else self.reason


class Body:
    """Items that are sent together, and `other_entries`, which are not sent but settled together with the items.

    `item_bytes` is the size of the items, `size_bytes` that of all entries.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.other_entries: list[Any] = []
        self.ids: set[str] = set()
        self.size_bytes = self.item_bytes = 0

    def add(self, item: Item, size_bytes: int) -> None:
        """Add an item with its size."""
        self.items.append(item)
        if item.id:
            self.ids.add(item.id)
        self.size_bytes += size_bytes
        self.item_bytes += size_bytes


class WrittenBody(msgspec.Struct):
    """The verdicts of the items of one body so far: two counts, and the other items.

    In the end, ``len(body.items) == indexed + unchanged + len(refused) + len(filtered) + len(superseded) +
    len(waiting)``. An ingest pipeline of the index dropped the `filtered` items. The index has newer versions of the
    documents of the `superseded` items, or a newer run writes them. The documents of the `waiting` items were changed
    or deleted by others, so the items are left to the next run.

    The `requests` for the items took `request_s` seconds together, the slowest one `slowest_s`; `resent` counts items
    that were sent again. Other sinks than an index send none.
    """

    body: Body
    indexed: int = 0
    unchanged: int = 0
    refused: list[Refused] = []
    filtered: list[Item] = []
    superseded: list[Item] = []
    waiting: list[Item] = []
    requests: int = 0
    request_s: float = 0.0
    slowest_s: float = 0.0
    resent: int = 0

    def counts(self) -> dict[str, int]:
        """Return the number of documents of each verdict except `refused` and `waiting`, as named in `IngestCounts`."""
        return {
            "indexed": self.indexed,
            "unchanged": self.unchanged,
            "filtered": len(self.filtered),
            "superseded": len(self.superseded),
        }

    def count_request(self, seconds: float) -> None:
        """Count a request, also one that failed."""
        self.requests += 1
        self.request_s += seconds
        self.slowest_s = max(self.slowest_s, seconds)


class Attempt(msgspec.Struct, frozen=True):
    """One attempt to write the documents of the sources. Ids sort in the order of the attempts.

    `work_prefix` is the prefix of the files that all ingests share, and `prefix` that of this ingest's own files.
    `content_digest` is a digest of the sources and the options. `still_claimed` returns False when a newer run has
    superseded the run of this attempt.
    """

    id: str
    work_prefix: str
    prefix: str
    content_digest: str
    sources: Sequence[Source]
    resumes: bool
    still_claimed: Callable[[], bool] = lambda: True


class Sink(Protocol):
    """The target of an ingest.

    `name` is the target's name in reports. `request` is stored for a replay of dead letters. `can_resume` is True if
    items with a verdict are durable, so that progress can be recorded before the end and an interrupted attempt can be
    continued.
    """

    name: str
    request: IngestRequest
    can_resume: bool

    @property
    def identity(self) -> Sequence[str]:
        """The identity of the target, available after `open`; part of the ingest's fingerprint."""

    @property
    def vectors(self) -> Sequence[VectorField]:
        """The vector fields that documents must fit, available after `open`."""

    def open(self, sample: Callable[[], Iterable[Entry]]) -> str | None:
        """Check the target, or create it with fields that fit the first documents; return a remark for the user."""

    def during(self, attempt: Attempt) -> AbstractContextManager[None]:
        """Prepare the target for an attempt; at its end, restore its settings and discard unfinished objects."""

    def write(self, entries: Iterable[Entry], attempt: Attempt) -> Iterator[WrittenBody]:
        """Write items, yielding the verdicts of body after body, in the order of the entries."""

    def finish(self) -> None:
        """Make all written documents visible: refresh the index, or write the open objects.

        Called when every entry has a verdict, before the ingest is recorded as done.
        """
