"""Code that SageMaker and Bedrock share: job names, conversion of boto3 errors and responses."""

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
# SageMaker has no error code for an unknown job.
_COULD_NOT_FIND = "Could not find requested job"


def aws_job_name(prefix: str, folder: str, submission: int) -> str:
    """Return a job's name: at most 63 letters, digits and hyphens.

    The name must be unique per account and region, so it contains a digest of the folder, work prefix included.
    """
    tail = f"-{digest(folder)}-{submission}"
    head = "".join(c if c.isascii() and c.isalnum() else "-" for c in prefix)[: MAX_NAME_CHARS - len(tail)]
    return (head.strip("-") or "job") + tail


class AwsJobClient(JobClient):
    """Client of an AWS service, through boto3's client `api`; the service reads its input from S3."""

    service: ClassVar[str]
    throttle_codes: ClassVar[frozenset[str]]

    def __init__(self, api: Any) -> None:  # noqa: ANN401 - boto3 makes its clients at run time
        self.api = api

    def errors(self, record: JobRecord) -> AbstractContextManager[None]:
        """Convert boto3's errors about a job."""
        return aws_errors(f"{self.service} job {record.name}", self.throttle_codes)


@contextmanager
def aws_errors(what: str, throttle_codes: frozenset[str]) -> Iterator[None]:
    """Convert boto3's errors; their messages start with `what`.

    Raises:
        NotFound: the job does not exist.
        Throttled: the service throttles.
        RetriableError: the service does not answer, or fails.
        ConfigError: the service refuses the call.
    """
    from botocore import exceptions as aws

    try:
        yield
    except aws.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _NOT_FOUND or _COULD_NOT_FIND in str(error):
            raise NotFound(f"{what}: {error}") from error
        if code in throttle_codes:
            raise Throttled(f"{what}: {error}") from error
        if status >= SERVER_ERROR:
            raise RetriableError(f"{what}: {error}") from error
        raise ConfigError(f"{what}: {error}; correct the AWS connection, or the permissions of its role") from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError, aws.ParamValidationError) as error:
        raise ConfigError(f"{what}: {error}; correct the AWS connection") from error
    except aws.BotoCoreError as error:
        raise RetriableError(f"{what}: AWS does not answer ({type(error).__name__}); run again later") from error


def plain(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return a boto3 response as JSON values: without its metadata, and times as text."""
    members = {key: value for key, value in response.items() if key != "ResponseMetadata"}
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(members))
    return decoded
