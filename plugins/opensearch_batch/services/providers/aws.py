"""What AWS's clients say becomes one of our errors, and what they answer becomes JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, NotFound, RetriableError, Throttled

SERVER_ERROR = 500
_NOT_FOUND = frozenset({"ResourceNotFoundException", "ResourceNotFound"})
# SageMaker has no code of its own for a job it does not know.
_COULD_NOT_FIND = "Could not find requested job"


@contextmanager
def aws_errors(place: str, throttle_codes: frozenset[str]) -> Iterator[None]:
    """Explain boto3's errors.

    Raises:
        NotFound: no such job. Throttled: not now. RetriableError: the service stays away. ConfigError: it refuses us.
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
            raise NotFound(f"{place}: {error}") from error
        if code in throttle_codes:
            raise Throttled(f"{place}: {error}") from error
        if status >= SERVER_ERROR:
            raise RetriableError(f"{place}: {error}") from error
        raise ConfigError(f"{place}: {error}; mend the AWS connection, or what its role may do") from error
    except (NoCredentialsError, PartialCredentialsError, ParamValidationError) as error:
        raise ConfigError(f"{place}: {error}; mend the AWS connection") from error
    except BotoCoreError as error:
        raise RetriableError(f"{place}: AWS does not answer ({type(error).__name__}); run again later") from error


def plain(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer as JSON: times as text, without what boto3 adds."""
    kept = {key: value for key, value in answer.items() if key != "ResponseMetadata"}
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(kept))
    return decoded
