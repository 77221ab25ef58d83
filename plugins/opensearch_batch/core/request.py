"""A `_batch_ingestion` request is read as documented, and refused whole before anything is read or written.

Every mistake names its place in the request and how to mend it. Beyond the document: `op_type`, `on_missing`,
`on_unmatched`, `index_body`, `ingest_pipeline`, `routing`, `load`, `dead_letters`, `work` and the writer's sizes.
Source: OpenSearch documentation, "Asynchronous batch ingestion".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import msgspec

from opensearch_batch.core.bulk import MAX_BODY_BYTES, MAX_IN_FLIGHT, OpType
from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.field_map import ANY_FIELD, FieldMap, OnMissing

SourceType = Literal["s3", "openai", "local"]
OnUnmatched = Literal["index_partial", "dead_letter", "fail"]
_INDEX_NAME = re.compile(r"[^A-Z\\/*?\"<>| ,#:]+")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/|$)")


class Credential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"openai_key": "openAI_key"}):
    """The request's own `credential`; it never shows its values."""

    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    openai_key: str | None = None

    def __repr__(self) -> str:
        """Return the type alone."""
        return "Credential(…)"

    @property
    def token(self) -> str | None:
        """The session token; None when the region stands in its place, as requests for OpenSearch 2.19 need it."""
        return None if self.session_token and _REGION.fullmatch(self.session_token) else self.session_token


class LoadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Index settings during the load; what they were before is restored on every exit."""

    refresh_interval: str | None = None
    number_of_replicas: int | None = None


class IngestRequest(msgspec.Struct, frozen=True):
    """What to put where.

    `on_missing` is what a mapped path that a row lacks does (``null``, ``omit``, ``dead_letter``), for all fields or by
    field name; `on_unmatched` what a key does that some source lacks.
    """

    index: str
    field_map: dict[str, Any]
    ingest_fields: list[str | None] = []
    op_type: OpType = "index"
    on_missing: dict[str, OnMissing] = {}
    on_unmatched: OnUnmatched = "index_partial"
    ingest_pipeline: str | None = None
    routing: str | None = None
    index_body: dict[str, Any] | None = None
    load: LoadSettings | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    max_in_flight: int = MAX_IN_FLIGHT
    compress: bool = False


class BatchIngestion(msgspec.Struct, frozen=True):
    """A whole request: what to put where, from which sources, and where its own files go."""

    ingest: IngestRequest
    type: SourceType
    sources: list[str]
    credential: Credential | None = None
    dead_letters: str | None = None
    work: str | None = None


class _DataSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    source: list[str]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request as it is written."""

    index_name: str
    data_source: _DataSource
    field_map: dict[str, Any] = {}
    ingest_fields: list[str | None] = []
    credential: Credential | None = None
    op_type: OpType = "index"
    on_missing: OnMissing | dict[str, OnMissing] = "null"
    on_unmatched: OnUnmatched = "index_partial"
    ingest_pipeline: str | None = None
    routing: str | None = None
    index_body: dict[str, Any] | None = None
    load: LoadSettings | None = None
    dead_letters: str | None = None
    work: str | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    max_in_flight: int = MAX_IN_FLIGHT
    compress: bool = False


def parse_request(content: bytes | Mapping[str, Any], place: str = "request") -> BatchIngestion:
    """Read and check a request.

    Args:
        content: its JSON text, or the decoded object.
        place: what messages call it, a file's name for example.

    Raises:
        ConfigError: it is no JSON, has an unknown or wrong member, or its field map cannot work.
    """
    raw = _decode(content, place)
    _refuse_unknown(raw, place)
    try:
        body = msgspec.convert(raw, _Body)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}: {_explain(error)}") from None
    kind = _source_type(body, place)
    _check_index_name(body.index_name, place)
    missing: dict[str, OnMissing] = (
        body.on_missing if isinstance(body.on_missing, dict) else {ANY_FIELD: body.on_missing}
    )
    if body.max_body_bytes < 1 or body.max_in_flight < 1:
        raise ConfigError(f"{place}: max_body_bytes and max_in_flight are numbers of at least 1")
    ingest = IngestRequest(
        body.index_name,
        dict(body.field_map),
        body.ingest_fields,
        body.op_type,
        missing,
        body.on_unmatched,
        body.ingest_pipeline,
        body.routing,
        body.index_body,
        body.load,
        body.max_body_bytes,
        body.max_in_flight,
        body.compress,
    )
    try:
        fields = compile_map(ingest, sources=len(body.data_source.source)).fields
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    for name in missing:
        if name not in {*fields, ANY_FIELD}:
            raise ConfigError(f"{place}: on_missing.{name}: no such field is mapped.{did_you_mean(name, fields)}")
    return BatchIngestion(ingest, kind, body.data_source.source, body.credential, body.dead_letters, body.work)


def compile_map(request: IngestRequest, *, sources: int, vectors: Any = ()) -> FieldMap:  # noqa: ANN401 - VectorField's
    """Compile a request's field map.

    Raises:
        ConfigError: it cannot work.
    """
    return FieldMap(
        request.field_map,
        request.ingest_fields,
        sources=sources,
        vectors=vectors,
        on_missing=request.on_missing,
        routing=request.routing,
    )


def _decode(content: bytes | Mapping[str, Any], place: str) -> dict[str, Any]:
    if isinstance(content, Mapping):
        return dict(content)
    try:
        raw = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{place}: not JSON ({error})") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{place}: expected a JSON object with index_name, field_map and data_source")
    return raw


def _refuse_unknown(raw: Mapping[str, Any], place: str) -> None:
    known = [field.encode_name for field in msgspec.structs.fields(_Body)]
    for name in raw:
        if name == "connector_id":
            raise ConfigError(
                f"{place}: connector_id: a connector's credential stays in ML Commons; name a connection instead"
            )
        if name not in known:
            raise ConfigError(f"{place}: {name}: no such member.{did_you_mean(name, known)}")


def _explain(error: msgspec.ValidationError) -> str:
    """Turn msgspec's ``… - at `$.a[0]` `` into ``a[0]: …``; values of a credential are never part of it."""
    text, _, at = str(error).partition(" - at `")
    where = at.rstrip("`").removeprefix("$").removeprefix(".")
    return f"{where}: {text}" if where else text


def _source_type(body: _Body, place: str) -> SourceType:
    kind = body.data_source.type.lower()
    if kind not in get_args(SourceType):
        raise ConfigError(
            f"{place}: data_source.type: {body.data_source.type!r} is none of s3, openAI, local."
            f"{did_you_mean(kind, ['s3', 'openai', 'local'])}"
        )
    if not body.data_source.source:
        raise ConfigError(f"{place}: data_source.source is empty; name at least one source")
    for at, source in enumerate(body.data_source.source):
        where = f"{place}: data_source.source[{at}]: {source!r}"
        if kind == "s3" and not _BUCKET.match(source):
            raise ConfigError(f"{where} is no S3 location; write it as s3://bucket/key")
        if kind == "s3" and not source.partition("://")[2].partition("/")[2]:
            raise ConfigError(f"{where} names a bucket only; write s3://bucket/key, or s3://bucket/prefix/ for many")
        if kind == "openai" and ("/" in source or not source.strip()):
            raise ConfigError(f"{where} is no file id; write it as OpenAI shows it, file-…")
        if kind == "local" and (not source or source.startswith("s3://")):
            raise ConfigError(f"{where} is no path of a file, folder/ or glob")
    return cast("SourceType", kind)


def _check_index_name(name: str, place: str) -> None:
    if not _INDEX_NAME.fullmatch(name) or name.startswith(("-", "_", "+")) or name in (".", ".."):
        raise ConfigError(
            f'{place}: index_name: {name!r} cannot be an index; names are lower case, without spaces and \\/*?"<>|,#:'
        )
