"""The S3 sink: objects whose names depend on their content's origin alone, so a retry writes the same objects.

Objects stay open until the last item, so there is nothing to continue after an interruption: an attempt starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.sinks.base import Attempt, Body, Entry, Item, Refused, WrittenBody
from opensearch_batch.core.ingest.sinks.s3_objects import NAME, ObjectSettings, S3Writer
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.rows import Source
from opensearch_batch.core.types.vector_field import VectorField

ENTRIES_A_BODY = 1_000


class ObjectSink:
    """Writes events to objects.

    Args:
        objects: the store they go to.
        settings: how objects are named, encoded and cut.
        name: the target's name in reports.

    Raises:
        ConfigError: the codec's schema cannot be written.
    """

    can_resume = False
    identity: Sequence[str] = ()
    vectors: Sequence[VectorField] = ()

    def __init__(self, objects: Objects, settings: ObjectSettings, *, name: str) -> None:
        settings.check()
        self.name = name
        self.request = IngestRequest(name, {})
        self._objects = objects
        self._settings = settings

    def open(self, sample: Callable[[], Iterable[Entry]]) -> None:
        """Do nothing: the bucket of an object is known when its first event is."""

    @contextmanager
    def during(self, attempt: Attempt) -> Iterator[None]:
        """Open a writer for the attempt; objects that it has not written at its end are discarded."""
        source = f"{attempt.prefix} {attempt.content}"
        with S3Writer(self._objects, self._settings, source=source, at=_newest(attempt.sources)) as self._writer:
            yield

    def write(self, entries: Iterable[Entry], attempt: Attempt) -> Iterator[WrittenBody]:  # noqa: ARG002 - of `Sink`
        """Add events to their objects."""
        body, refused = Body(), list[Refused]()
        for entry in entries:
            self._add(entry, body, refused)
            if len(body.items) + len(body.passing) >= ENTRIES_A_BODY:
                yield WrittenBody(body, len(body.items) - len(refused), 0, refused)
                body, refused = Body(), []
        yield WrittenBody(body, len(body.items) - len(refused), 0, refused)

    def finish(self) -> None:
        """Write the objects that are still open."""
        self._writer.finish()

    def _add(self, entry: Entry, body: Body, refused: list[Refused]) -> None:
        if not isinstance(entry, Item):
            body.passing.append(entry)
            return
        body.add(entry, entry.size_bytes)
        try:
            self._writer.add(bytes(entry.pieces[0]), entry.id, name=f"{self._settings.name_prefix}{NAME}")
        except RecordRejected as error:
            refused.append(Refused(entry, 0, str(error)))


def _newest(sources: Sequence[Source]) -> datetime:
    """Return the time in object names: that of the newest source object, so that a retry has the same."""
    newest = max((item.modified for source in sources for item in source.objects), default=0.0)
    return datetime.fromtimestamp(newest, UTC)
