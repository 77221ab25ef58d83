"""Parses a `_batch_ingestion` request. An invalid request is refused before anything is read or written.

Every error names its location in the request and the remedy. Members beyond the documented ones: `op_type`,
`on_missing`, `on_unmatched`, `index_body`, `ingest_pipeline`, `routing`, `load`, `dead_letters`,
`max_dead_letters`, `work_prefix` and bulk sizes.
Source: OpenSearch documentation, "Asynchronous batch ingestion".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast, get_args

import msgspec

from opensearch_batch.core.config.annotations import choices, field_at, not_one_of, struct_at
from opensearch_batch.core.config.yaml_file import (
    MISSING_KEY,
    NOT_ONE_OF,
    UNKNOWN_KEY,
    Keys,
    dotted,
    split_message,
)
from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.ingest.request import (
    MAX_BODY_BYTES,
    MAX_IN_FLIGHT,
    BodyBytes,
    InFlight,
    IngestRequest,
    LoadSettings,
    OnUnmatched,
    OpType,
    check_index_name,
    check_on_missing,
    compile_map,
)
from opensearch_batch.core.storage.json_document import UNDECODABLE
from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.transform.field_map import ANY_FIELD, OnMissing
from opensearch_batch.core.types.counts import MAX_DEAD_LETTERS, PERCENT

SourceType = Literal["s3", "openai", "local"]
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]+")


class Credential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"openai_key": "openAI_key"}):
    """The `credential` of the request; `repr` does not show its values."""

    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    openai_key: str | None = None

    def __repr__(self) -> str:
        """Return the name of the type without values."""
        return "Credential(…)"

    @property
    def token(self) -> str | None:
        """The session token; None if `session_token` is the region, as in requests for OpenSearch 2.19."""
        return None if self.session_token and _REGION.fullmatch(self.session_token) else self.session_token


class BatchIngestion(msgspec.Struct, frozen=True):
    """A parsed request: what to write, the sources, and the locations of this package's files."""

    ingest: IngestRequest
    type: SourceType
    sources: list[str]
    credential: Credential | None = None
    dead_letters: str | None = None
    work_prefix: str | None = None
    max_dead_letters: str = MAX_DEAD_LETTERS


class _DataSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    source: list[str]


class RequestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request as a JSON object, in the documented form."""

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
    max_dead_letters: Annotated[str, msgspec.Meta(pattern=PERCENT)] = MAX_DEAD_LETTERS
    max_body_bytes: BodyBytes = MAX_BODY_BYTES
    max_in_flight: InFlight = MAX_IN_FLIGHT
    compress: bool = False


# The members that `IngestRequest` has too, with the same values.
_SAME_MEMBERS = set(RequestBody.__struct_fields__).intersection(IngestRequest.__struct_fields__) - {"on_missing"}
# An example of each member, for messages.
_EXAMPLES: Mapping[str, str] = MappingProxyType(
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
        "max_dead_letters": '"5%"',
        "load": '{"refresh_interval": "-1", "number_of_replicas": 0}',
        "load.refresh_interval": '"-1", or a time like "30s"',
    }
)
_TYPE_NAMES = MappingProxyType(
    {
        "str": "a string",
        "int": "an integer",
        "float": "a number",
        "bool": "true or false",
        "array": "an array",
        "object": "an object",
    }
)


def parse_request(content: bytes | Mapping[str, Any], location: str = "request") -> BatchIngestion:
    """Parse a request (JSON text, or decoded); raise ConfigError, which begins with `location`, for any mistake."""
    raw = _decode(content, location)
    _refuse_unknown(raw, location)
    try:
        body = msgspec.convert(raw, RequestBody)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{location}: {_explain(error)}") from None
    except UnicodeEncodeError:
        raise ConfigError(
            f"{location}: a string contains an unpaired surrogate (\\ud800 to \\udfff); remove it"
        ) from None
    source_type = _source_type(body, location)
    try:
        check_index_name(body.index_name)
    except ConfigError as error:
        raise ConfigError(f"{location}: index_name: {error}") from error
    missing: dict[str, OnMissing] = (
        body.on_missing if isinstance(body.on_missing, dict) else {ANY_FIELD: body.on_missing}
    )
    ingest = IngestRequest(body.index_name, on_missing=missing, **{name: getattr(body, name) for name in _SAME_MEMBERS})
    try:
        fields = compile_map(ingest, sources=len(body.data_source.source)).fields
    except ConfigError as error:
        raise ConfigError(f"{location}: {error}") from error
    try:
        check_on_missing(missing, fields)
    except ConfigError as error:
        raise ConfigError(f"{location}: on_missing.{error}") from error
    credential = body.credential and _unswapped(body.credential)
    return BatchIngestion(
        ingest,
        source_type,
        body.data_source.source,
        credential,
        body.dead_letters,
        body.work_prefix,
        body.max_dead_letters,
    )


def refuse_local_files(batch: BatchIngestion) -> None:
    """Raise ConfigError if a request that comes from a user of Airflow reads or writes files of the worker."""
    if batch.type == "local":
        raise ConfigError(
            "data_source.type: 'local' would read the worker's own files; copy them to S3 and give type s3, or run the "
            "request with the command line"
        )
    for uri in (batch.dead_letters, batch.work_prefix):
        if uri is not None:
            split_uri(uri)


def _decode(content: bytes | Mapping[str, Any], location: str) -> dict[str, Any]:
    if isinstance(content, Mapping):
        return dict(content)
    try:
        raw = msgspec.json.decode(content)
    except UNDECODABLE as error:
        raise ConfigError(f"{location}: not JSON ({error})") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{location}: expected a JSON object with index_name, field_map and data_source")
    return raw


def _refuse_unknown(raw: Mapping[str, Any], location: str) -> None:
    members = [field.encode_name for field in msgspec.structs.fields(RequestBody)]
    for name in raw:
        if name == "connector_id":
            raise ConfigError(
                f"{location}: connector_id: a connector's credential stays in ML Commons; name a connection instead"
            )
        if name not in members:
            raise ConfigError(f"{location}: {_no_such_member((), name)}")


def _no_such_member(keys: Keys, name: str) -> str:
    members = [field.encode_name for field in msgspec.structs.fields(struct_at(RequestBody, keys) or RequestBody)]
    hint = did_you_mean(name, members) or f" The members are {', '.join(members)}."
    return f"{dotted((*keys, name))}: no such member.{hint}"


def _explain(error: msgspec.ValidationError) -> str:
    """Convert msgspec's message to the location, the cause and the remedy, without values of a credential."""
    text, keys = split_message(str(error))
    location = dotted(keys)
    if missing := MISSING_KEY.search(text):
        member = dotted((*keys, missing["key"]))
        return f"{member} is missing; write {_EXAMPLES[member]}"
    if unknown := UNKNOWN_KEY.search(text):
        return _no_such_member(keys, unknown["key"])
    if (wrong := NOT_ONE_OF.search(text)) and (field := field_at(RequestBody, keys)):
        return f"{location}: {not_one_of(wrong['value'], choices(field.type))}"
    plain = re.sub(r"`([a-z |]+)`", lambda match: _type_names(match[1]), text.partition(" matching")[0])
    example = _EXAMPLES.get(dotted(keys[:-1] if isinstance(keys[-1], int) else keys))
    return f"{location}: {plain[0].lower()}{plain[1:]}" + (f"; write {example}" if example else "")


def _type_names(types: str) -> str:
    return " or ".join(_TYPE_NAMES.get(name, name) for name in types.split(" | "))


def _unswapped(credential: Credential) -> Credential:
    """Return a credential with region and session token in the documented members.

    OpenSearch 2.19 reads each of the two from the other's member, so requests for it have them swapped.
    """
    token, region = credential.session_token, credential.region
    if not token or not _REGION.fullmatch(token):
        return credential
    if region and not _REGION.fullmatch(region):
        return msgspec.structs.replace(credential, region=token, session_token=region)
    return msgspec.structs.replace(credential, region=region or token, session_token=None)


def _source_type(body: RequestBody, location: str) -> SourceType:
    kind = body.data_source.type.lower()
    if kind not in get_args(SourceType):
        raise ConfigError(
            f"{location}: data_source.type: {body.data_source.type!r} is not one of s3, openAI, local."
            f"{did_you_mean(kind, ['s3', 'openai', 'local'])}"
        )
    if not body.data_source.source:
        raise ConfigError(f"{location}: data_source.source is empty; name at least one source")
    for number, source in enumerate(body.data_source.source):
        subject = f"{location}: data_source.source[{number}]: {source!r}"
        if kind == "s3":
            _check_s3(source, subject)
        if kind == "openai" and ("/" in source or not source.strip()):
            raise ConfigError(f"{subject} is not a file id; write it as OpenAI shows it, file-…")
        if kind == "local" and (not source or source.startswith("s3://")):
            raise ConfigError(f"{subject} is not the path of a file, folder/ or glob; for S3 give type s3")
    return cast("SourceType", kind)


def _check_s3(source: str, subject: str) -> None:
    if not source.startswith("s3://"):
        raise ConfigError(f"{subject} is not an S3 location; write it as s3://bucket/key")
    bucket, _, key = source.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"{subject}: {bucket!r} is not a bucket name (letters, digits, dots and hyphens); write it as s3://bucket/key"
        )
    if not key:
        raise ConfigError(f"{subject} names only a bucket; write s3://bucket/key, or s3://bucket/prefix/ for several")
