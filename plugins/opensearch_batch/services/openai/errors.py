"""Turns errors of the `openai` client into ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.services.errors import error_of
from opensearch_batch.services.openai.adapter import OpenAIAdapter


@contextmanager
def openai_errors(what: str) -> Iterator[None]:
    """Turn the client's errors into ours; `what` begins their messages.

    Raises:
        BatchError: as in `error_of`; ConfigError when the account's budget is spent, though the status is 429.
        RetriableError: OpenAI does not answer.
    """
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        if error.code in OpenAIAdapter.errors.refuse:
            raise ConfigError(f"{what}: OpenAI answers {error.code}; raise the account's budget there") from None
        raise error_of(what, "OpenAI", error.status_code) from None
    except openai.APIConnectionError:
        raise RetriableError(f"{what}: OpenAI does not answer; run again later") from None
