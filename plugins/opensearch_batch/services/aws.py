"""What SageMaker and Bedrock share: names of jobs, errors of boto3, answers as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

import msgspec

from opensearch_batch.core.errors import ConfigError, NotFound, RetriableError, Throttled
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.services.clients import JobClient

MAX_NAME_CHARS = 63
SERVER_ERROR = 500
_NOT_FOUND = frozenset({"ResourceNotFoundException", "ResourceNotFound"})
# SageMaker has no code of its own for a job it does not know.
_COULD_NOT_FIND = "Could not find requested job"


def job_name(prefix: str, folder: str, submission: int) -> str:
    """Return a job's name: letters, digits and hyphens, at most 63.

    An account and region take a name once, so the digest of the folder, work prefix included, is a part of it.
    """
    tail = f"-{digest(folder)}-{submission}"
    head = "".join(c if c.isascii() and c.isalnum() else "-" for c in prefix)[: MAX_NAME_CHARS - len(tail)]
    return (head.strip("-") or "job") + tail


class AwsJobClient(JobClient):
    """The client of one of AWS's services, which reads its input from S3."""

    service: ClassVar[str]
    throttle_codes: ClassVar[frozenset[str]]

    def __init__(self, api: Any) -> None:  # noqa: ANN401 - boto3 makes its clients at run time
        self.api = api

    def errors(self, record: JobRecord) -> AbstractContextManager[None]:
        """Turn boto3's errors about a job into ours."""
        return aws_errors(f"{self.service} job {record.name}", self.throttle_codes)


@contextmanager
def aws_errors(what: str, throttle_codes: frozenset[str]) -> Iterator[None]:
    """Turn boto3's errors into ours; `what` begins their messages.

    Raises:
        NotFound: no such job. Throttled: the service throttles. RetriableError: it does not answer, or fails.
        ConfigError: it refuses the call.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
    )

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _NOT_FOUND or _COULD_NOT_FIND in str(error):
            raise NotFound(f"{what}: {error}") from error
        if code in throttle_codes:
            raise Throttled(f"{what}: {error}") from error
        if status >= SERVER_ERROR:
            raise RetriableError(f"{what}: {error}") from error
        raise ConfigError(f"{what}: {error}; mend the AWS connection, or what its role may do") from error
    except (NoCredentialsError, PartialCredentialsError, ParamValidationError) as error:
        raise ConfigError(f"{what}: {error}; mend the AWS connection") from error
    except BotoCoreError as error:
        raise RetriableError(f"{what}: AWS does not answer ({type(error).__name__}); run again later") from error


def plain(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer as JSON: times as text, without what boto3 adds."""
    kept = {key: value for key, value in answer.items() if key != "ResponseMetadata"}
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(kept))
    return decoded
