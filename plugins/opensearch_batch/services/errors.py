"""Errors of services with a key; the services' messages may quote the key, so they are not repeated."""

from __future__ import annotations

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, NotFound, RetriableError, Throttled

NOT_FOUND, TOO_MANY, SERVER_ERROR = 404, 429, 500
REFUSED = frozenset({401, 403})


def error_of(what: str, service: str, status: int) -> BatchError:
    """Return the error that an HTTP status means; `what` begins its message."""
    if status in REFUSED:
        return ConfigError(f"{what}: {service} refuses the key ({status}); mend the connection, or the request's key")
    if status == NOT_FOUND:
        return NotFound(f"{what}: {service} has nothing of this id")
    if status == TOO_MANY:
        return Throttled(f"{what}: {service} answered {status}; run again later")
    if status >= SERVER_ERROR:
        return RetriableError(f"{what}: {service} answered {status}; run again later")
    return FatalError(f"{what}: {service} answered {status}; no retry helps")
