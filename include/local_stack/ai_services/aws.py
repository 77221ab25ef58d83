"""What all AWS-shaped services share. An error has AWS's status, type and body: clients retry by them."""

import uuid

from fastapi import Request, Response
from fastapi.responses import JSONResponse

REGION = "us-east-1"
# Bedrock has a REST protocol, SageMaker a JSON protocol.
REST_PATHS = "/model"
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


def error_response(request: Request, error: Exception) -> Response:
    """JSON protocols have the code in `__type` also, REST protocols in the header alone."""
    if not isinstance(error, AwsError):
        raise error
    named = {} if request.url.path.startswith(REST_PATHS) else {"__type": error.kind}
    return JSONResponse(
        {**named, "message": error.message},
        status_code=error.status,
        headers={"x-amzn-ErrorType": error.kind, "x-amzn-RequestId": str(uuid.uuid4())},
    )
