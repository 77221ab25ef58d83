"""What Cohere's client says becomes one of our errors; its messages may quote a key, so they are not repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opensearch_batch.core.errors import ConfigError, FatalError, NotFound, RetriableError, Throttled

TOO_MANY, SERVER_ERROR, NOT_FOUND = 429, 500, 404
REFUSED = frozenset({401, 403})


@contextmanager
def cohere_errors(place: str) -> Iterator[None]:
    """Explain the client's errors.

    Raises:
        ConfigError: the key is refused. NotFound: nothing of this name. Throttled: not now. RetriableError: the service
        stays away. FatalError: anything else it refuses.
    """
    import httpx
    from cohere.core import ApiError
    from cohere.errors import NotFoundError

    try:
        yield
    except NotFoundError:
        raise NotFound(f"{place}: Cohere knows nothing of this name") from None
    except ApiError as error:
        status = error.status_code or 0
        if status in REFUSED:
            raise ConfigError(f"{place}: Cohere refuses the key ({status}); mend the connection") from None
        if status == TOO_MANY:
            raise Throttled(f"{place}: Cohere answered {status}") from None
        if status >= SERVER_ERROR:
            raise RetriableError(f"{place}: Cohere answered {status}; run again later") from None
        raise FatalError(f"{place}: Cohere answered {status}") from None
    except httpx.HTTPError as error:
        raise RetriableError(f"{place}: Cohere does not answer ({type(error).__name__}); run again later") from None
