"""The shapes of requests and responses, from which the OpenAPI document is made."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from opensearch_batch.core.ingest.batch_ingestion import RequestBody
from opensearch_batch.ui.responses import JSON

REFERENCE = "#/components/schemas/{name}"
State = Literal[
    "CREATED", "RUNNING", "COMPLETED", "COMPLETED_WITH_ERROR", "FAILED", "CANCELLING", "CANCELLED", "EXPIRED",
    "UNREACHABLE",
]  # fmt: skip


class IngestionStarted(msgspec.Struct):
    """A run was created."""

    task_id: str
    task_type: Literal["BATCH_INGEST"]
    status: Literal["CREATED"]


class JobStarted(msgspec.Struct):
    """A job was submitted, or is the one that an equal request submitted."""

    task_id: str
    status: Literal["CREATED"]
    remote_job: dict[str, Any] = {}


class MLTask(msgspec.Struct):
    """A task: a run, or one of ML Commons with further members. `progress` has counts of rows, and locations."""

    task_type: str
    state: State
    create_time: int
    last_update_time: int
    is_async: bool
    model_id: str = ""
    function_name: str = ""
    error: str = ""
    remote_job: dict[str, Any] = {}
    progress: dict[str, Any] = {}


class PredictBody(msgspec.Struct):
    """Parameters that override those of the model's connector, and where ML Commons reports a failed job."""

    parameters: dict[str, Any] = {}
    dlq: dict[str, Any] = {}


class SearchBody(msgspec.Struct):
    """A search, in OpenSearch's query language."""

    query: dict[str, Any] = {}
    size: int = 10
    from_: int = msgspec.field(default=0, name="from")
    sort: list[Any] | dict[str, Any] | str = []
    source: bool | str | list[str] | dict[str, Any] = msgspec.field(default=True, name="_source")


class TotalHits(msgspec.Struct):
    """The number of hits, or a lower bound of it."""

    value: int
    relation: Literal["eq", "gte"]


class Hits(msgspec.Struct):
    """The hits of a search; each has `_index`, `_id` and `_source`."""

    total: TotalHits
    max_score: float | None
    hits: list[dict[str, Any]]


class Found(msgspec.Struct):
    """The answer to a search."""

    took: int
    timed_out: bool
    hits: Hits
    shards: dict[str, Any] = msgspec.field(name="_shards")


class Cancelled(msgspec.Struct):
    """The job is being cancelled."""

    status: Literal["OK"]


class ErrorCause(msgspec.Struct):
    """Kind and reason of an error."""

    type: str
    reason: str


class ErrorDetail(ErrorCause):
    """An error and its causes."""

    root_cause: list[ErrorCause]


class Refusal(msgspec.Struct):
    """An error, as OpenSearch answers it."""

    error: ErrorDetail
    status: int


SHAPES = (RequestBody, IngestionStarted, JobStarted, MLTask, PredictBody, SearchBody, Found, Cancelled, Refusal)
SECURITY = {
    "password": {"type": "http", "scheme": "basic"},
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
}
# The statuses with which each request can be refused, and those for requests with a body in addition.
REFUSALS = (400, 401, 403, 404, 429, 503)
BODY_REFUSALS = (406, 409, 413)


def reference(shape: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the content of a request or response of this shape."""
    return {"content": {JSON: {"schema": {"$ref": REFERENCE.format(name=shape.__name__)}}}}


def documented(shape: type[msgspec.Struct], body: type[msgspec.Struct] | None = None) -> dict[str, Any]:
    """Return the arguments of a route that describe what it returns and what it takes."""
    statuses = REFUSALS if body is None else (*REFUSALS, *BODY_REFUSALS)
    refusals = {status: {"description": "refused", **reference(Refusal)} for status in statuses}
    extra = {} if body is None else {"requestBody": reference(body)}
    return {"responses": {200: {"description": str(shape.__doc__), **reference(shape)}, **refusals}} | (
        {"openapi_extra": extra} if extra else {}
    )


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the app."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, schemas = msgspec.json.schema_components(SHAPES, ref_template=REFERENCE)
    for methods in document["paths"].values():
        for operation in methods.values():
            # FastAPI's own answer to invalid parameters; here it is a refusal like others.
            operation["responses"].pop("422", None)
    components = document.setdefault("components", {})
    components["schemas"] = schemas
    components["securitySchemes"] = SECURITY
    document["security"] = [{name: []} for name in SECURITY]
    return document
