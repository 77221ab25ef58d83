"""An ingest request: what to write to which index, and how. It is checked before anything is read or written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.transform.field_map import ANY_FIELD, FieldMap, OnMissing
from opensearch_batch.core.types.vector_field import VectorField

OpType = Literal["index", "create", "upsert"]
# The values of `OpType`, two more actions of Data Prepper pipelines, and the update of a document in place.
Action = Literal["index", "create", "upsert", "update", "delete", "guarded"]
OnUnmatched = Literal["index_partial", "dead_letter", "fail"]
# The body size with the highest throughput over few connections, as measured by `python -m benchmarks body_sizes`.
MAX_BODY_BYTES = 2_000_000
MAX_IN_FLIGHT = 8
# A node accepts bodies of 100 MB by default, and a worker keeps all bodies in flight in memory.
BodyBytes = Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]
InFlight = Annotated[int, msgspec.Meta(ge=1, le=64)]
_INDEX_NAME = re.compile(r"[^-_+\s\\/*?\"<>|,#:][^\s\\/*?\"<>|,#:]*")
MAX_INDEX_NAME_BYTES = 255
# The same rule for the JSON schema of a form, which counts characters and recognizes only the capitals A to Z.
INDEX_NAME_PATTERN = r"^[^-_+A-Z\s\\/*?\"<>|,#:][^A-Z\s\\/*?\"<>|,#:]{0,254}$"


class LoadSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Index settings during the load; the original settings are always restored."""

    refresh_interval: Annotated[
        Annotated[str, msgspec.Meta(pattern=r"^(-1|0|\d+(nanos|micros|ms|s|m|h|d))$")] | None,
        msgspec.Meta(description="Refresh interval of the index; with `-1` documents become searchable at the end."),
    ] = None
    number_of_replicas: Annotated[
        Annotated[int, msgspec.Meta(ge=0)] | None, msgspec.Meta(description="Number of replicas of each shard.")
    ] = None


class IngestRequest(msgspec.Struct, frozen=True):
    """What to write to which index.

    `on_missing` is the policy for rows that lack a mapped path (``null``, ``omit``, ``dead_letter``), by field name or
    for all fields. `on_unmatched` is the policy for ids that a source lacks.

    With `processors`, the output of the processors is the document if it matches the condition `when`; only ``_id`` of
    the field map is used.

    The field ``*`` does not copy the members in `omitted`. With `in_place`, the documents exist, and each is updated
    with the mapped fields only if its input of the model has not changed (`core.ingest.sinks.in_place`).

    With a `version`, `index` and `delete` actions of documents with an id carry it as external version, and the index
    does not replace a document of a higher version.
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
    processors: list[dict[str, Any]] | None = None
    when: str | None = None
    version: int | None = None
    omitted: list[str] = []
    in_place: bool = False

    @property
    def action(self) -> Action:
        """The action of a document in a bulk request."""
        return "guarded" if self.in_place else self.op_type


def check_on_missing(missing: Iterable[str], fields: Sequence[str]) -> None:
    """Raise ConfigError if a policy names a field that is not mapped."""
    for name in missing:
        if name not in {*fields, ANY_FIELD}:
            raise ConfigError(
                f"{name}: no such field is mapped; name one of field_map, or {ANY_FIELD} for all."
                f"{did_you_mean(name, fields)}"
            )


def compile_map(request: IngestRequest, *, sources: int, vectors: Sequence[VectorField] = ()) -> FieldMap:
    """Compile a request's field map; raise ConfigError if the field map is invalid."""
    return FieldMap(
        request.field_map,
        request.ingest_fields,
        sources=sources,
        vectors=vectors,
        on_missing=request.on_missing,
        routing=request.routing,
        omitted=request.omitted,
    )


def check_index_name(name: str) -> None:
    """Raise ConfigError if the name is not a valid index name."""
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
