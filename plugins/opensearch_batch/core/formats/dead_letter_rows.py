"""Reads dead letters of `prepare` as rows. A user may have corrected the records in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import msgspec

from opensearch_batch.core.formats.json_text import on_one_line
from opensearch_batch.core.formats.jsonl import entry_of
from opensearch_batch.core.storage.dead_letters import MAX_LETTER_BYTES, DeadLetter, as_bytes
from opensearch_batch.core.storage.json_document import UNDECODABLE
from opensearch_batch.core.storage.objects import Line, lines
from opensearch_batch.core.types.rows import Blank, Rejected, Row, RowLimit, SourceEntry


class DeadLetterRows(msgspec.Struct, frozen=True):
    """Reads the record of each dead letter, which must be one JSON object."""

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the records with their original positions in the source objects."""
        for line in lines(stream, max_line_bytes=MAX_LETTER_BYTES):
            if not line.content.strip():
                yield Blank(source)
                continue
            try:
                letter = msgspec.json.decode(line.content, type=DeadLetter)
                record = as_bytes(letter)
            except (*UNDECODABLE, ValueError) as error:
                row = Row(source, uri, line.number, line.offset, line.content)
                yield Rejected((row,), f"not a dead letter: {error}")
                continue
            cut = len(record) > limit.max_bytes
            entry = entry_of(Line(letter.line, record, cut, letter.offset), source, letter.source, limit)
            # A user may have edited the record over several lines, which a line of a job's input cannot have.
            if isinstance(entry, Row):
                entry = msgspec.structs.replace(entry, content=on_one_line(entry.content))
            yield entry
