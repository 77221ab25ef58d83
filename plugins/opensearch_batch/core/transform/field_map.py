"""A field map says which value of which source becomes which field; it is compiled once and moves bytes.

The language is the one of ML Commons' asynchronous batch ingestion: ``{"field": "$.path", "_id": "$.path"}``, with
several sources ``source[N].$.path`` and a list of paths for ``_id``, and ``ingest_fields``, kept under their last name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.transform.json_path import TOO_DEEP, RowReader, Text, Values, encode_kept, keep_number_text
from opensearch_batch.core.transform.vectors import VectorRejected, vector_check
from opensearch_batch.core.types.vector_field import VectorField

ID_FIELD = "_id"
MAX_ID_BYTES = 512
OnMissing = Literal["null", "omit", "dead_letter"]
ANY_FIELD = "*"
_decode_text = msgspec.json.Decoder(str).decode
_SOURCE = re.compile(r"\s*source\[(\d+)\]\.?(?=[$])")
_SOURCE_WITHOUT_ROOT = re.compile(r"\s*source\[(\d+)\]\.?(?P<rest>.+)")
# Whatever stands before a path's root, but within no quotes and no filter: a source[N] with a slip of the pen.
_BEFORE_ROOT = re.compile(r"[^$'\"(?]+(?=\$[.\[])")


class Document(msgspec.Struct, frozen=True, gc=False):
    """One mapped document: its ``_source`` in pieces, how many mapped fields it lacked, and its routing."""

    pieces: tuple[Text, ...]
    nulls: int
    routing: str | None = None

    @property
    def source(self) -> bytes:
        """The ``_source``; who writes it elsewhere joins the pieces there, and copies a vector once."""
        return b"".join(self.pieces)


class SourcePath(msgspec.Struct, frozen=True):
    """A path and the source it reads."""

    source: int
    path: str


class Part(msgspec.Struct, frozen=True, gc=False):
    """What one row of one source gives to a document."""

    source: int
    values: Values


class FieldMap:
    """A compiled field map.

    Args:
        field_map: field name -> path; ``_id`` names the document id (one path, or one for each source) and is no field.
        ingest_fields: paths kept under their own last name; they win over `field_map`, as in the reference.
        sources: how many sources the request has. Several are joined by ``_id``.
        vectors: the index's vector fields, so that a wrong one is rejected before it is sent.
        on_missing: what a mapped path that a row lacks does, for each field name and ``*``; ``null`` where unsaid.
        routing: path of the value that routes the document.
        joined_by: the path in each source by which rows find one another, where that is not the document's id; ``_id``
            may then be read from any source.

    Raises:
        ConfigError: a path cannot be read, names a source that is not there, or nothing is mapped.
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
        joined_by: Sequence[str] = (),
    ) -> None:
        self.sources = sources
        fields = {name: _paths(f"field_map.{name}", path, sources) for name, path in field_map.items()}
        ids = fields.pop(ID_FIELD, [])
        places = {name: f"field_map.{name}" for name in fields}
        for at, path in enumerate(ingest_fields):
            if path is not None:
                name, place = last_name(path), f"ingest_fields[{at}]"
                fields[name], places[name] = _paths(place, path, sources), place
        if not fields:
            raise ConfigError("field_map maps no field; give at least one beside _id")
        if not all(map(str.strip, fields)):
            raise ConfigError("field_map: a field has no name; OpenSearch takes none without one")
        self.fields = list(fields)
        self.id_paths: list[str | None] = list(joined_by) or _one_id_path_each(ids, sources)
        self._joined_by = bool(joined_by)
        self._names = ids if joined_by else []
        policies = on_missing or {}
        self._missing = [policies.get(name, policies.get(ANY_FIELD, "null")) for name in self.fields]
        by_name = {vector.name: vector for vector in vectors}
        self._checks = [vector_check(by_name[name]) if name in by_name else None for name in self.fields]
        self._routes = _paths("routing", routing, sources) if routing is not None else []
        self._compile(list(fields.values()), list(places.values()))
        names = [msgspec.json.encode(name) for name in self.fields]
        self._heads = [(b"{%b:" % name, b",%b:" % name) for name in names]
        self._slot_of = [slots[0][1] for slots in self._slots]
        self._checked = [(at, check) for at, check in enumerate(self._checks) if check]
        # What stands around the values of a document that lacks none: a value's place is every second one.
        self._frame: list[Text] = [text for first, further in self._heads for text in (further, b"")] + [b"}"]
        self._frame[0] = self._heads[0][0]
        if not joined_by:
            self._refuse_idle_sources()

    @property
    def joins(self) -> bool:
        """Whether rows find one another by an id; a map of one source may name none."""
        return self.id_paths != [None]

    def read(self, source: int, row: bytes) -> Values:
        """Return the values a row of a source gives.

        Raises:
            RecordRejected: the row is no JSON object.
        """
        return self._readers[source].values(row)

    def key(self, source: int, values: Values) -> str | None:
        """Return what a row is joined by: the document's id unless the map says else; None when it names none.

        Raises:
            RecordRejected: the id is missing or cannot be one.
        """
        at = self._id_at[source]
        return None if at is None else document_id(values[at])

    def document(self, parts: Sequence[Part], *, partial: bool = False) -> Document:
        """Make the document of all rows of one key (or of one row).

        A field that several sources give is merged in their order: objects deeply, anything else overwrites.

        Args:
            parts: what the rows give.
            partial: it is merged into a document that is there: what the rows lack is left as it is.

        Raises:
            RecordRejected: a vector does not fit the index, or a field is missing that must not.
        """
        if self.sources == 1 and len(parts) == 1 and (whole := self._whole(parts[0].values)):
            return Document(whole, 0, self._routing(parts))
        nulls = 0
        pieces: list[Text] = []
        for at, ((first, further), check) in enumerate(zip(self._heads, self._checks, strict=True)):
            value, given = self._value(at, parts)
            text = bytes(value) if check and value is not None else None
            if value is None or text == b"null":
                if given or value is not None:
                    nulls += value is None
                    value = None if partial and value is None else self._of_missing(at, value)
                if value is None:
                    continue
            elif check and text is not None:
                check(text)
            pieces += (further if pieces else first, value)
        pieces.append(b"}" if pieces else b"{}")
        return Document(tuple(pieces), nulls, self._routing(parts))

    def id_of(self, parts: Sequence[Part], key: str) -> str | None:
        """Return the document's id: `key`, unless rows are joined by something else; None when the map names none.

        Raises:
            RecordRejected: the id is missing or cannot be one.
        """
        if not self._name_slots:
            return None if self._joined_by else key
        return document_id(_first(parts, self._name_slots))

    def _whole(self, values: Values) -> tuple[Text, ...] | None:
        """Return the pieces of the document of a row that alone gives every field, None when it does not.

        Nearly all rows of one source do; nobody has to search there for who gives what.

        Raises:
            RecordRejected: a vector does not fit the index.
        """
        given = [values[slot] for slot in self._slot_of]
        if None in given:
            return None
        for at, check in self._checked:
            text = bytes(given[at])  # type: ignore[arg-type] # none is None
            if text == b"null":
                return None
            check(text)
        pieces = self._frame.copy()
        pieces[1::2] = given  # type: ignore[assignment] # none is None
        return tuple(pieces)

    def reads(self, source: int, name: str) -> bool:
        """Say whether some field reads below the member `name` of a source's rows."""
        start = re.compile(rf"(?:\$\.|\$\[['\"]|^){re.escape(name)}\b")
        return any(start.search(path) for path in self._paths_of[source])

    def _compile(self, fields: list[list[SourcePath]], places: list[str]) -> None:
        """Give each source a reader of all its paths, and each field the slots its values arrive in."""
        named: list[list[tuple[str, str]]] = [[] for _ in range(self.sources)]
        self._slots: list[list[tuple[int, int]]] = []
        for place, paths in zip(places, fields, strict=True):
            slots = []
            for path in paths:
                slots.append((path.source, len(named[path.source])))
                named[path.source].append((place, path.path))
            self._slots.append(slots)
        self._paths_of = [[path for _, path in mapped] for mapped in named]
        self._id_at: list[int | None] = []
        for source, id_path in enumerate(self.id_paths):
            self._id_at.append(None if id_path is None else len(named[source]))
            if id_path is not None:
                named[source].append((f"field_map.{ID_FIELD}", id_path))
        self._route_slots = _slots_of("routing", self._routes, named)
        self._name_slots = _slots_of(f"field_map.{ID_FIELD}", self._names, named)
        self._readers = [RowReader(paths) for paths in named]

    def _refuse_idle_sources(self) -> None:
        for source, paths in enumerate(self._paths_of):
            if not paths:
                raise ConfigError(
                    f"field_map: no field reads source[{source}]; map one (source[{source}].$.path) or leave it out"
                )

    def _value(self, at: int, parts: Sequence[Part]) -> tuple[Text | None, bool]:
        """Return a field's value, and whether a row of a source that should give it was there."""
        found: Text | None = None
        given = False
        for part in parts:
            for source, slot in self._slots[at]:
                if source == part.source:
                    given = True
                    value = part.values[slot]
                    if value is not None:
                        found = value if found is None else merge(bytes(found), bytes(value))
        return found, given

    def _of_missing(self, at: int, value: Text | None) -> bytes | None:
        """Return what stands in the document for a value that is missing, None for nothing."""
        policy = self._missing[at]
        if policy == "dead_letter":
            if self._checks[at]:
                raise VectorRejected(f"no prediction: {self.fields[at]} is missing or null")
            raise RecordRejected(f"{self.fields[at]} is missing")
        if policy == "omit" and value is None:
            return None
        return b"null"

    def _routing(self, parts: Sequence[Part]) -> str | None:
        if not self._route_slots:
            return None
        value = _first(parts, self._route_slots)
        if value is None:
            raise RecordRejected("the routing value is missing")
        return document_id(value, what="routing value")


def _slots_of(place: str, paths: Sequence[SourcePath], named: list[list[tuple[str, str]]]) -> list[tuple[int, int]]:
    """Give each path a slot beside those of the fields."""
    slots = []
    for path in paths:
        slots.append((path.source, len(named[path.source])))
        named[path.source].append((place, path.path))
    return slots


def _first(parts: Sequence[Part], slots: Sequence[tuple[int, int]]) -> Text | None:
    """Return the first value that a part gives for one of the slots."""
    for part in parts:
        for source, slot in slots:
            if source == part.source and part.values[slot] is not None:
                return part.values[slot]
    return None


def document_id(given: Text | None, *, what: str = "id") -> str:
    """Return the document id a JSON value stands for: a string's characters, any other scalar's text.

    Raises:
        RecordRejected: absent, null, empty, longer than OpenSearch takes, or an array or object.
    """
    value = b"null" if given is None else bytes(given)
    if value == b"null":
        raise RecordRejected(f"the {what} is missing or null")
    first = value[:1]
    if first in b"[{":
        raise RecordRejected(f"the {what} is an array or object; map one string or number")
    try:
        text = _decode_text(value) if first == b'"' else value.decode()
        size = len(text) if text.isascii() else len(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise RecordRejected(f"the {what} is no text: {error}") from None
    if not 0 < size <= MAX_ID_BYTES:
        raise RecordRejected(f"the {what} has {size} bytes; OpenSearch takes 1 to {MAX_ID_BYTES}")
    return text


def merge(older: bytes, newer: bytes) -> bytes:
    """Merge two JSON texts as OpenSearch merges a partial document: objects member by member, else the newer one.

    Raises:
        RecordRejected: they are nested too deeply.
    """
    if older.lstrip()[:1] != b"{" or newer.lstrip()[:1] != b"{":
        return newer
    decode = keep_number_text().decode
    try:
        return encode_kept(_merge_members(decode(older), decode(newer)))
    except RecursionError:
        raise RecordRejected(TOO_DEEP) from None


def _merge_members(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    merged = dict(older)
    for name, value in newer.items():
        before = merged.get(name)
        both = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = _merge_members(before, value) if both else value  # type: ignore[arg-type]
    return merged


def last_name(path: str) -> str:
    """Return the name an ``ingest_fields`` path is kept under: the text after its last dot, as in the reference."""
    return path.rpartition(".")[2]


def _paths(place: str, paths: object, sources: int) -> list[SourcePath]:
    """Return the paths of a field; of several for one source the last one counts, as in the reference."""
    listed = paths if isinstance(paths, list) and paths else [paths]
    last = {path.source: path for path in (_path(place, path, sources) for path in listed)}
    return [last[source] for source in sorted(last)]


def _path(place: str, path: object, sources: int) -> SourcePath:
    """Return a path and its source.

    Raises:
        ConfigError: it is no text, names a source that is not there, or none where there are several.
    """
    if not isinstance(path, str) or not path.strip():
        raise ConfigError(f"{place}: expected a path like $.text, got {path!r}")
    prefix = _SOURCE.match(path)
    if prefix is None:
        if loose := _SOURCE_WITHOUT_ROOT.match(path):
            hint = f"source[{loose[1]}].$.{loose['rest'].lstrip('.')}"
            raise ConfigError(f"{place}: {path!r} has no $ after its source; write {hint}")
        if before := _BEFORE_ROOT.match(path.lstrip()):
            hint = f"source[0].{path.lstrip()[before.end() :]}"
            raise ConfigError(f"{place}: {before[0]!r} before the $ is no source; write {hint}")
        if sources > 1:
            raise ConfigError(
                f"{place}: {path!r} does not say which of the {sources} sources it reads; write source[0].{path}"
            )
        return SourcePath(0, path.strip())
    source = int(prefix[1])
    if source >= sources:
        there = "1 source" if sources == 1 else f"{sources} sources"
        raise ConfigError(f"{place}: no source[{source}]; there is {there}. Did you mean source[{sources - 1}]?")
    return SourcePath(source, path[prefix.end() :])


def _one_id_path_each(ids: list[SourcePath], sources: int) -> list[str | None]:
    """Return each source's id path; a source without one uses the path that all others share.

    Raises:
        ConfigError: several sources, and one of them cannot be joined.
    """
    by_source = {path.source: path.path for path in ids}
    if sources == 1:
        return [by_source.get(0)]
    shared = set(by_source.values())
    for source in range(sources):
        if source not in by_source and len(shared) != 1:
            found = "different paths" if shared else "no path at all"
            raise ConfigError(
                f"field_map.{ID_FIELD}: source[{source}] has no id path and the others give {found}; "
                f'add one, like "source[{source}].$.custom_id", so that its rows find their documents'
            )
    return [by_source.get(source) or next(iter(shared)) for source in range(sources)]
