"""What OpenAI's operations share. An error has the API's own form: clients retry by its status and read its code.

The API key is the secret of the stack's key pair.
"""

import re
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from include.local_stack.ai_services.faults import FaultKind
from include.local_stack.ai_services.files import UnknownFileError
from include.local_stack.ai_services.service import Context, bearer_key

NAME = "openai"
HOSTS = re.compile(r"api\.openai\.com(:443)?")


class OpenAIError(Exception):
    """An answer that is an error, in the API's own form."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def admit(context: Context, request: Request, operation: str) -> None:
    """Check the key, then strike with a fault that was asked for."""
    key = bearer_key(request)
    if not key:
        raise OpenAIError(401, "You didn't provide an API key.")
    if not context.knows(key):
        shown = f"{key[:3]}***{key[-4:]}"
        raise OpenAIError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")
    context.faults.strike(NAME, operation, _ERRORS)


def lose_response(context: Context, operation: str) -> None:
    """Answer what was done with a server error, if that was asked for."""
    context.faults.strike(NAME, operation, {FaultKind.LOST_RESPONSE: server_error})


async def body_of(request: Request) -> dict[str, Any]:
    """Read a JSON body."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise OpenAIError(400, f"We could not parse the JSON body of your request: {error}") from error


def answer(content: Any) -> Response:  # noqa: ANN401 - typed values and plain ones
    """Answer with JSON."""
    return Response(msgspec.json.encode(content), media_type="application/json")


async def error_response(_: Request, error: Exception) -> Response:
    """Answer an error in the API's form."""
    if not isinstance(error, OpenAIError):
        raise error
    return JSONResponse(error.body, status_code=error.status)


def no_such_file(error: UnknownFileError) -> OpenAIError:
    """Say that a file is not there."""
    return OpenAIError(404, f"No such File object: {error}")


def server_error() -> OpenAIError:
    """Say that it is not the request's fault."""
    return OpenAIError(500, "The server had an error while processing your request.", kind="server_error")


def _throttled() -> OpenAIError:
    return OpenAIError(429, "Rate limit reached", kind="requests", code="rate_limit_exceeded")


def _quota() -> OpenAIError:
    message = "You exceeded your current quota, please check your plan and billing details."
    return OpenAIError(429, message, kind="insufficient_quota", code="insufficient_quota")


_ERRORS = {FaultKind.THROTTLE: _throttled, FaultKind.QUOTA: _quota, FaultKind.ERROR: server_error}
