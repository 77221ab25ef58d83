"""Input and output codecs by their names in a file; their options are the fields of the formats.

Source: the InputCodecConfig and OutputCodecConfig classes of Data Prepper (2.17), and S3EnrichProcessorConfig.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import Plugin
from opensearch_batch.core.config.options import Options
from opensearch_batch.core.formats.csv import Csv, CsvEncoding
from opensearch_batch.core.formats.json import Json, JsonEncoding
from opensearch_batch.core.formats.ndjson import Ndjson, NdjsonEncoding
from opensearch_batch.core.formats.newline import Newline
from opensearch_batch.core.formats.parquet import Parquet
from opensearch_batch.core.formats.parquet_writer import ParquetEncoding
from opensearch_batch.core.formats.reading import RowFormat

_INPUTS: Mapping[str, type[Options]] = {
    "ndjson": Ndjson,
    "newline": Newline,
    "json": Json,
    "csv": Csv,
    "parquet": Parquet,
}
_OUTPUTS = {"ndjson": NdjsonEncoding, "json": JsonEncoding, "csv": CsvEncoding, "parquet": ParquetEncoding}
_UNSUPPORTED_INPUTS = dict.fromkeys(
    ("avro", "event_json", "multiline", "otel_logs", "otel_metrics", "otel_traces"),
    "convert the objects to ndjson, newline, json, csv or parquet",
)
_UNSUPPORTED_OUTPUTS = dict.fromkeys(("avro", "event_json", "newline"), "use ndjson, json, csv or parquet")
DEFAULT_RECORD_OBJECT_EXTENSION = "jsonl"
_EXAMPLE = Meta(examples=[{"ndjson": {}}])


def _with_extension(kind: type[Options]) -> type[Options]:
    """Return a format with the option `extension`, from which s3_enrich derives the names of record objects."""
    no_effect = {name: text for name, text in kind.NO_EFFECT.items() if name != "extension"}
    return msgspec.defstruct(  # type: ignore[return-value] # a subclass of `kind`
        f"{kind.__name__}WithExtension",
        [("extension", str, DEFAULT_RECORD_OBJECT_EXTENSION)],
        bases=(kind,),
        namespace={"NO_EFFECT": no_effect},
        frozen=True,
        kw_only=True,
    )


class RecordObjectFormat(RowFormat, Protocol):
    """The format of s3_enrich's record objects."""

    @property
    def extension(self) -> str:
        """The extension of record objects, without a dot."""


InputCodec = Annotated[Ndjson | Newline | Json | Csv | Parquet, Plugin("codec", _INPUTS, _UNSUPPORTED_INPUTS), _EXAMPLE]
RECORD_OBJECT_CODECS = {name: _with_extension(kind) for name, kind in _INPUTS.items()}
RecordObjectCodec = Annotated[RecordObjectFormat, Plugin("codec", RECORD_OBJECT_CODECS, _UNSUPPORTED_INPUTS), _EXAMPLE]
OutputCodec = Annotated[
    NdjsonEncoding | JsonEncoding | CsvEncoding | ParquetEncoding,
    Plugin("codec", _OUTPUTS, _UNSUPPORTED_OUTPUTS),
    _EXAMPLE,
]
