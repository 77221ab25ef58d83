"""Converts HTTP errors of OpenAI and Cohere. Messages of the services are dropped: they may quote the API key."""

from __future__ import annotations

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, NotFound, RetriableError, Throttled

NOT_FOUND, TOO_MANY, SERVER_ERROR = 404, 429, 500
REFUSED = frozenset({401, 403})


def error_of(what: str, service: str, status: int) -> BatchError:
    """Return the error for an HTTP status; its message starts with `what`."""
    if status in REFUSED:
        return ConfigError(
            f"{what}: {service} refuses the key ({status}); correct the connection, or the request's key"
        )
    if status == NOT_FOUND:
        return NotFound(f"{what}: not found at {service}")
    if status == TOO_MANY or status >= SERVER_ERROR:
        kind = Throttled if status == TOO_MANY else RetriableError
        return kind(f"{what}: {service} answered {status}; run again later")
    return FatalError(f"{what}: {service} answered {status}; retrying does not help")
