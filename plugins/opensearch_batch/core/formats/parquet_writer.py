"""Writes events as a Parquet file, with an Avro schema or a schema that is inferred from the events.

An event that does not fit the schema is rejected. Events are buffered as JSON until the file is closed, so that an
inferred schema covers all events. Data Prepper infers the schema from the first event, and fails if that event contains
a null.
Source: Data Prepper's ParquetOutputCodec and AvroAutoSchemaGenerator (2.17).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import IO, Any

import msgspec

from opensearch_batch.core.config.option_types import CheckedOptions, Rule
from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.formats.json_text import TOO_DEEP, on_one_line
from opensearch_batch.core.formats.parquet import PARQUET_ROWS
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.object_info import OutputCompression

SPOOL_BYTES = 256 << 10
_PRIMITIVES = {
    "boolean": "bool_",
    "int": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
}
_TIMESTAMPS = {"timestamp-millis": "ms", "timestamp-micros": "us"}
_KIND_NAMES: Mapping[type, str | None] = {
    type(None): None,
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
}
# The bounds of 64-bit integers, and of integers that a double represents exactly.
_LONG, _EXACT = 1 << 63, 1 << 53
# An inferred type: the name of a scalar type, a tuple with the element type of a list, a mapping with the member types
# of an object, or None for null.
Kind = str | tuple[Any] | Mapping[str, Any] | None
# "long" is an integer beyond 2^53, which a double may not represent exactly, so it has no common kind with "number".
_WIDER = {("integer", "long"): "long", ("integer", "number"): "number"}


class ParquetEncoding(CheckedOptions, frozen=True, kw_only=True):
    """Writes Parquet. Without an Avro schema, a file has a column for every member that occurs in its events."""

    extension = "parquet"

    schema: str | None = None
    auto_schema: bool = False

    def rules(self) -> Iterator[Rule]:
        if (self.schema is not None) == self.auto_schema:
            yield (), "set exactly one of schema and auto_schema: true"
        if self.schema is not None:
            yield ("schema",), lambda: arrow_schema_of_avro(self.schema or "")

    def open(self, file: IO[bytes], compression: OutputCompression) -> ParquetFile:
        return ParquetFile(file, compression, self)


class ParquetFile:
    """Writes events as one Parquet file."""

    def __init__(self, file: IO[bytes], compression: OutputCompression, encoding: ParquetEncoding) -> None:
        self._file, self._compression = file, compression
        self._schema = None if encoding.schema is None else arrow_schema_of_avro(encoding.schema)
        self._kind: Kind = None
        self._events = Spool(SPOOL_BYTES)

    @property
    def buffered_bytes(self) -> int:
        """The size of the buffered events as JSON."""
        return self._events.tell()

    def add(self, event: bytes) -> None:
        """Add an event; raise RecordRejected if it does not fit the schema, or the types of earlier events."""
        try:
            row = msgspec.json.decode(event, type=dict[str, Any])
            if self._schema is None:
                self._kind = _common_kind(self._kind, _kind_of(row, "event"), "event")
            else:
                _check_row(row, self._schema)
        except msgspec.DecodeError as error:
            raise RecordRejected(f"not a JSON object: {error}") from None
        except RecursionError:
            raise RecordRejected(TOO_DEEP) from None
        self._events.write(on_one_line(event) + b"\n")

    def close(self) -> None:
        """Write the buffered events as a table."""
        import pyarrow as pa
        from pyarrow import parquet

        schema = pa.schema(list(_arrow_type(self._kind or {}))) if self._schema is None else self._schema
        self._events.seek(0)
        with parquet.ParquetWriter(self._file, schema, compression=self._compression) as table:
            while rows := [msgspec.json.decode(line) for line in islice(self._events, PARQUET_ROWS)]:
                table.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
        self._events.close()

    def discard(self) -> None:
        self._events.close()


def arrow_schema_of_avro(text: str) -> Any:  # noqa: ANN401 - pyarrow ships no types
    """Return the Arrow schema for an Avro schema; raise ConfigError if it is invalid or has an unsupported type."""
    import pyarrow as pa

    try:
        record = msgspec.json.decode(text)
        if not isinstance(record, dict) or record.get("type") != "record":
            raise ConfigError("codec parquet: schema: give an Avro schema of type record")
        return pa.schema(list(_fields_of_avro(record)))
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"codec parquet: schema: not an Avro schema ({type(error).__name__}: {error})") from error


def _fields_of_avro(record: Mapping[str, Any]) -> Iterator[Any]:
    import pyarrow as pa

    for field in record["fields"]:
        arrow_type, nullable = _type_of_avro(field["type"], field["name"])
        yield pa.field(field["name"], arrow_type, nullable=nullable)


def _type_of_avro(avro: Any, name: str) -> tuple[Any, bool]:  # noqa: ANN401 - JSON, and a pyarrow type
    """Return the type of a column, and whether it may be null."""
    if isinstance(avro, list):
        others = [branch for branch in avro if branch != "null"]
        if len(others) == 1:
            arrow_type, nullable = _type_of_avro(others[0], name)
            return arrow_type, nullable or len(avro) > 1
    elif (arrow_type := _value_type_of_avro(avro, name)) is not None:
        return arrow_type, False
    raise ConfigError(
        f"codec parquet: schema: {name} has the type {msgspec.json.encode(avro).decode()}, which is not supported; "
        "use a record, array, enum, string, int, long, float, double, boolean, date, timestamp-millis or "
        "timestamp-micros, or a union of one of these with null"
    )


def _value_type_of_avro(avro: Any, name: str) -> Any:  # noqa: ANN401 - as above
    """Return the type of a column that is not a union, or None if the type is not supported."""
    import pyarrow as pa

    type_name, logical = (avro.get("type"), avro.get("logicalType")) if isinstance(avro, dict) else (avro, None)
    match type_name, logical:
        case str(), None if type_name in _PRIMITIVES:
            return getattr(pa, _PRIMITIVES[type_name])()
        case "array", None:
            arrow_type, nullable = _type_of_avro(avro["items"], name)
            return pa.list_(pa.field("element", arrow_type, nullable=nullable))
        case "record", None:
            return pa.struct(list(_fields_of_avro(avro)))
        case "int", "date":
            return pa.date32()
        case "long", str() if logical in _TIMESTAMPS:
            return pa.timestamp(_TIMESTAMPS[logical], tz="UTC")
    return pa.string() if type_name == "enum" else None


def _check_row(row: dict[str, Any], schema: Any) -> None:  # noqa: ANN401 - as above
    import pyarrow as pa

    arrow_type = pa.struct(list(schema))
    try:
        pa.array([row], type=arrow_type)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise RecordRejected(f"codec parquet: the event does not fit the schema: {error}") from None
    _check_nulls(row, arrow_type, "")


def _check_nulls(value: Any, arrow_type: Any, name: str) -> None:  # noqa: ANN401 - as above
    import pyarrow as pa

    if pa.types.is_struct(arrow_type):
        for field in arrow_type:
            inner = value.get(field.name)
            if inner is not None:
                _check_nulls(inner, field.type, f"{name}/{field.name}")
            elif not field.nullable:
                raise RecordRejected(f"codec parquet: the schema requires a value at {name}/{field.name}")
    elif pa.types.is_list(arrow_type):
        for inner in value:
            if inner is not None:
                _check_nulls(inner, arrow_type.value_type, name)
            elif not arrow_type.value_field.nullable:
                raise RecordRejected(f"codec parquet: the schema allows no null in {name}")


def _kind_of(value: Any, name: str) -> Kind:  # noqa: ANN401 - any JSON
    if isinstance(value, list):
        element: Kind = None
        for inner in value:
            element = _common_kind(element, _kind_of(inner, name), name)
        return (element,)
    if isinstance(value, dict):
        if not value:
            raise RecordRejected(f"codec parquet: {name} is an object without members, which Parquet cannot store")
        return {key: _kind_of(inner, f"{name}/{key}") for key, inner in value.items()}
    kind = _KIND_NAMES[type(value)]
    if kind == "integer" and not -_LONG <= value < _LONG:
        raise RecordRejected(f"codec parquet: {name} is an integer of more than 64 bits")
    return "long" if kind == "integer" and abs(value) > _EXACT else kind


def _common_kind(earlier: Kind, later: Kind, name: str) -> Kind:
    """Return the kind that can represent the values of both kinds; raise RecordRejected if there is no such kind."""
    if earlier is None or later is None or earlier == later:
        return later if earlier is None else earlier
    if isinstance(earlier, Mapping) and isinstance(later, Mapping):
        keys = {**earlier, **later}
        return {key: _common_kind(earlier.get(key), later.get(key), f"{name}/{key}") for key in keys}
    if isinstance(earlier, tuple) and isinstance(later, tuple):
        return (_common_kind(earlier[0], later[0], name),)
    if isinstance(earlier, str) and isinstance(later, str):
        wider = _WIDER.get((earlier, later)) or _WIDER.get((later, earlier))
        if wider is not None:
            return wider
    raise RecordRejected(
        f"codec parquet: {name} has values of the types {_name_of(earlier)} and {_name_of(later)}; use one type, or "
        "exclude the key with exclude_keys"
    )


def _name_of(kind: Kind) -> str:
    return kind if isinstance(kind, str) else "list" if isinstance(kind, tuple) else "object"


def _arrow_type(kind: Kind) -> Any:  # noqa: ANN401 - as above
    import pyarrow as pa

    if isinstance(kind, tuple):
        return pa.list_(pa.field("element", _arrow_type(kind[0])))
    if isinstance(kind, Mapping):
        return pa.struct([pa.field(name, _arrow_type(inner)) for name, inner in kind.items()])
    names = {"boolean": "bool_", "integer": "int64", "long": "int64", "number": "float64"}
    return getattr(pa, names.get(kind or "", "string"))()
