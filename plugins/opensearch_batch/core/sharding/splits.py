"""Splits: the parts of a source that tasks read side by side, each some objects or a byte range of a large one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from opensearch_batch.core.errors import ConfigError, ObjectChanged
from opensearch_batch.core.formats.any_json import AnyJson, layout_of
from opensearch_batch.core.formats.jsonl import JsonLines
from opensearch_batch.core.formats.reading import format_of
from opensearch_batch.core.storage.compression import COMPRESSED
from opensearch_batch.core.storage.objects import Objects, ends_in_cr
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.object_info import ObjectInfo

# Airflow starts few tasks a second, so more of them do not make a run faster.
MAX_SPLITS = 128
T = TypeVar("T")


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """An object, or its lines that start in a byte range (`end` 0: to its end), and the number of lines before them."""

    item: ObjectInfo
    start: int = 0
    end: int = 0
    lines_before: int = 0

    @property
    def is_range(self) -> bool:
        """Whether the piece is only a part of its object."""
        return self.start > 0 or self.end > 0

    @property
    def size_bytes(self) -> int:
        """The number of bytes to read."""
        return (self.end or self.item.size_bytes) - self.start


Split = list[Piece]


def split_objects(
    objects: Objects,
    items: Sequence[ObjectInfo],
    split_bytes: int,
    *,
    source_format: Format | None,
    has_ranges: bool,
    at_most: int = MAX_SPLITS,
) -> list[Split]:
    """Return the objects in splits of about `split_bytes`, in their order; without `has_ranges`, objects stay whole."""
    # The last split is smaller.
    size = max(split_bytes, -(-sum(item.size_bytes for item in items) // max(at_most - 1, 1)), 1)
    pieces = list[Piece]()
    for item in items:
        count = item.size_bytes // size
        if count > 1 and has_ranges and has_lines(objects, item, source_format):
            edges = [item.size_bytes * number // count for number in range(count)]
            pieces += [Piece(item, start, end) for start, end in zip(edges, [*edges[1:], 0], strict=True)]
        else:
            pieces.append(Piece(item))
    return list(grouped(pieces, lambda piece: piece.size_bytes, size))


def grouped(values: Iterable[T], size_of: Callable[[T], int], at_least: int) -> Iterator[list[T]]:
    """Yield groups of consecutive values; a group ends with the value with which it has the size `at_least`."""
    group, size = list[T](), 0
    for value in values:
        group.append(value)
        size += size_of(value)
        if size >= at_least:
            yield group
            group, size = [], 0
    if group:
        yield group


def has_lines(objects: Objects, item: ObjectInfo, source_format: Format | None) -> bool:
    """Return whether each line of an object is read on its own, wherever a reader begins; False if it changed."""
    row_format = format_of(item.uri, source_format)
    if item.uri.endswith(COMPRESSED) or not isinstance(row_format, AnyJson | JsonLines):
        return False
    try:
        with objects.open(item.uri, etag=item.etag) as stream:
            return not ends_in_cr(stream) and (isinstance(row_format, JsonLines) or layout_of(stream) == "lines")
    except (ConfigError, ObjectChanged):
        # The task that reads it finds out why.
        return False
