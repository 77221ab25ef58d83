"""Field maps move values, they do not parse them: what the file said is, byte for byte, what the index gets.

A map is compiled once. Plain paths (names, indexes, bracket names) slice the row with `msgspec.Raw`; any other JSONPath
goes through jsonpath-ng over a tree whose numbers keep their text. The language is the one of ML Commons' asynchronous
batch ingestion: ``{"field": "$.path", "_id": "$.path"}`` and ``ingest_fields``, kept under their own last name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected

ID_FIELD = "_id"
MAX_ID_BYTES = 512
Read = Callable[[bytes], bytes | None]
_STEP = re.compile(r"""\.([^.\[\]'"*?()@$,:\s]+)|\[(-?\d+)\]|\['([^'\\]*)'\]|\["([^"\\]*)"\]""")
_SOURCE = re.compile(r"source\[(\d+)\]\.?(?=[$])")


class VectorRejected(RecordRejected):
    """A value does not fit the vector field it is mapped to."""


class PlainPath(msgspec.Struct, frozen=True):
    """A path of names and indexes, as text and as steps."""

    text: str
    steps: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str) -> PlainPath:
        """Read a plain JSONPath such as ``$.content[0]``, ``$['a b'].c`` or ``$``; ``a.b`` is read as ``$.a.b``.

        Raises:
            ConfigError: it is no JSONPath, or one with wildcards, slices or filters.
        """
        path = text if text.startswith("$") else f"$.{text}"
        steps: list[str | int] = []
        at = 1
        while at < len(path):
            step = _STEP.match(path, at)
            if step is None:
                raise ConfigError(
                    f"{text!r} is no plain path at {path[at:]!r}; write names and indexes, like $.content[0]"
                )
            name, index, quoted, double_quoted = step.groups()
            steps.append(int(index) if index is not None else name or quoted or double_quoted or "")
            at = step.end()
        return cls(text, tuple(steps))

    def reader(self) -> Read:
        """Return a function from a JSON text to the text of the value at this path, None where there is none.

        It raises RecordRejected when the JSON is malformed.
        """
        slices = [_slicer(step) for step in self.steps]

        def read(row: bytes) -> bytes | None:
            value: bytes | None = check_json(row) if not slices else check_text(row)
            for cut in slices:
                if value is None:
                    return None
                value = cut(value)
            return value

        return read


class Document(msgspec.Struct, frozen=True):
    """One mapped row: its id (None: the caller makes one), its ``_source`` bytes, how many mapped fields it lacked."""

    id: str | None
    source: bytes
    nulls: int


class VectorField(msgspec.Struct, frozen=True):
    """A ``knn_vector`` field of the target index and its dimension."""

    name: str
    dimension: int


class FieldMap:
    """A compiled field map for one source.

    Args:
        field_map: field name -> path; ``_id`` names the document id and does not become a field.
        ingest_fields: paths kept under their own last name; they win over `field_map`, as in the reference.
        vectors: the index's vector fields, so that a wrong one is rejected before it is sent.

    Raises:
        ConfigError: a path cannot be read, or nothing is mapped.
    """

    def __init__(
        self,
        field_map: Mapping[str, Any],
        ingest_fields: Sequence[str] = (),
        *,
        vectors: Sequence[VectorField] = (),
    ) -> None:
        paths = {name: one_source_path(name, path) for name, path in field_map.items()}
        paths |= {last_name(path): one_source_path("ingest_fields", path) for path in ingest_fields}
        self._read = _Row(paths)
        self._id_at = list(paths).index(ID_FIELD) if ID_FIELD in paths else None
        self._dimensions = {vector.name: vector.dimension for vector in vectors}
        self.fields = [name for name in paths if name != ID_FIELD]
        self._mapped_vectors = [name for name in self.fields if name in self._dimensions]
        if not self.fields:
            raise ConfigError("field_map maps no field; give at least one beside _id")
        opened = [b"%b%b:" % (b"," if n else b"{", msgspec.json.encode(name)) for n, name in enumerate(self.fields)]
        self._openings = list(zip(self.fields, opened, strict=True))

    def document(self, row: bytes) -> Document:
        """Map one row.

        Raises:
            RecordRejected: the row is no JSON object, its id cannot be one, or a vector does not fit the index.
        """
        values = self._read.values(row)
        identity = None
        if self._id_at is not None:
            identity = document_id(values.pop(self._id_at))
        nulls = empty = 0
        pieces: list[bytes] = []
        for (name, opening), value in zip(self._openings, values, strict=True):
            if value is None:
                nulls += 1
            if name in self._dimensions:
                if value in (None, b"null"):
                    empty += 1
                else:
                    check_vector(name, value or b"", self._dimensions[name])
            pieces += (opening, value if value is not None else b"null")
        if empty and empty == len(self._mapped_vectors):
            raise VectorRejected(f"no prediction: {', '.join(self._mapped_vectors)} is missing or null")
        pieces.append(b"}")
        return Document(identity, b"".join(pieces), nulls)


class _Row:
    """Reads all mapped values of a row in one pass over its top level."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        plain = {name: steps for name, path in paths.items() if (steps := _plain_steps(path))}
        tops = list(dict.fromkeys(str(steps[0]) for steps in plain.values()))
        struct = msgspec.defstruct(
            "Row",
            [(f"f{n}", msgspec.Raw, msgspec.Raw()) for n in range(len(tops))],
            rename={f"f{n}": top for n, top in enumerate(tops)},
        )
        self._decode = msgspec.json.Decoder(struct).decode
        self._values: list[Callable[[Any, bytes], bytes | None]] = []
        for name, path in paths.items():
            steps = plain.get(name)
            if steps is None:
                self._values.append(_general(name, path))
            else:
                self._values.append(_from_struct(f"f{tops.index(str(steps[0]))}", [_slicer(s) for s in steps[1:]]))

    def values(self, row: bytes) -> list[bytes | None]:
        check_text(row)
        try:
            tops = self._decode(row)
        except msgspec.ValidationError:
            raise RecordRejected("the row is JSON, but no object") from None
        except msgspec.DecodeError as error:
            raise RecordRejected(f"not JSON: {error}") from None
        return [value(tops, row) for value in self._values]


def check_text(row: bytes) -> bytes:
    """Return the row; raise RecordRejected unless it is UTF-8 (which the slicing decoder does not look at)."""
    if not row.isascii():
        try:
            row.decode()
        except UnicodeDecodeError as error:
            raise RecordRejected(f"not UTF-8 at byte {error.start}") from None
    return row


def check_json(row: bytes) -> bytes:
    """Return the row; raise RecordRejected unless it is one JSON value (RFC 8259)."""
    try:
        msgspec.json.decode(check_text(row), type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise RecordRejected(f"not JSON: {error}") from None
    return row


def document_id(value: bytes | None) -> str:
    """Return the document id a JSON value stands for: a string's characters, any other scalar's text.

    Raises:
        RecordRejected: absent, null, empty, longer than OpenSearch takes, or an array or object.
    """
    if value is None or value == b"null":
        raise RecordRejected("the id is missing or null")
    if value[:1] in b"[{":
        raise RecordRejected("the id is an array or object; map one string or number")
    try:
        text = msgspec.json.decode(value, type=str) if value[:1] == b'"' else value.decode()
    except msgspec.DecodeError as error:
        raise RecordRejected(f"the id is no text: {error}") from None
    size = len(text.encode())
    if not 0 < size <= MAX_ID_BYTES:
        raise RecordRejected(f"the id has {size} bytes; OpenSearch takes 1 to {MAX_ID_BYTES}")
    return text


def check_vector(name: str, value: bytes, dimension: int) -> None:
    """Raise VectorRejected unless the value is a flat array of `dimension` numbers."""
    if value[:1] != b"[" or value.count(b"[") != 1 or b'"' in value or b"{" in value:
        raise VectorRejected(f"{name} is no flat array of numbers")
    found = value.count(b",") + 1 if value.strip(b"[] \t") else 0
    if found != dimension:
        raise VectorRejected(f"{name} has {found} values; the index takes {dimension}")


def one_source_path(name: str, path: object) -> str:
    """Return the path of a map with one source, without its optional ``source[0].`` prefix.

    Raises:
        ConfigError: it is no text, or names a source that is not there.
    """
    if not isinstance(path, str) or not path:
        raise ConfigError(f"field_map.{name}: expected a path like $.text, got {path!r}")
    prefix = _SOURCE.match(path)
    if prefix is None:
        return path
    if int(prefix[1]) > 0:
        raise ConfigError(f"field_map.{name}: no source[{prefix[1]}]; there is 1 source. Did you mean source[0]?")
    return path[prefix.end() :]


def last_name(path: str) -> str:
    """Return the name an ``ingest_fields`` path is kept under: the text after its last dot, as in the reference."""
    return path.rpartition(".")[2]


def _plain_steps(path: str) -> tuple[str | int, ...] | None:
    """Return the steps of a path that starts with a name, None for one that needs jsonpath-ng."""
    try:
        steps = PlainPath.parse(path).steps
    except ConfigError:
        return None
    return steps if steps and isinstance(steps[0], str) else None


def _from_struct(attribute: str, slices: list[Callable[[bytes], bytes | None]]) -> Callable[[Any, bytes], bytes | None]:
    def value(tops: Any, row: bytes) -> bytes | None:  # noqa: ANN401, ARG001 - a struct made at run time; one signature
        found: bytes | None = bytes(getattr(tops, attribute)) or None
        for cut in slices:
            if found is None:
                return None
            found = cut(found)
        return found

    return value


def _slicer(step: str | int) -> Callable[[bytes], bytes | None]:
    return _index_slicer(step) if isinstance(step, int) else _name_slicer(step)


def _name_slicer(name: str) -> Callable[[bytes], bytes | None]:
    struct = msgspec.defstruct("Step", [("value", msgspec.Raw, msgspec.Raw())], rename={"value": name})
    decode = msgspec.json.Decoder(struct).decode

    def cut(text: bytes) -> bytes | None:
        try:
            return bytes(getattr(decode(text), "value")) or None  # noqa: B009 - a struct made at run time
        except msgspec.ValidationError:
            return None
        except msgspec.DecodeError as error:
            raise RecordRejected(f"not JSON: {error}") from None

    return cut


def _index_slicer(index: int) -> Callable[[bytes], bytes | None]:
    decode = msgspec.json.Decoder(list[msgspec.Raw]).decode

    def cut(text: bytes) -> bytes | None:
        try:
            items = decode(text)
        except msgspec.ValidationError:
            return None
        except msgspec.DecodeError as error:
            raise RecordRejected(f"not JSON: {error}") from None
        return bytes(items[index]) if -len(items) <= index < len(items) else None

    return cut


def _general(name: str, path: str) -> Callable[[Any, bytes], bytes | None]:
    """Read a path with wildcards, slices or filters: always a list of what matched, as in the reference."""
    from jsonpath_ng.exceptions import JSONPathError
    from jsonpath_ng.ext.parser import parse

    try:
        compiled = parse(path)
    except JSONPathError as error:
        raise ConfigError(f"field_map.{name}: {path!r} is no JSONPath ({error})") from error
    decode = msgspec.json.Decoder(float_hook=_NumberText).decode

    def value(tops: Any, row: bytes) -> bytes | None:  # noqa: ANN401, ARG001 - as in _from_struct
        found = [match.value for match in compiled.find(decode(row))]
        return msgspec.json.encode(found, enc_hook=_NumberText.raw)

    return value


class _NumberText(float):
    """A float that remembers how it was written, so that filters can compare it and the index gets its own text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __new__(cls, text: str) -> Self:
        return super().__new__(cls, text)

    @staticmethod
    def raw(value: object) -> msgspec.Raw:
        """Encode a number as it was written."""
        if isinstance(value, _NumberText):
            return msgspec.Raw(value.text.encode())
        raise NotImplementedError(type(value).__name__)
