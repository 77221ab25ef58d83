"""What all AWS-shaped services share. An error has AWS's status, type and body: clients retry by them."""

import uuid

from fastapi import Request, Response
from fastapi.responses import JSONResponse

REGION = "us-east-1"
ACCOUNT = "123456789012"


class AwsError(Exception):
    """An answer other than 200, as the AWS protocols spell it."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(f"{status} {kind}: {message}")
        self.status = status
        self.kind = kind
        self.message = message


def validation_error(message: str) -> AwsError:
    """The request is wrong and stays wrong: no client retries it."""
    return AwsError(400, "ValidationException", message)


def arn(service: str, resource: str) -> str:
    """The name of a resource in the one account and region there is."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def error_response(_request: Request, error: Exception) -> Response:
    """JSON protocols read `__type`, REST protocols the header; both are always sent."""
    if not isinstance(error, AwsError):
        raise error
    return JSONResponse(
        {"__type": error.kind, "message": error.message},
        status_code=error.status,
        headers={"x-amzn-ErrorType": error.kind, "x-amzn-RequestId": str(uuid.uuid4())},
    )
