"""JSON Lines by the block are what they are line by line."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opensearch_batch.core.sharding.blocks import Block, Blocks

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.jobs.line_form import ID, INPUTS, LineForm
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.core.types.rows import Rejected, Row, RowLimit
from opensearch_batch.services.inputs import inputs_reader, texts_reader

LONGEST = 200
LINES = st.lists(
    st.one_of(
        st.builds(lambda n: b'{"text":"%d"}' % n, st.integers(0, 10**6)),
        st.builds(lambda n: b'{"text":"' + b"y" * n + b'","n":[1,{"a":2}]}', st.integers(0, 60)),
        st.sampled_from(
            [
                b"",
                b"  ",
                b"{",
                b"[1]",
                b'{"text":null}',
                b'{"other":1}',
                b'{"text":1} {"text":2}',
                b'{"text":1}{"text":2}',
                b'{"text":',
                b"1}",
                b'{"text":"\xff"}',
                b'{"text":"\xc3\xa9"} ',
                b'{"text":1}\r',
                b'{"text":" "}',
                b'{"text":"a\\"b","title":"50 %"}',
                b'{"title":"t","text":"x"}',
                b'{"text":"' + b"z" * 300 + b'"}',
            ]
        ),
    ),
    max_size=30,
)


FORMS = {
    "as it is": LineForm(("$.text",)),
    "a text": LineForm.of({"id": ID, "of": "100 %d", "texts": [msgspec.Raw(INPUTS)]}, ["$.text"]),
    "two texts": LineForm.of({"texts": [msgspec.Raw(INPUTS)], "id": ID}, ["$.text", "$.title"]),
}


@given(LINES, st.booleans(), st.integers(1, 400), st.sampled_from(list(FORMS)))
def test_blocks_hold_what_the_lines_hold(lines: list[bytes], ends: bool, block_bytes: int, name: str) -> None:  # noqa: FBT001 - hypothesis gives it
    """By the block or line by line: the same lines for the service at the same places, and the same refusals."""
    content = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    form = FORMS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opensearch_batch.core.sharding.blocks.BLOCK_BYTES", block_bytes)
        patch.setattr("opensearch_batch.core.sharding.blocks.MIN_LINES", 2)
        fast = made(content, form)
        patch.setattr("opensearch_batch.core.sharding.blocks.Blocks._inputs_of", lambda *_: None)
        careful = made(content, form)
    assert fast == careful


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("size", [LONGEST, LONGEST + 1])
def test_a_line_is_too_long_wherever_it_is(at: int, size: int) -> None:
    """By one byte, and also as the first line of a block."""
    lines = [b'{"text":1}'] * 3
    lines[at] = b'{"text":"' + b"x" * (size - len('{"text":""}')) + b'"}'
    found = made(b"".join(line + b"\n" for line in lines), FORMS["as it is"])
    assert [number for number, verdict in found if verdict == "too long"] == ([at + 1] if size > LONGEST else [])
    assert len(found) == 3


def made(content: bytes, form: LineForm) -> list[Any]:
    """Return every line's number with what the service would get, or why it would not."""
    found: list[Any] = []
    read = texts_reader(form.paths) if form.texts else inputs_reader(form.paths)
    blocks = Blocks(form, RowLimit(LONGEST, "too long"))
    for entry in blocks.read(io.BufferedReader(io.BytesIO(content)), "s"):
        if isinstance(entry, Block):
            lines, kept = entry.service_lines(7).splitlines(), entry.records(7).splitlines()
            assert len(lines) == len(kept) == entry.count
            for at, (line, record) in enumerate(zip(lines, kept, strict=True)):
                row = entry.content.splitlines()[at]
                assert record == b'{"record_id":"%b","record":%b}' % (record_id(7 + at).encode(), row)
                assert line == form.line(row, record_id(7 + at), read(row))
                found.append((entry.line + at, form.line(row, "r", read(row))))
            if entry.inputs:
                assert form.size_bytes(entry.inputs) == [len(line) + 1 for line in lines]
        elif isinstance(entry, Row):
            try:
                found.append((entry.line, form.line(entry.content, "r", read(entry.content))))
            except RecordRejected as error:
                found.append((entry.line, str(error)))
        elif isinstance(entry, Rejected):
            found.append((entry.rows[0].line, entry.reason))
        else:
            found.append(None)
    return found


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=20),
    st.integers(0, 25),
    st.integers(0, 600),
    st.sampled_from(list(FORMS)[:2]),
)
def test_the_first_lines_of_a_block_and_the_rest_are_the_block(
    sizes: list[int], count: int, size_bytes: int, name: str
) -> None:
    """As many whole lines as fit."""
    form, texts = FORMS[name], [b'"%b"' % (b"x" * size) for size in sizes]
    rows = b"".join(b'{"text":%b}\n' % text for text in texts)
    block = Block(rows, "s", 7, len(texts), form, () if form.pieces is None else texts)
    first = block.first(count, size_bytes)
    rest = block.after(first)
    assert first.content + rest.content == rows
    assert first.service_lines(0) + rest.service_lines(first.count) == block.service_lines(0)
    assert (first.count, first.count + rest.count) == (first.content.count(b"\n"), block.count)
    assert (first.line, rest.line) == (7, 7 + first.count)
    assert first.count <= count
    assert len(first.service_lines(0)) <= size_bytes
    if first.count < min(count, len(texts)):
        assert len(block.first(first.count + 1, 1 << 30).service_lines(0)) > size_bytes
