"""Turns errors of the `cohere` client into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opensearch_batch.core.errors import RetriableError
from opensearch_batch.services.errors import error_of


@contextmanager
def cohere_errors(what: str) -> Iterator[None]:
    """Turn the client's errors into ours; `what` begins their messages.

    Raises:
        BatchError: as in `error_of`.
        RetriableError: Cohere does not answer.
    """
    import httpx
    from cohere.core import ApiError

    try:
        yield
    except ApiError as error:
        raise error_of(what, "Cohere", error.status_code or 0) from None
    except httpx.HTTPError as error:
        raise RetriableError(f"{what}: Cohere does not answer ({type(error).__name__}); run again later") from None
