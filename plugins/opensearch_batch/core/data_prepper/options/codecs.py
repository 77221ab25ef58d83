"""Options of input and output codecs.

Source: the InputCodecConfig and OutputCodecConfig classes of Data Prepper (2.17), and S3EnrichProcessorConfig.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Protocol

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import CheckedOptions, Plugin, Rule, refuse_if
from opensearch_batch.core.config.options import Options
from opensearch_batch.core.formats.csv import Csv, CsvEncoding
from opensearch_batch.core.formats.json import Json, JsonEncoding
from opensearch_batch.core.formats.ndjson import Ndjson, NdjsonEncoding
from opensearch_batch.core.formats.newline import Newline
from opensearch_batch.core.formats.parquet import Parquet
from opensearch_batch.core.formats.parquet_writer import ParquetEncoding, avro_schema
from opensearch_batch.core.formats.reading import RowFormat

Character = Annotated[str, Meta(min_length=1, max_length=1)]
Header = Annotated[tuple[str, ...], Meta(min_length=1)]
Name = Annotated[str, Meta(min_length=1, max_length=2048)]
_INPUT_REMEDY = "convert the objects to ndjson, newline, json, csv or parquet"
_UNSUPPORTED_INPUTS = dict.fromkeys(
    ("avro", "event_json", "multiline", "otel_logs", "otel_metrics", "otel_traces"), _INPUT_REMEDY
)
DEFAULT_RECORD_OBJECT_EXTENSION = "jsonl"
_OUTPUT_REMEDY = "use ndjson, json, csv or parquet"


class NdjsonInput(Options, frozen=True, kw_only=True):
    """One JSON object per line."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {"extension": "objects are read by the codec, whatever their extension"}

    include_empty_objects: bool = False

    def format(self) -> Ndjson:
        """Return the format with these options."""
        return Ndjson(self.include_empty_objects)


class NewlineInput(Options, frozen=True, kw_only=True):
    """One string per line, stored at the key ``message``."""

    skip_lines: Annotated[int, Meta(ge=0)] = 0
    header_destination: Annotated[str, Meta(min_length=1)] | None = None

    def format(self) -> Newline:
        """Return the format with these options."""
        return Newline(self.skip_lines, self.header_destination)


class JsonInput(Options, frozen=True, kw_only=True):
    """Elements of JSON arrays."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {"max_event_length": "all codecs share the same maximum row size"}
    REFUSED: ClassVar[Mapping[str, str]] = {
        "include_keys_metadata": "rows have no metadata; write the keys in include_keys"
    }

    key_name: Name | None = None
    include_keys: tuple[str, ...] = ()

    def format(self) -> Json:
        """Return the format with these options."""
        return Json(self.key_name, self.include_keys)


class CsvInput(CheckedOptions, frozen=True, kw_only=True):
    """CSV rows, with or without a header."""

    delimiter: Character = ","
    quote_character: Character = '"'
    header: Header | None = None
    detect_header: bool = True

    def format(self) -> Csv:
        """Return the format with these options."""
        return Csv(self.delimiter, self.quote_character, self.header or (), self.detect_header)

    def rules(self) -> Iterator[Rule]:
        """Yield the checks, each with the keys of the option that its error refers to."""
        yield from refuse_if(
            wrong=self.delimiter == self.quote_character,
            keys=("quote_character",),
            cause="the delimiter is the same character; choose another one",
        )


class ParquetInput(Options, frozen=True, kw_only=True):
    """Rows of a parquet file."""

    def format(self) -> Parquet:
        """Return the format with these options."""
        return Parquet()


def _with_extension(kind: type[Options]) -> type[Options]:
    """Return codec options with `extension`, from which s3_enrich derives the names of record objects."""
    no_effect = {name: text for name, text in kind.NO_EFFECT.items() if name != "extension"}
    return msgspec.defstruct(  # type: ignore[return-value] # a subclass of `kind`
        f"{kind.__name__}WithExtension",
        [("extension", str, DEFAULT_RECORD_OBJECT_EXTENSION)],
        bases=(kind,),
        namespace={"NO_EFFECT": no_effect},
        frozen=True,
        kw_only=True,
    )


class NdjsonOutput(Options, frozen=True, kw_only=True):
    """One JSON object per line."""

    extension: Literal["ndjson", "jsonl"] = "ndjson"

    def encoding(self) -> NdjsonEncoding:
        """Return the encoding with these options."""
        return NdjsonEncoding(self.extension)


class JsonOutput(Options, frozen=True, kw_only=True):
    """One JSON object that contains an array."""

    key_name: Name = "events"

    def encoding(self) -> JsonEncoding:
        """Return the encoding with these options."""
        return JsonEncoding(self.key_name)


class CsvOutput(Options, frozen=True, kw_only=True):
    """CSV rows below a header."""

    REFUSED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("header_file_location", "region", "bucket_name", "fileKey"),
        "header files are not supported, and Data Prepper ignores them; write header: [...]",
    )

    delimiter: Character = ","
    header: Header | None = None

    def encoding(self) -> CsvEncoding:
        """Return the encoding with these options."""
        return CsvEncoding(self.delimiter, self.header or ())


class ParquetOutput(CheckedOptions, frozen=True, kw_only=True):
    """Parquet rows, with an Avro schema or a schema that is inferred from all events of an object."""

    schema: str | None = None
    auto_schema: bool = False

    def encoding(self) -> ParquetEncoding:
        """Return the encoding with these options."""
        return ParquetEncoding(self.schema)

    def rules(self) -> Iterator[Rule]:
        """Yield the checks, each with the keys of the option that its error refers to."""
        yield from refuse_if(
            wrong=(self.schema is not None) == self.auto_schema,
            cause="set exactly one of schema and auto_schema: true",
        )
        if self.schema is not None:
            yield ("schema",), lambda: avro_schema(self.schema or "")


_INPUTS: Mapping[str, type[Options]] = {
    "ndjson": NdjsonInput,
    "newline": NewlineInput,
    "json": JsonInput,
    "csv": CsvInput,
    "parquet": ParquetInput,
}
_OUTPUTS = {"ndjson": NdjsonOutput, "json": JsonOutput, "csv": CsvOutput, "parquet": ParquetOutput}
_EXAMPLE = Meta(examples=[{"ndjson": {}}])


class RecordObjectCodecOptions(Protocol):
    """Options of the codec that reads s3_enrich's record objects."""

    @property
    def extension(self) -> str:
        """The extension of record objects, without a dot."""

    def format(self) -> RowFormat:
        """Return the format with these options."""


InputCodec = Annotated[
    NdjsonInput | NewlineInput | JsonInput | CsvInput | ParquetInput,
    Plugin("codec", _INPUTS, _UNSUPPORTED_INPUTS),
    _EXAMPLE,
]
RECORD_OBJECT_CODECS = {name: _with_extension(kind) for name, kind in _INPUTS.items()}
RecordObjectCodec = Annotated[
    RecordObjectCodecOptions, Plugin("codec", RECORD_OBJECT_CODECS, _UNSUPPORTED_INPUTS), _EXAMPLE
]
OutputCodec = Annotated[
    NdjsonOutput | JsonOutput | CsvOutput | ParquetOutput,
    Plugin("codec", _OUTPUTS, dict.fromkeys(("avro", "event_json", "newline"), _OUTPUT_REMEDY)),
    _EXAMPLE,
]
