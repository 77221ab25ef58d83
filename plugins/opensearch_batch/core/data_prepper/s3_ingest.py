"""Writes the events of a work item to S3. Object names depend on the work item alone: a retry writes the same objects.

Objects stay open until the work item's last row, so there is nothing to go on with after a crash: it begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from opensearch_batch.core.data_prepper.file.s3_sink import S3Sink
from opensearch_batch.core.data_prepper.options import codecs as codec_options
from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.event_files import CsvOutput, JsonOutput, NdjsonOutput
from opensearch_batch.core.formats.parquet_file import ParquetOutput
from opensearch_batch.core.ingest.account import Queue, RowAccount
from opensearch_batch.core.ingest.bulk import Body, Item, Refused, WrittenBody
from opensearch_batch.core.ingest.documents import Entry
from opensearch_batch.core.ingest.engine import DONE, DONE_WITH_DEAD_LETTERS, IngestReport
from opensearch_batch.core.ingest.event_items import Shape, encoded
from opensearch_batch.core.ingest.progress import ProgressFile
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.s3_writer import OutputCodec, S3Writer
from opensearch_batch.core.storage.dead_letters import count_letters
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.transform.events.event import Event, EventError
from opensearch_batch.core.transform.expressions.format_string import compile_format, dated
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.rows import Row, Source

BATCH = 1_000
NAME = "events"


class S3Writing:
    """Makes the items of an s3 sink: the id is where an event's object goes, the one piece its text.

    Args:
        sink: the sink.
        at: what a date in the path is made of.
    """

    def __init__(self, sink: S3Sink, at: datetime) -> None:
        key = sink.object_key
        self._bucket = compile_format(sink.bucket)
        self._prefix = compile_format(dated(key.path_prefix or "", at))
        self._default = sink.default_bucket
        self._shape = Shape(None, sink.include_keys, sink.exclude_keys, sink.tags_target_key)

    def item(self, event: Event, row: Row, origin: Any) -> Item:  # noqa: ANN401, ARG002 - as of an index
        """Return what is written of an event.

        Raises:
            RecordRejected: its bucket cannot be told, and there is no default.
        """
        try:
            bucket = self._bucket(event)
        except EventError as error:
            if self._default is None:
                raise RecordRejected(f"{error}; give default_bucket") from None
            bucket = self._default
        return Item(f"s3://{bucket}/{self._folder(event)}", (encoded(self._shape.document(event)),), origin)

    def _folder(self, event: Event) -> str:
        """Return the path; as in the original, a key that is missing leaves nothing in its place."""
        try:
            return self._prefix(event)
        except EventError:
            return "".join(part for part in self._prefix.parts if isinstance(part, str))


class S3Ingest:
    """Writes the events of one work item.

    Args:
        objects: where rows and our own files lie.
        target: where the sink's objects go.
        sink: the sink.
        place: the folder of what is known of this work item and sink.
        decisive: what decides the result.
        identity: what makes this another work than the same one before; the names of its objects stay.
    """

    def __init__(
        self, objects: Objects, target: Objects, sink: S3Sink, *, place: str, decisive: list[Any], identity: str = ""
    ) -> None:
        self._objects = objects
        self._target = target
        self._sink = sink
        self._place = place
        self._decisive = decisive
        self._identity = identity

    def run(self, sources: Sequence[Source], entries: Callable[[], Any], *, force: bool = False) -> IngestReport:
        """Write the events and return the account.

        Args:
            sources: what the events come from.
            entries: gives them, with their `S3Writing`'s items.
            force: write everything again.

        Raises:
            ConfigError: the target is missing or closed to us.
            RetriableError: a store stayed away; the same call begins anew.
        """
        file = ProgressFile(self._objects, f"{self._place}/progress.json")
        content = self._content(sources)
        fingerprint = digest(content, self._identity)
        before = file.load(fingerprint)
        if before is not None and before.done and not force:
            left, _ = count_letters(self._objects, before.dead_letters) if before.parts else (0, {})
            then = before.counts
            counts = msgspec.structs.replace(then, indexed=0, unchanged=then.indexed + then.unchanged)
            return self._report(counts, left, before.dead_letters)
        with (
            RowAccount(
                self._objects,
                file,
                queue=f"{self._place}/dead_letters/",
                names=[source.name for source in sources],
                fingerprint=fingerprint,
                before=None,
                place=lambda row: (row.uri, row.line),
                about=Queue([source.name for source in sources], IngestRequest(self._name, {})),
            ) as account,
            S3Writer(
                self._target,
                source=f"{self._place} {content}",
                at=_newest(sources),
                codec=codec_of(self._sink.codec),
                compression=self._sink.compression,
                event_count=self._sink.threshold.event_count,
                maximum_size_bytes=self._sink.threshold.maximum_size,
            ) as writer,
        ):
            account.begin()
            self._write(entries(), account, writer)
            writer.finish()
            account.record(done=True)
            counts = account.counts()
            counts.reconcile(self._place)
            return self._report(counts, counts.dead_letters, account.dead.location)

    @property
    def _name(self) -> str:
        return f"s3://{self._sink.bucket}/{self._sink.object_key.path_prefix or ''}"

    def _write(self, entries: Any, account: RowAccount, writer: S3Writer) -> None:  # noqa: ANN401 - the events
        body, refused = Body(), list[Refused]()
        for entry in entries:
            self._add(entry, body, refused, writer)
            if len(body.items) + len(body.passing) >= BATCH:
                account.settle(WrittenBody(body, len(body.items) - len(refused), 0, refused))
                body, refused = Body(), []
        account.settle(WrittenBody(body, len(body.items) - len(refused), 0, refused))

    def _add(self, entry: Entry, body: Body, refused: list[Refused], writer: S3Writer) -> None:
        if not isinstance(entry, Item):
            body.passing.append(entry)
            return
        body.add(entry, entry.size_bytes)
        try:
            writer.add(
                bytes(entry.pieces[0]), entry.id, name=f"{self._sink.object_key.name_pattern_prefix or ''}{NAME}"
            )
        except RecordRejected as error:
            refused.append(Refused(entry, 0, str(error)))

    def _content(self, sources: Sequence[Source]) -> str:
        """Name what is written."""
        found = [f"{item.uri} {item.etag}" for source in sources for item in source.objects]
        return digest(json.dumps(self._decisive, sort_keys=True), *found)

    def _report(self, counts: IngestCounts, left: int, dead_letters: str | None) -> IngestReport:
        state = DONE_WITH_DEAD_LETTERS if left else DONE
        return IngestReport(self._name, state, counts, dead_letters if left else None)


def codec_of(said: Any) -> OutputCodec:  # noqa: ANN401 - the options of any codec
    """Return what a codec's options ask for."""
    match said:
        case codec_options.JsonOutput():
            return JsonOutput(said.key_name)
        case codec_options.CsvOutput():
            return CsvOutput(said.delimiter, said.header or ())
        case codec_options.ParquetOutput():
            return ParquetOutput(said.schema)
    return NdjsonOutput(said.extension)


def _newest(sources: Sequence[Source]) -> datetime:
    """Return the time that stands in the names: that of the newest object, so that it is the same the next time."""
    newest = max((item.modified for source in sources for item in source.objects), default=0.0)
    return datetime.fromtimestamp(newest, UTC)
