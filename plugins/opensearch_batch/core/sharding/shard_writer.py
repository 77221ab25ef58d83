"""Cuts a source into shards and writes them. Every run cuts the same source into the same shards, byte for byte.

A shard is stored under its job key, which is derived from its content, so a shard that an earlier run uploaded (and
paid for) is not written again. A line that is not a record becomes a dead letter; no line is dropped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from opensearch_batch.core.errors import ConfigError, FatalError, RecordRejected
from opensearch_batch.core.formats.any_json import AnyJson, layout_of
from opensearch_batch.core.formats.jsonl import JsonLines
from opensearch_batch.core.formats.reading import format_of, reader
from opensearch_batch.core.jobs.line_form import LineForm
from opensearch_batch.core.sharding.blocks import Block, Blocks
from opensearch_batch.core.sharding.cut import Cutter, Draft, Lines, ShardLimits
from opensearch_batch.core.sharding.listing import Listing
from opensearch_batch.core.storage.dead_letters import SHOWN_REASONS, DeadLetters, dead_letter
from opensearch_batch.core.storage.in_use import mark_in_use
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.manifest import PrepareCounts, PreparedShard, Shard
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.core.types.rows import Blank, Rejected, Row, Source, SourceEntry


class ShardWriter:
    """Reads a source and writes its shards.

    Args:
        objects: the store of the source and the work prefix.
        layout: builds the paths below the work prefix.
        limits: the limits of a shard.
        request_line: turns a record and its id in the shard into its service-ready line, or rejects it.
        form: the template of the same lines, which creates many lines at once; None if the service has no template.
        keeps_records: whether the records are stored beside the shard, because the service's rows do not contain them.
        job_key: computes the job key from the content digest of a shard.
        dead: the dead letters of lines that are not records.
        writes: False for a dry run, which returns the same shards and counts, but writes nothing.
    """

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        *,
        limits: ShardLimits,
        request_line: Callable[[bytes, str], bytes],
        form: LineForm | None = None,
        keeps_records: bool = False,
        job_key: Callable[[str], str],
        dead: DeadLetters,
        writes: bool = True,
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._limits = limits
        self._request_line = request_line
        # If a job has a minimum of records, `Draft.first` needs the first records one by one.
        self._blocks = None if form is None or limits.min_records > 1 else Blocks(form, limits.row_limit)
        self._job_key = job_key
        self._dead = dead
        self._writes = writes
        self._keeps_records = keeps_records
        self._read = self._records = self._blank = 0

    def run(
        self, listing: Listing, *, source_format: Format | None = None, limit: int | None = None
    ) -> tuple[list[PreparedShard], PrepareCounts]:
        """Cut all objects of a listing into shards and upload those that do not exist.

        Args:
            listing: the source's objects.
            source_format: their format, if the pipeline names it.
            limit: the maximum number of records; all if None.

        Raises:
            ConfigError: the records are too few for a job of the service.
            FatalError: no line is a record (the dead letters are written).
        """
        drafts = self._cut(listing.objects, source_format, limit)
        shards = [self._upload(number, draft) for number, draft in enumerate(drafts)]
        reasons = [] if shards else [letter.reason for letter in islice(self._dead.unwritten(), SHOWN_REASONS)]
        if self._writes:
            self._dead.clear()
            self._dead.write()
        counts = PrepareCounts(self._read, self._records, self._dead.count, self._blank)
        counts.reconcile(listing.source)
        if not shards:
            raise FatalError(
                f"{listing.source}: {len(listing.objects)} objects, {counts.read} lines, no usable record; "
                f"first reasons: {'; '.join(dict.fromkeys(reasons)) or 'the objects are empty'}"
                f"{f' (all in {self._dead.location})' if self._writes and reasons else ''}"
            )
        return shards, counts

    def _cut(self, items: Sequence[ObjectInfo], source_format: Format | None, limit: int | None) -> Iterator[Draft]:
        """Yield the drafts of the shards; a last one with too few records is merged into the previous one."""
        self._cutter = Cutter(self._limits, keeps_records=self._keeps_records)
        try:
            for item in items:
                for entry in self._entries(item, source_format):
                    if self._records == limit:
                        break
                    yield from self._add(entry, limit)
                if self._records == limit:
                    break
                yield from self._cutter.end_object(item.uri)
            yield from self._last_drafts()
        finally:
            self._cutter.close()

    def _entries(self, item: ObjectInfo, source_format: Format | None) -> Iterator[SourceEntry | Block]:
        row_format, limit = format_of(item.uri, source_format), self._limits.row_limit
        if self._blocks is None or not isinstance(row_format, AnyJson | JsonLines):
            yield from reader(row_format, limit=limit)(self._objects, 0, Source(item.uri, (item,)))
            return
        with self._objects.open(item.uri, etag=item.etag) as stream:
            if isinstance(row_format, JsonLines) or layout_of(stream) == "lines":
                yield from self._blocks.read(stream, item.uri)
            else:
                yield from row_format.read(stream, 0, item.uri, limit)

    def _add(self, entry: SourceEntry | Block, limit: int | None) -> Iterator[Draft]:
        if isinstance(entry, Block):
            yield from self._add_block(entry, limit)
            return
        if isinstance(entry, Blank):
            self._blank += 1
            return
        self._read += 1
        if isinstance(entry, Rejected):
            self._reject(entry.rows[0], entry.reason)
            return
        try:
            line = self._request_line(entry.content, record_id(self._cutter.draft.records))
            if not self._cutter.draft.fits(line, self._limits):
                yield from self._cutter.cut()
                line = self._request_line(entry.content, record_id(0))
        except RecordRejected as error:
            self._reject(entry, str(error))
            return
        self._cutter.add(entry, line)
        self._records += 1

    def _add_block(self, block: Block, limit: int | None) -> Iterator[Draft]:
        """Add a block, split into one piece per shard."""
        while block.count:
            if self._records == limit:
                return
            records, size_bytes = self._cutter.draft.room(self._limits)
            fits = block.first(records if limit is None else min(records, limit - self._records), size_bytes)
            if not fits.count and self._cutter.draft.records:
                yield from self._cutter.cut()
                continue
            # A record that exceeds the limits of a shard gets its own shard.
            part = fits if fits.count else block.first(1, sys.maxsize)
            self._cutter.add_block(part)
            self._read += part.count
            self._records += part.count
            block = block.after(part)

    def _last_drafts(self) -> Iterator[Draft]:
        previous, draft = self._cutter.rest()
        if previous is not None:
            if draft.records < self._limits.min_records:
                for record in draft.first:
                    previous.add(record, self._request_line(record.content, record_id(previous.records)))
                yield previous
                return
            yield previous
        if 0 < draft.records < self._limits.min_records:
            raise ConfigError(
                f"the source has {draft.records} records, but a job of the service needs at least "
                f"{self._limits.min_records}; wait for more documents, or choose another service"
            )
        if draft.records:
            yield draft

    def _reject(self, record: Row, reason: str) -> None:
        letter = dead_letter(
            record.content, stage="prepare", reason=reason, source=record.uri, line=record.line, offset=record.offset
        )
        self._dead.add(letter)

    def _upload(self, number: int, draft: Draft) -> PreparedShard:
        key = self._job_key(draft.input.digest())
        folder = self._layout.job(key)
        uri = f"{folder}/input.jsonl"
        if self._writes:
            # Before the upload, so that the retention of another run does not delete a shard that this run reuses.
            mark_in_use(self._objects, folder, now=time.time())
        self._put(uri, draft.input)
        records_uri = ""
        if draft.kept_records is not None:
            # The digest in the name prevents overwriting the records of another run that has the same input.
            records_uri = f"{folder}/source-{draft.kept_records.digest()[:16]}.jsonl"
            self._put(records_uri, draft.kept_records)
        draft.close()
        shard = Shard(f"{number:04d}", uri, key, draft.records, draft.input.size_bytes, records_uri)
        return PreparedShard(shard, draft.source_ranges())

    def _put(self, uri: str, lines: Lines) -> None:
        if not self._writes:
            return
        stored = self._objects.head(uri)
        if stored is None or stored.size_bytes != lines.size_bytes:
            self._objects.upload(uri, lines.open())
