"""A `_batch_ingestion` request is read as documented, and refused whole before anything is read or written.

Every mistake names its place in the request and how to mend it. Beyond the document: `op_type`, `on_missing`,
`on_unmatched`, `index_body`, `ingest_pipeline`, `routing`, `load`, `dead_letters`, `work_prefix` and bulk sizes.
Source: OpenSearch documentation, "Asynchronous batch ingestion".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast, get_args

import msgspec

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.ingest.bulk import MAX_BODY_BYTES, MAX_IN_FLIGHT, OpType
from opensearch_batch.core.transform.field_map import ANY_FIELD, FieldMap, OnMissing

SourceType = Literal["s3", "openai", "local"]
OnUnmatched = Literal["index_partial", "dead_letter", "fail"]
_INDEX_NAME = re.compile(r"[^-_+\s\\/*?\"<>|,#:][^\s\\/*?\"<>|,#:]*")
MAX_INDEX_NAME_BYTES = 255
# The same for a form, whose schema counts characters and knows no other capitals.
INDEX_NAME_PATTERN = r"^[^-_+A-Z\s\\/*?\"<>|,#:][^A-Z\s\\/*?\"<>|,#:]{0,254}$"
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]+")
_Positive = Annotated[int, msgspec.Meta(ge=1)]


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

    refresh_interval: Annotated[
        Annotated[str, msgspec.Meta(pattern=r"^(-1|0|\d+(nanos|micros|ms|s|m|h|d))$")] | None,
        msgspec.Meta(description="How often what was written is made searchable; `-1`: not before the end."),
    ] = None
    number_of_replicas: Annotated[
        Annotated[int, msgspec.Meta(ge=0)] | None, msgspec.Meta(description="Copies of each shard of the index.")
    ] = None


class IngestRequest(msgspec.Struct, frozen=True):
    """What to put where.

    `on_missing` is what a mapped path that a row lacks does (``null``, ``omit``, ``dead_letter``), for all fields or by
    field name; `on_unmatched` what a key does that some source lacks. `joined_by` are the paths, one a source, by which
    rows find one another where that is not the document's id.

    With `processors`, what they make of a row is the document, if `when` holds for it; of the map only ``_id`` counts.
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
    joined_by: list[str] = []
    processors: list[dict[str, Any]] | None = None
    when: str | None = None


class BatchIngestion(msgspec.Struct, frozen=True):
    """A whole request: what to put where, from which sources, and where its own files go."""

    ingest: IngestRequest
    type: SourceType
    sources: list[str]
    credential: Credential | None = None
    dead_letters: str | None = None
    work_prefix: str | None = None


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
    work_prefix: str | None = None
    max_body_bytes: _Positive = MAX_BODY_BYTES
    max_in_flight: _Positive = MAX_IN_FLIGHT
    compress: bool = False


# How each member is written, for messages.
_LOOKS: Mapping[str, str] = MappingProxyType(
    {
        "index_name": '"my-index"',
        "field_map": '{"title": "$.title", "_id": "$.id"}',
        "ingest_fields": '["$.title"]',
        "data_source": '{"type": "s3", "source": ["s3://bucket/key"]}',
        "data_source.type": '"s3", "openAI" or "local"',
        "data_source.source": '["s3://bucket/key"]',
        "credential": '{"region": "…", "access_key": "…", "secret_key": "…"} or {"openAI_key": "…"}',
        "on_missing": '"null", or {"title": "omit", "*": "null"}',
        "index_body": '{"mappings": {"properties": {"title": {"type": "text"}}}}',
        "load": '{"refresh_interval": "-1", "number_of_replicas": 0}',
        "load.refresh_interval": '"-1", or a time like "30s"',
    }
)
_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"op_type": get_args(OpType), "on_missing": get_args(OnMissing), "on_unmatched": get_args(OnUnmatched)}
)
_PARTS: Mapping[str, type[msgspec.Struct]] = MappingProxyType(
    {"": _Body, "data_source": _DataSource, "credential": Credential, "load": LoadSettings}
)
_WORDS = MappingProxyType(
    {
        "str": "a text",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "array": "a list",
        "object": "an object",
    }
)


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
    try:
        check_index_name(body.index_name)
    except ConfigError as error:
        raise ConfigError(f"{place}: index_name: {error}") from error
    missing: dict[str, OnMissing] = (
        body.on_missing if isinstance(body.on_missing, dict) else {ANY_FIELD: body.on_missing}
    )
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
    try:
        check_on_missing(missing, fields)
    except ConfigError as error:
        raise ConfigError(f"{place}: on_missing.{error}") from error
    credential = body.credential and _as_documented(body.credential)
    return BatchIngestion(ingest, kind, body.data_source.source, credential, body.dead_letters, body.work_prefix)


def check_on_missing(missing: Iterable[str], fields: Sequence[str]) -> None:
    """Raise ConfigError when a policy is about a field that is not mapped."""
    for name in missing:
        if name not in {*fields, ANY_FIELD}:
            raise ConfigError(
                f"{name}: no such field is mapped; name one of field_map, or {ANY_FIELD} for all."
                f"{did_you_mean(name, fields)}"
            )


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
        joined_by=request.joined_by,
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
            raise ConfigError(f"{place}: {_no_such_member('', name)}")


def _no_such_member(part: str, name: str) -> str:
    known = [field.encode_name for field in msgspec.structs.fields(_PARTS[part])]
    hint = did_you_mean(name, known) or f" The members are {', '.join(known)}."
    return f"{part and f'{part}.'}{name}: no such member.{hint}"


def _explain(error: msgspec.ValidationError) -> str:
    """Turn msgspec's ``… - at `$.a[0]` `` into ``a[0]: …; write …``; values of a credential are never part of it."""
    text, _, at = str(error).partition(" - at `")
    where = at.rstrip("`").removeprefix("$").removeprefix(".").replace("[...]", "")
    named = text.partition("`")[2].rstrip("`")
    below = f"{where}.{named}" if where else named
    if text.startswith("Object missing required field"):
        return f"{below} is missing; write {_LOOKS[below]}"
    if text.startswith("Object contains unknown field"):
        return _no_such_member(where, named)
    if text.startswith("Invalid enum value"):
        wrong, known = text.partition("'")[2].rstrip("'"), _CHOICES[where]
        return f"{where}: {wrong!r} is none of {', '.join(known)}.{did_you_mean(wrong, known)}"
    plain = re.sub(r"`([a-z |]+)`", lambda types: _in_words(types[1]), text.partition(" matching")[0])
    look = _LOOKS.get(re.sub(r"\[\d+\]$", "", where))
    return f"{where}: {plain[0].lower()}{plain[1:]}" + (f"; write {look}" if look else "")


def _in_words(types: str) -> str:
    return " or ".join(_WORDS.get(name, name) for name in types.split(" | "))


def _as_documented(credential: Credential) -> Credential:
    """Return a credential with the region in its own place, however a request for OpenSearch 2.19 had to be written.

    That version reads region and session token in each other's place.
    """
    token, region = credential.session_token, credential.region
    if not token or not _REGION.fullmatch(token):
        return credential
    if region and not _REGION.fullmatch(region):
        return msgspec.structs.replace(credential, region=token, session_token=region)
    return msgspec.structs.replace(credential, region=region or token, session_token=None)


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
        if kind == "s3":
            _check_s3(source, where)
        if kind == "openai" and ("/" in source or not source.strip()):
            raise ConfigError(f"{where} is no file id; write it as OpenAI shows it, file-…")
        if kind == "local" and (not source or source.startswith("s3://")):
            raise ConfigError(f"{where} is no path of a file, folder/ or glob; for S3 give type s3")
    return cast("SourceType", kind)


def _check_s3(source: str, where: str) -> None:
    if not source.startswith("s3://"):
        raise ConfigError(f"{where} is no S3 location; write it as s3://bucket/key")
    bucket, _, key = source.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"{where}: {bucket!r} is no name of a bucket, which has letters, digits, dots and hyphens; "
            "write it as s3://bucket/key"
        )
    if not key:
        raise ConfigError(f"{where} names a bucket only; write s3://bucket/key, or s3://bucket/prefix/ for many")


def check_index_name(name: str) -> None:
    """Raise ConfigError unless an index may have this name."""
    if name == name.lower() and _can_be_index(name):
        return
    hint = f" Did you mean {name.lower()!r}?" if _can_be_index(name.lower()) else ""
    raise ConfigError(
        f"{name!r} cannot be an index; names are lower case, do not start with - _ or +, have no "
        f'spaces and none of \\/*?"<>|,#: and at most {MAX_INDEX_NAME_BYTES} bytes.{hint}'
    )


def _can_be_index(name: str) -> bool:
    fits = 0 < len(name.encode(errors="replace")) <= MAX_INDEX_NAME_BYTES
    return fits and name not in (".", "..") and _INDEX_NAME.fullmatch(name) is not None
