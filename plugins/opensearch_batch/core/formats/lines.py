"""Raw lines of a source: one row a line, whatever it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from opensearch_batch.core.storage.objects import Objects, lines
from opensearch_batch.core.types.rows import MAX_ROW_BYTES, Blank, Rejected, Row, Source

Read = Callable[[Objects, int, Source], Iterator["Row | Blank | Rejected"]]


def read_rows(objects: Objects, number: int, source: Source) -> Iterator[Row | Blank | Rejected]:
    """Yield the lines of a source, object after object.

    Raises:
        FatalError: an object changed since it was listed, or its compression is damaged.
        RetriableError: the store stayed away.
    """
    for found in source.objects:
        with objects.open(found.uri, etag=found.etag) as stream:
            for line in lines(stream, max_line_bytes=MAX_ROW_BYTES):
                if not line.content or line.content.isspace():
                    yield Blank(number)
                    continue
                row = Row(number, found.uri, line.number, line.offset, line.content)
                if line.cut:
                    yield Rejected((row,), f"the row is longer than {MAX_ROW_BYTES} bytes")
                else:
                    yield row
