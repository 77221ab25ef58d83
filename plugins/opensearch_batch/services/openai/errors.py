"""OpenAI's errors become ours; its messages may quote the key, so they are not repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opensearch_batch.core.errors import ConfigError, FatalError, NotFound, RetriableError, Throttled
from opensearch_batch.services.openai.adapter import OpenAIAdapter


@contextmanager
def openai_errors(what: str) -> Iterator[None]:
    """Turn the API client's errors into ours; `what` begins their messages.

    Raises:
        ConfigError: OpenAI refuses the key, or the account's budget is spent.
        NotFound: there is nothing of this id.
        Throttled: OpenAI throttles.
        RetriableError: OpenAI does not answer, or fails.
        FatalError: OpenAI refuses the call for another reason.
    """
    import openai

    try:
        yield
    except openai.NotFoundError:
        raise NotFound(f"{what}: OpenAI has nothing of this id") from None
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise ConfigError(
            f"{what}: OpenAI refuses the key ({error.status_code}); mend openAI_key or the connection"
        ) from None
    except openai.RateLimitError as error:
        if error.code in OpenAIAdapter.errors.refuse:
            raise ConfigError(f"{what}: OpenAI answers {error.code}; raise the account's budget there") from None
        raise Throttled(f"{what}: OpenAI answered 429; run again later") from None
    except openai.InternalServerError as error:
        raise RetriableError(f"{what}: OpenAI answered {error.status_code}; run again later") from None
    except openai.APIStatusError as error:
        raise FatalError(f"{what}: OpenAI answered {error.status_code}; no retry helps") from None
    except openai.APIConnectionError:
        raise RetriableError(f"{what}: OpenAI does not answer; run again later") from None
