"""Reads text lines: each line, even an empty line, becomes an object with its text in ``message``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Annotated

from msgspec import Meta

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import FatalError, RecordRejected
from opensearch_batch.core.formats.json_text import check_text, encode
from opensearch_batch.core.storage.objects import Line, lines
from opensearch_batch.core.types.rows import Rejected, Row, RowLimit, SourceEntry


class Newline(Options, frozen=True, kw_only=True):
    """Reads each line as a string.

    The first `skip_lines` lines are skipped. With `header_destination`, the next line is the header: each object has a
    copy of the header at this key.
    """

    skip_lines: Annotated[int, Meta(ge=0)] = 0
    header_destination: Annotated[str, Meta(min_length=1)] | None = None

    def read(self, stream: IO[bytes], source: int, uri: str, limit: RowLimit) -> Iterator[SourceEntry]:
        """Yield the lines as objects; raise FatalError if the header is not UTF-8, or is too long."""
        header = dict[str, str]()
        for line in lines(stream, max_line_bytes=limit.max_bytes):
            if line.number <= self.skip_lines:
                continue
            text, reason = _text(line, limit)
            if self.header_destination is not None and line.number == self.skip_lines + 1:
                if reason is not None:
                    raise FatalError(f"{uri}: line {line.number}, the header: {reason}; correct it")
                header = {self.header_destination: text}
            elif reason is not None:
                yield Rejected((Row(source, uri, line.number, line.offset, line.content),), reason)
            else:
                yield Row(source, uri, line.number, line.offset, encode({**header, "message": text}))


def _text(line: Line, limit: RowLimit) -> tuple[str, str | None]:
    try:
        return check_text(line.content).decode(), limit.reason if line.cut else None
    except RecordRejected as error:
        return "", str(error)
