"""What Cohere's operations share. An error is a status and a message, in the API's own form.

The API key is the secret of the stack's key pair.
"""

import re
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from include.local_stack.ai_services.faults import FaultKind
from include.local_stack.ai_services.service import Context, bearer_key

NAME = "cohere"
HOSTS = re.compile(r"api\.cohere\.(com|ai)(:443)?")
# An embed job has no word for expired.
FAULTS = frozenset(FaultKind) - {FaultKind.EXPIRE}


class CohereError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def admit(context: Context, request: Request, operation: str) -> None:
    """Check the key, then strike with a fault that was asked for."""
    key = bearer_key(request)
    if not key:
        raise CohereError(401, "no api key supplied")
    if not context.knows(key):
        raise CohereError(401, "invalid api token")
    context.faults.strike(NAME, operation, _ERRORS)


def lose_response(context: Context, operation: str) -> None:
    """Answer what was done with a server error, if that was asked for."""
    context.faults.strike(NAME, operation, {FaultKind.LOST_RESPONSE: server_error})


async def body_of(request: Request) -> dict[str, Any]:
    """Read a JSON body."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise CohereError(400, f"invalid request: {error}") from error


def answer(content: Any) -> Response:  # noqa: ANN401 - any JSON value
    """Answer with JSON."""
    return Response(msgspec.json.encode(content), media_type="application/json")


async def error_response(_: Request, error: Exception) -> Response:
    """Answer an error in the API's form."""
    if not isinstance(error, CohereError):
        raise error
    return JSONResponse({"id": str(uuid.uuid4()), "message": str(error)}, status_code=error.status)


def meta(version: str = "1", *, input_tokens: int | None = None) -> dict[str, Any]:
    """Return what an answer says of the API and of what is billed."""
    billed = {} if input_tokens is None else {"billed_units": {"input_tokens": input_tokens}}
    return {"api_version": {"version": version}, **billed}


def iso(at_s: float) -> str:
    """Return a time as the API writes it."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def server_error() -> CohereError:
    """Say that it is not the request's fault."""
    return CohereError(500, "internal server error, this has been reported to our developers")


def _throttled() -> CohereError:
    return CohereError(429, "too many requests: you are limited to 2000 API calls / minute")


def _quota() -> CohereError:
    return CohereError(
        429,
        "You are using a Trial key, which is limited to 1000 API calls / month. You can continue to use the Trial key"
        " for free or upgrade to a Production key with higher rate limits.",
    )


_ERRORS = {FaultKind.THROTTLE: _throttled, FaultKind.QUOTA: _quota, FaultKind.ERROR: server_error}
