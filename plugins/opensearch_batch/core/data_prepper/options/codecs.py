"""How rows stand in an object: the options of the codecs that read, and of those that write.

Source: the InputCodecConfig and OutputCodecConfig classes of Data Prepper (2.17), and S3EnrichProcessorConfig.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from opensearch_batch.core.config.option_types import CheckedOptions, Plugin, Rule, when
from opensearch_batch.core.config.options import Options
from opensearch_batch.core.formats.parquet_file import avro_schema

Compression = Literal["none", "gzip", "snappy", "zstd", "automatic"]
OutputCompression = Literal["none", "gzip", "snappy"]
Name = Annotated[str, Meta(min_length=1, max_length=2048)]
_NOT_READ = "this codec is not read here; write the objects with ndjson, newline, json, csv or parquet"
_OTHERS = dict.fromkeys(("avro", "event_json", "multiline", "otel_logs", "otel_metrics", "otel_traces"), _NOT_READ)
RECORDS_EXTENSION = "jsonl"
_NOT_WRITTEN = "this codec is not written here; take ndjson, json, csv or parquet"


class NdjsonInput(Options, frozen=True, kw_only=True):
    """A JSON object a line."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {"extension": "what an object is called does not decide how it is read"}

    include_empty_objects: bool = False


class NewlineInput(Options, frozen=True, kw_only=True):
    """A text a line, at ``message``."""

    skip_lines: Annotated[int, Meta(ge=0)] = 0
    header_destination: Annotated[str, Meta(min_length=1)] | None = None


class JsonInput(Options, frozen=True, kw_only=True):
    """The elements of arrays."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {"max_event_length": "one limit for rows holds for all codecs"}
    REFUSED: ClassVar[Mapping[str, str]] = {
        "include_keys_metadata": "rows carry no metadata; write the keys to include_keys"
    }

    key_name: Name | None = None
    include_keys: tuple[str, ...] = ()


class CsvInput(CheckedOptions, frozen=True, kw_only=True):
    """Rows of texts, with or without their names above them."""

    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    quote_character: Annotated[str, Meta(min_length=1, max_length=1)] = '"'
    header: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    detect_header: bool = True

    def rules(self) -> Iterator[Rule]:
        """Yield what is checked, and the option it is about."""
        yield from when(
            wrong=self.delimiter == self.quote_character,
            keys=("quote_character",),
            cause="the same character is the delimiter; give another one",
        )


class ParquetInput(Options, frozen=True, kw_only=True):
    """Rows of a parquet file."""


class NdjsonRecords(NdjsonInput, frozen=True, kw_only=True):
    """A JSON object a line, in an object whose name ends with the extension."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {}

    extension: str = RECORDS_EXTENSION


class NewlineRecords(NewlineInput, frozen=True, kw_only=True):
    """A text a line, in an object whose name ends with the extension."""

    extension: str = RECORDS_EXTENSION


class JsonRecords(JsonInput, frozen=True, kw_only=True):
    """The elements of arrays, in an object whose name ends with the extension."""

    extension: str = RECORDS_EXTENSION


class CsvRecords(CsvInput, frozen=True, kw_only=True):
    """Rows of texts, in an object whose name ends with the extension."""

    extension: str = RECORDS_EXTENSION


class ParquetRecords(ParquetInput, frozen=True, kw_only=True):
    """Rows of a parquet file whose name ends with the extension."""

    extension: str = RECORDS_EXTENSION


class NdjsonOutput(Options, frozen=True, kw_only=True):
    """A JSON object a line."""

    extension: Literal["ndjson", "jsonl"] = "ndjson"


class JsonOutput(Options, frozen=True, kw_only=True):
    """One object with an array in it."""

    key_name: Name = "events"


class CsvOutput(Options, frozen=True, kw_only=True):
    """Rows of texts below their names."""

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("header_file_location", "region", "bucket_name", "fileKey"),
        "a header is not read from a file, by the original neither; write header: [...]",
    )

    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    header: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None


class ParquetOutput(CheckedOptions, frozen=True, kw_only=True):
    """Rows of a parquet file, by an Avro schema or by what the first rows are."""

    schema: str | None = None
    auto_schema: bool = False

    def rules(self) -> Iterator[Rule]:
        """Yield what is checked, and the option it is about."""
        yield from when(
            wrong=(self.schema is not None) == self.auto_schema, cause="give one of schema and auto_schema: true"
        )
        if self.schema is not None:
            yield ("schema",), lambda: avro_schema(self.schema or "")


InputCodec = Annotated[
    NdjsonInput | NewlineInput | JsonInput | CsvInput | ParquetInput,
    Plugin(
        "codec",
        {
            "ndjson": NdjsonInput,
            "newline": NewlineInput,
            "json": JsonInput,
            "csv": CsvInput,
            "parquet": ParquetInput,
        },
        _OTHERS,
    ),
    Meta(examples=[{"ndjson": {}}]),
]
# Those of s3_enrich, which finds an object by its name.
RecordsCodec = Annotated[
    NdjsonRecords | NewlineRecords | JsonRecords | CsvRecords | ParquetRecords,
    Plugin(
        "codec",
        {
            "ndjson": NdjsonRecords,
            "newline": NewlineRecords,
            "json": JsonRecords,
            "csv": CsvRecords,
            "parquet": ParquetRecords,
        },
        _OTHERS,
    ),
    Meta(examples=[{"ndjson": {}}]),
]
OutputCodec = Annotated[
    NdjsonOutput | JsonOutput | CsvOutput | ParquetOutput,
    Plugin(
        "codec",
        {"ndjson": NdjsonOutput, "json": JsonOutput, "csv": CsvOutput, "parquet": ParquetOutput},
        dict.fromkeys(("avro", "event_json", "newline"), _NOT_WRITTEN),
    ),
    Meta(examples=[{"ndjson": {}}]),
]
