"""Maps values of source rows to fields of a document. A field map is compiled once, and values are copied as bytes.

The syntax is that of ML Commons' asynchronous batch ingestion: ``{"field": "$.path", "_id": "$.path"}``. With several
sources, paths have the form ``source[N].$.path``, and ``_id`` is a list of paths. Each path in ``ingest_fields`` is
mapped to the field that its last name names: ``$.a.b`` to ``b``; ``$.*`` copies all members of a record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.formats.json_text import TOO_DEEP, encode_number_text, number_text_decoder
from opensearch_batch.core.transform.json_path import CheckedValues, RowReader, Text, Values
from opensearch_batch.core.transform.map_paths import (
    ALL_MEMBERS,
    HIT_ID,
    HIT_ROUTING,
    ID_FIELD,
    SourcePath,
    id_path_of_each_source,
    is_optional_routing,
    last_name,
    paths_of,
)
from opensearch_batch.core.transform.vectors import VectorRejected, vector_check
from opensearch_batch.core.types.vector_field import VectorField

MAX_ID_BYTES = 512
OnMissing = Literal["null", "omit", "dead_letter"]
ANY_FIELD = "*"
# Most ids need no decoding: characters of ASCII without escapes.
_PLAIN_ID = re.compile(rb'"[ !#-\[\]-~]{1,%d}"' % MAX_ID_BYTES)
_decode_text = msgspec.json.Decoder(str).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
# The name of the path of all members, whose value is the whole record.
WHOLE_RECORD = f"ingest_fields.{ALL_MEMBERS}"


class Document(msgspec.Struct, frozen=True, gc=False):
    """One mapped document: its ``_source`` in pieces, the number of absent mapped fields, and its routing."""

    pieces: tuple[Text, ...]
    nulls: int
    routing: str | None = None

    @property
    def source(self) -> bytes:
        """The ``_source`` as one string. Writers join the pieces themselves, so that a vector is copied only once."""
        return b"".join(self.pieces)


class Part(msgspec.Struct, frozen=True, gc=False):
    """The values that one row of one source contributes to a document."""

    source: int
    values: Values


class FieldMap:
    """A compiled field map, with the path of each field; ``_id`` is the document id (one path, or one for each source).

    The last names of `ingest_fields` name their fields; as in ML Commons, they override `field_map`. Rows of several
    sources are joined by ``_id``. Documents with values that do not fit the `vectors` of the index are rejected before
    sending. `on_missing` has the policy by field name; ``*`` sets the default (``null`` if not set). The field ``*``
    with the path ``$.*`` copies all members of the record that no other field names, except those in `omitted`.
    ConfigError is raised if a path is invalid or names a source that does not exist, or no field is mapped.
    """

    def __init__(
        self,
        field_map: Mapping[str, Any],
        ingest_fields: Sequence[str | None] = (),
        *,
        sources: int = 1,
        vectors: Sequence[VectorField] = (),
        on_missing: Mapping[str, OnMissing] | None = None,
        routing: str | None = None,
        omitted: Sequence[str] = (),
    ) -> None:
        self.sources = sources
        fields = {name: paths_of(f"field_map.{name}", path, sources) for name, path in field_map.items()}
        ids = fields.pop(ID_FIELD, [])
        locations = {name: f"field_map.{name}" for name in fields}
        for at, path in enumerate(ingest_fields):
            if path is not None:
                name, location = last_name(path), f"ingest_fields[{at}]"
                fields[name], locations[name] = paths_of(location, path, sources), location
        whole = _record_path(fields.pop(ALL_MEMBERS, []), sources)
        if not fields:
            raise ConfigError("field_map maps no field; map at least one in addition to _id")
        if not all(map(str.strip, fields)):
            raise ConfigError("field_map: a field name is empty; OpenSearch requires one")
        self.fields = list(fields)
        self.id_paths = id_path_of_each_source(ids, sources)
        policies = on_missing or {}
        self._missing = [policies.get(name, policies.get(ANY_FIELD, "null")) for name in self.fields]
        by_name = {vector.name: vector for vector in vectors}
        # By the name of the path of a field.
        self.vectors = {locations[name]: by_name[name] for name in self.fields if name in by_name}
        self._checks = [vector_check(by_name[name]) if name in by_name else None for name in self.fields]
        routing_paths = paths_of("routing", routing, sources) if routing is not None else []
        self._needs_routing = not is_optional_routing(routing)
        located_fields = [(locations[name], paths) for name, paths in fields.items()]
        self._compile(located_fields, routing_paths, whole)
        hit_members = map(last_name, (HIT_ID, HIT_ROUTING))
        self._omitted = {*omitted, *self.fields, *(hit_members if whole else ())}
        names = [msgspec.json.encode(name) for name in self.fields]
        self._heads = [(b"{%b:" % name, b",%b:" % name) for name in names]
        self._slot_of = [slots[0][1] for slots in self._slots]
        self._checked = [(at, check) for at, check in enumerate(self._checks) if check]
        # The pieces of a document without absent fields; `complete` replaces every second piece with a value.
        self._frame: list[Text] = [text for first, further in self._heads for text in (further, b"")] + [b"}"]
        self._frame[0] = self._heads[0][0]
        for source, paths in enumerate(self._paths_of):
            if not paths:
                raise ConfigError(
                    f"field_map: no field reads source[{source}]; map one (source[{source}].$.path) or drop the source"
                )

    @property
    def has_key(self) -> bool:
        """Whether each row has a join key (see `key`); only a map of one source may have none."""
        return self.id_paths != [None]

    @property
    def routes(self) -> bool:
        """Whether documents have a routing value."""
        return bool(self._routing_slots)

    def read(self, source: int, row: bytes) -> Values:
        """Return the mapped values of a row; raise RecordRejected if the row is not a JSON object."""
        return self._readers[source].values(row)

    def key(self, source: int, values: Values) -> str | None:
        """Return the id by which rows are joined, None without an id path; raise RecordRejected for an invalid id."""
        slot = self._id_slot_of.get(source)
        return None if slot is None else document_id(values[slot])

    def document(self, parts: Sequence[Part], *, partial: bool = False) -> Document:
        """Return the document that consists of the values of one row, or of all rows with the same key.

        If several sources have a value for a field, the values are merged in source order: objects are merged
        recursively, and any other value is overwritten. A `partial` document updates an existing one, whose other
        fields remain unchanged. Raise RecordRejected if a vector does not fit, or a required field is missing.
        """
        if self.sources == 1 and len(parts) == 1 and (whole := self.complete(parts[0].values)):
            return Document(whole, 0, self._routing(parts))
        nulls = 0
        pieces = self._members(parts)
        for position, ((first, further), check) in enumerate(zip(self._heads, self._checks, strict=True)):
            value, has_row = self._value(position, parts)
            text = bytes(value) if check and value is not None else None
            if value is None or text == b"null":
                if has_row or value is not None:
                    nulls += value is None
                    value = None if partial and value is None else self._replacement(position, value)
                if value is None:
                    continue
            elif check and text is not None:
                check(text)
            pieces += (further if pieces else first, value)
        pieces.append(b"}" if pieces else b"{}")
        return Document(tuple(pieces), nulls, self._routing(parts))

    def complete(self, values: Values) -> tuple[Text, ...] | None:
        """Return the pieces of a document without routing if one row of one source has every field, else None.

        Nearly all rows of a single source have every field, so this is the fast path. As `document`, raise
        RecordRejected if a vector does not fit.
        """
        texts = [values[slot] for slot in self._slot_of]
        if None in texts or self._whole_slot is not None:
            return None
        for position, check in () if type(values) is CheckedValues else self._checked:
            text = bytes(texts[position])  # type: ignore[arg-type] # no value is None
            if text == b"null":
                return None
            check(text)
        pieces = self._frame.copy()
        pieces[1::2] = texts  # type: ignore[assignment] # no value is None
        return tuple(pieces)

    def reads(self, source: int, name: str) -> bool:
        """Return whether a field reads the member `name` of a source's rows, or a value inside it."""
        start = re.compile(rf"(?:\$\.|\$\[['\"]|^){re.escape(name)}\b")
        return any(start.search(path) for path in self._paths_of[source])

    def _compile(
        self, fields: Sequence[tuple[str, list[SourcePath]]], routing: list[SourcePath], whole: list[SourcePath]
    ) -> None:
        """Create one reader per source, and assign each path a slot in the values of its source."""
        located: list[list[tuple[str, str]]] = [[] for _ in range(self.sources)]

        def slots_of(location: str, paths: list[SourcePath]) -> list[tuple[int, int]]:
            slots = []
            for path in paths:
                slots.append((path.source, len(located[path.source])))
                located[path.source].append((location, path.path))
            return slots

        self._slots = [slots_of(location, paths) for location, paths in fields]
        self.named_paths = located
        self._paths_of = [[path for _, path in pairs] for pairs in located]
        keys = [SourcePath(source, path) for source, path in enumerate(self.id_paths) if path is not None]
        self._id_slot_of = dict(slots_of(f"field_map.{ID_FIELD}", keys))
        self._routing_slots = slots_of("routing", routing)
        self._whole_slot = next((slot for _, slot in slots_of(WHOLE_RECORD, whole)), None)
        self._readers = [RowReader(pairs) for pairs in located]

    def _members(self, parts: Sequence[Part]) -> list[Text]:
        """Return the start of a document with the members of the record, if all of them are copied."""
        record = None if self._whole_slot is None else parts[0].values[self._whole_slot]
        if record is None:
            return []
        try:
            members = _decode_members(record)
        except msgspec.MsgspecError as error:
            raise RecordRejected(f"the record is not a JSON object: {error}") from None
        text = _encode({name: value for name, value in members.items() if name not in self._omitted})[:-1]
        return [text] if len(text) > 1 else []

    def _value(self, position: int, parts: Sequence[Part]) -> tuple[Text | None, bool]:
        """Return the value of a field, and whether any row is from a source that the field reads."""
        merged: Text | None = None
        has_row = False
        for part in parts:
            for source, slot in self._slots[position]:
                if source == part.source:
                    has_row = True
                    value = part.values[slot]
                    if value is not None:
                        merged = value if merged is None else merge(bytes(merged), bytes(value))
        return merged, has_row

    def _replacement(self, position: int, value: Text | None) -> bytes | None:
        """Return the value to index for a missing one, None to omit it; raise RecordRejected if it is required."""
        policy = self._missing[position]
        if policy == "dead_letter":
            if self._checks[position]:
                raise VectorRejected(f"no prediction: {self.fields[position]} is missing or null")
            raise RecordRejected(f"{self.fields[position]} is missing")
        if policy == "omit" and value is None:
            return None
        return b"null"

    def _routing(self, parts: Sequence[Part]) -> str | None:
        if not self._routing_slots:
            return None
        value = _first(parts, self._routing_slots)
        if value is None and not self._needs_routing:
            return None
        if value is None:
            raise RecordRejected("the routing value is missing")
        return document_id(value, what="routing value")


def _record_path(paths: list[SourcePath], sources: int) -> list[SourcePath]:
    """Return the path of the record whose members are copied, none if they are not."""
    for path in paths:
        if sources > 1 or not path.path.endswith(f".{ALL_MEMBERS}"):
            raise ConfigError(
                f"field_map.{ALL_MEMBERS}: expected $.{ALL_MEMBERS}, all members of the record of the only source, "
                f"got {path.path!r}"
            )
    return [SourcePath(path.source, path.path.removesuffix(f".{ALL_MEMBERS}")) for path in paths]


def _first(parts: Sequence[Part], slots: Sequence[tuple[int, int]]) -> Text | None:
    """Return the first value in one of the slots, or None if all slots are empty."""
    for part in parts:
        for source, slot in slots:
            if source == part.source and part.values[slot] is not None:
                return part.values[slot]
    return None


def document_id(json_text: Text | None, *, what: str = "id") -> str:
    """Convert a JSON string or scalar to a document id; raise RecordRejected for any other, empty or too long value."""
    value = b"null" if json_text is None else bytes(json_text)
    if value == b"null":
        raise RecordRejected(f"the {what} is missing or null")
    first = value[:1]
    if _PLAIN_ID.fullmatch(value):
        return value[1:-1].decode()
    if first in b"[{":
        raise RecordRejected(f"the {what} is an array or object; map one string or number")
    try:
        text = _decode_text(value) if first == b'"' else value.decode()
        size = len(text) if text.isascii() else len(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise RecordRejected(f"the {what} is not valid text: {error}") from None
    if not 0 < size <= MAX_ID_BYTES:
        raise RecordRejected(f"the {what} has {size} bytes; OpenSearch accepts 1 to {MAX_ID_BYTES}")
    return text


def merge(older: bytes, newer: bytes) -> bytes:
    """Merge two JSON values, as OpenSearch merges a partial document into a document.

    Objects are merged member by member; any other newer value replaces the older value. Raise RecordRejected for values
    that are nested too deeply, or contain a number with too many digits.
    """
    if older.lstrip()[:1] != b"{" or newer.lstrip()[:1] != b"{":
        return newer
    decode = number_text_decoder().decode
    try:
        return encode_number_text(_merge_members(decode(older), decode(newer)))
    except RecursionError:
        raise RecordRejected(TOO_DEEP) from None
    except msgspec.DecodeError as error:
        raise RecordRejected(f"the values of several rows cannot be merged: {error}") from None


def _merge_members(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    merged = dict(older)
    for name, value in newer.items():
        before = merged.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = _merge_members(before, value) if both else value  # type: ignore[arg-type]
    return merged
