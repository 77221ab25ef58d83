"""Responses in OpenSearch's form: ``{"error": {"root_cause": […], "type": …, "reason": …}, "status": …}``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from opensearch_batch.core.errors import (
    AlreadySubmitted,
    BatchError,
    NotFound,
    RemoteError,
    RetriableError,
    Throttled,
    TooLarge,
)

log = logging.getLogger(__name__)
JSON = "application/json"
# OpenSearch's names of the kinds of errors.
STATUS, SECURITY, ARGUMENT, PARSING = (
    "status_exception",
    "security_exception",
    "illegal_argument_exception",
    "parsing_exception",
)
RETRY_AFTER_S = 5
_STATUSES: tuple[tuple[type[BatchError], HTTPStatus], ...] = (
    (Throttled, HTTPStatus.TOO_MANY_REQUESTS),
    (RetriableError, HTTPStatus.SERVICE_UNAVAILABLE),
    (NotFound, HTTPStatus.NOT_FOUND),
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (AlreadySubmitted, HTTPStatus.CONFLICT),
)
# Statuses with which a client is told when to try again.
_LATER = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})


class ApiError(Exception):
    """The answer to a request that is refused."""

    def __init__(self, status: int, reason: str, *, kind: str = STATUS, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(reason)
        self.status = status
        self.kind = kind
        self.headers = {"Retry-After": str(retry_after_s)} if status in _LATER else {}
        if status == HTTPStatus.UNAUTHORIZED:
            # Not Basic: a browser would ask for a password, and then send it with requests of other pages, too.
            self.headers["WWW-Authenticate"] = "Bearer"


def json_response(value: object, request: Request, *, status: int = HTTPStatus.OK, **headers: str) -> Response:
    """Return a value as JSON; with ``?pretty`` in the request, with line breaks."""
    content = msgspec.json.encode(value)
    if request.query_params.get("pretty", "false") != "false":
        content = msgspec.json.format(content, indent=2) + b"\n"
    return Response(content, status, headers, JSON)


def error_response(error: ApiError, request: Request) -> Response:
    """Return an error as OpenSearch does."""
    cause = {"type": error.kind, "reason": str(error)}
    body = {"error": {"root_cause": [cause], **cause}, "status": error.status}
    return json_response(body, request, status=error.status, **error.headers)


def of_batch_error(error: BatchError) -> ApiError:
    """Convert an error of this package; one without a status of its own says that the request is wrong."""
    if isinstance(error, RemoteError):
        return ApiError(error.status, str(error))
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), HTTPStatus.BAD_REQUEST)
    return ApiError(status, str(error), kind=ARGUMENT if status == HTTPStatus.BAD_REQUEST else STATUS)


def _of_http_exception(error: HTTPException) -> ApiError:
    """Convert an error of Airflow or FastAPI."""
    is_access = error.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    return ApiError(error.status_code, str(error.detail), kind=SECURITY if is_access else STATUS)


def _of_invalid_parameter(error: RequestValidationError) -> ApiError:
    causes = (f"[{'.'.join(map(str, each['loc'][1:]))}]: {each['msg']}" for each in error.errors())
    return ApiError(HTTPStatus.BAD_REQUEST, "; ".join(causes), kind=ARGUMENT)


def _of_database_error(error: OperationalError) -> ApiError:
    log.warning("Airflow's database: %s", error.orig)
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "Airflow's database does not answer; try again")


def _of_unexpected(error: Exception) -> ApiError:
    log.error("unexpected error", exc_info=error)
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected error; the api-server's log has it", kind="exception")


def handle_errors(app: FastAPI) -> None:
    """Answer every error in OpenSearch's form."""

    def handle(kind: type[Exception], convert: Callable[..., ApiError]) -> None:
        async def handler(request: Request, error: Exception) -> Response:
            return error_response(convert(error), request)

        app.add_exception_handler(kind, handler)

    handle(ApiError, lambda error: error)
    handle(BatchError, of_batch_error)
    handle(HTTPException, _of_http_exception)
    handle(RequestValidationError, _of_invalid_parameter)
    handle(OperationalError, _of_database_error)
    handle(Exception, _of_unexpected)
