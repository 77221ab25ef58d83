"""Answers: output rows of a service without their records, with vectors as 32-bit floats.

An answer is stored once and read for every record with its content key, so the record and the id that its job gave it
are left out, and put back for each reader. Vectors are most of a row's bytes: as 32-bit floats they take a fifth of
their text. A vector is only cut out of the row if that loses nothing: its path is mapped to float vector fields alone,
which store 32-bit floats, or its numbers are read from the new text as the same 64-bit floats.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from opensearch_batch.core.formats.json_text import check_json, members_of
from opensearch_batch.core.jobs.contract import RowMatching, ServiceAdapter
from opensearch_batch.core.transform.json_path import RowReader, Text
from opensearch_batch.core.types.record_ids import OUTPUT, position_of

_floats = msgspec.json.Decoder(list[float]).decode
_any = msgspec.json.Decoder().decode
_WRAPPER = b'{"%b":' % OUTPUT.encode()


class VectorPath(msgspec.Struct, frozen=True):
    """A path of an output row that may lead to a vector.

    `float32`: nothing but float vector fields of the index gets its value.
    """

    path: str
    float32: bool = False


class StoredAnswer(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An output row without its record and record id.

    `rest` is JSON text. In front of each offset of `cuts`, in ascending order, a value was cut out of its brackets or
    quotes: the item of `vectors` (32-bit floats, little endian) or, if that is empty, the record's id. `paths` are the
    paths of these values in the output row.
    """

    rest: bytes
    cuts: tuple[int, ...] = ()
    vectors: tuple[bytes, ...] = ()
    paths: tuple[str, ...] = ()

    def text(self, record_id: str) -> bytes:
        """Return the JSON text for the record with this id; each number has the fewest digits of its 32-bit float."""
        rest, pieces, start = self.rest, list[bytes](), 0
        for cut, vector in zip(self.cuts, self.vectors, strict=True):
            pieces += rest[start:cut], vector_text(vector)[1:-1] if vector else record_id.encode()
            start = cut
        pieces.append(rest[start:])
        return b"".join(pieces)


class AnswerForm:
    """Converts the output rows of a job to answers, and answers to the output rows of other jobs.

    `vectors` are the paths, in output rows, where predictions are.
    """

    def __init__(
        self, adapter: ServiceAdapter, parameters: Mapping[str, Any], vectors: Sequence[VectorPath] = ()
    ) -> None:
        self._matching: RowMatching = adapter.row_matching(parameters)
        # The members that the service adds to a record.
        self._added = sorted(adapter.output_members)
        self._read_added = RowReader([(name, _member(name)) for name in self._added])
        self._vectors = list(vectors)
        self._paths = paths = [each.path for each in self._vectors]
        if self._matching == "by_id" and adapter.id_member:
            paths.append(_member(adapter.id_member))
        # Rows without ids may be arrays, which are read as a member.
        self._wraps = self._matching == "by_position"
        prefix = f"$.{OUTPUT}" if self._wraps else "$"
        self._read = RowReader([(path, prefix + path.removeprefix("$")) for path in paths])

    def split(self, row: bytes) -> StoredAnswer:
        """Return the answer of an output row that is not an error; raise RecordRejected if the row is not JSON."""
        text = self._without_record(row) if self._matching == "beside_record" else row
        rest, cuts, start, removed = list[bytes](), list[tuple[int, bytes, str]](), 0, 0
        for first, last, vector, path in self._cuts(text):
            if first < start:
                continue
            rest.append(text[start:first])
            cuts.append((first - removed, vector, path))
            start, removed = last, removed + last - first
        rest.append(text[start:])
        return StoredAnswer(b"".join(rest), *zip(*cuts, strict=True))

    def row(self, answer: StoredAnswer, *, line: bytes, record_id: str) -> bytes:
        """Return the output row that a job with this line would have returned."""
        text = answer.text(record_id)
        return self._beside(line, text) if self._matching == "beside_record" else text

    def _without_record(self, row: bytes) -> bytes:
        """Return an object of the members that the service added to the record."""
        values = zip(self._added, self._read_added.values(row), strict=True)
        members = [b"%b:%b" % (msgspec.json.encode(name), bytes(value)) for name, value in values if value is not None]
        return b"{%b}" % b",".join(members)

    def _beside(self, line: bytes, added: bytes) -> bytes:
        """Return a record with the members of the object `added`; they replace those of the record."""
        if added == b"{}":
            return line
        if any(b'"%b"' % name.encode() in line for name in self._added):
            return msgspec.json.encode({**members_of(line), **members_of(added)})
        record = line.rstrip()[:-1].rstrip()
        return b"%b%b%b" % (record, b"" if record.lstrip() == b"{" else b",", added[1:])

    def _cuts(self, text: bytes) -> list[tuple[int, int, bytes, str]]:
        """Return start, end, replacement and path of each part that can be cut out, in the order of the text."""
        whole, shift = text, 0
        if self._wraps:
            whole, shift = b"%b%b}" % (_WRAPPER, check_json(text)), len(_WRAPPER)
        cuts = []
        for number, value in enumerate(self._read.values(whole)):
            if value is None:
                continue
            is_id = number == len(self._vectors)
            vector = _own_id(value) if is_id else _vector(value, lossy=self._vectors[number].float32)
            if vector is not None and (start := _offset(whole, value)) >= 0:
                # Without its brackets or quotes.
                start += 1 - shift
                cuts.append((start, start + len(memoryview(value)) - len("[]"), vector, self._paths[number]))
        return sorted(cuts)


def _member(name: str) -> str:
    return f"$['{name}']"


def _vector(text: Text, *, lossy: bool) -> bytes | None:
    """Return an array of numbers as 32-bit floats, None if it is something else or would lose information."""
    try:
        numbers = _floats(text)
        vector = struct.pack(f"<{len(numbers)}f", *numbers)
    except (msgspec.DecodeError, OverflowError):
        return None
    if not numbers or lossy:
        return vector or None
    exact = set(map(type, _any(text))) == {float} and _floats(vector_text(vector)) == numbers
    return vector if exact else None


def _own_id(text: Text) -> bytes | None:
    """Return nothing to store in place of a record's id, None if another system created the id."""
    return None if position_of(bytes(text)[1:-1].decode()) is None else b""


def _offset(text: bytes, part: Text) -> int:
    """Return where a part of a text starts, -1 if that is not certain."""
    if isinstance(part, msgspec.Raw):
        address = _address_reader()
        start = address(part) - address(text)
        if 0 <= start < len(text):
            return start
    # The part is a copy.
    content = bytes(part)
    start = text.find(content)
    return start if text.find(content, start + 1) < 0 else -1


@cache
def _address_reader() -> Callable[[Text], int]:
    """Return the function from a buffer to its address: parts of a decoded text are views of the text."""
    import numpy as np

    from_buffer, byte = np.frombuffer, np.uint8

    def address(buffer: Text) -> int:
        start: int = from_buffer(buffer, byte).__array_interface__["data"][0]
        return start

    return address


def vector_text(vector: bytes) -> bytes:
    """Return 32-bit floats as a JSON array without white space; each number has the fewest digits that identify it."""
    return vector_writer()(vector)


@cache
def vector_writer() -> Callable[[bytes], bytes]:
    """Return `vector_text` without its own lookup, for many vectors."""
    import numpy as np
    import orjson

    from_buffer, kind, dumps, option = np.frombuffer, np.dtype("<f4"), orjson.dumps, orjson.OPT_SERIALIZE_NUMPY
    return lambda vector: dumps(from_buffer(vector, kind), option=option)
