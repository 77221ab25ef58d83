"""Cohere's errors become ours; its messages may quote the key, so they are not repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opensearch_batch.core.errors import ConfigError, FatalError, NotFound, RetriableError, Throttled

TOO_MANY, SERVER_ERROR, NOT_FOUND = 429, 500, 404
REFUSED = frozenset({401, 403})


@contextmanager
def cohere_errors(what: str) -> Iterator[None]:
    """Turn the API client's errors into ours; `what` begins their messages.

    Raises:
        ConfigError: Cohere refuses the key.
        NotFound: there is nothing of this id.
        Throttled: Cohere throttles.
        RetriableError: Cohere does not answer, or fails.
        FatalError: Cohere refuses the call for another reason.
    """
    import httpx
    from cohere.core import ApiError
    from cohere.errors import NotFoundError

    try:
        yield
    except NotFoundError:
        raise NotFound(f"{what}: Cohere has nothing of this id") from None
    except ApiError as error:
        status = error.status_code or 0
        if status in REFUSED:
            raise ConfigError(f"{what}: Cohere refuses the key ({status}); mend the connection") from None
        if status == TOO_MANY:
            raise Throttled(f"{what}: Cohere answered {status}") from None
        if status >= SERVER_ERROR:
            raise RetriableError(f"{what}: Cohere answered {status}; run again later") from None
        raise FatalError(f"{what}: Cohere answered {status}") from None
    except httpx.HTTPError as error:
        raise RetriableError(f"{what}: Cohere does not answer ({type(error).__name__}); run again later") from None
