"""Ranges that cover an object have each of its lines once, wherever the borders are."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import ObjectChanged
from opensearch_batch.core.storage import line_range
from opensearch_batch.core.storage.line_range import open_lines
from tests.core.memory_objects import MemoryObjects
from tests.examples import examples
from tests.stored import present

URI = "s3://in/a.jsonl"
contents = st.lists(st.sampled_from([b"", b"a", b"bb\r", b"c" * 9]), max_size=8).flatmap(
    lambda lines: st.sampled_from([b"", b"\n"]).map(lambda end: b"\n".join(lines) + end)
)


@given(content=contents, borders=st.sets(st.integers(1, 40), max_size=4), buffer=st.sampled_from([1, 4, 1 << 20]))
@example(content=b"a\nb\n", borders={2}, buffer=1)
@example(content=b"aaaaaaaaaa\nb", borders={3, 5, 11}, buffer=4)
@settings(max_examples=examples(300), deadline=None)
def test_each_line_is_in_one_range(content: bytes, borders: set[int], buffer: int) -> None:
    """In order, with the offset of its first byte."""
    objects = MemoryObjects()
    objects.write(URI, content)
    item = present(objects.head(URI))
    edges = sorted(border for border in borders if border < len(content))
    read = b""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_range, "READ_BUFFER_BYTES", buffer)
        for start, end in zip([0, *edges], [*edges, 0], strict=True):
            stream, offset = open_lines(objects, item, start, end)
            with stream:
                lines = stream.readlines()
            assert lines == [] or offset == len(read)
            for line in lines:
                assert start <= len(read) < (end or len(content))
                read += line
    assert read == content


def test_an_object_that_changed_is_not_read() -> None:
    """Not even if it has the same size."""
    objects = MemoryObjects()
    objects.write(URI, b"a\nb\n")
    item = present(objects.head(URI))
    objects.write(URI, b"a\nc\n")
    with pytest.raises(ObjectChanged, match="changed while it was being read"):
        open_lines(objects, item, 2, 0)
