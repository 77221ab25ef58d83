"""A job that has ended is left as it is, also when it ends between the look at it and the call that stops it."""

from __future__ import annotations

from collections.abc import Callable

from opensearch_batch.core.errors import ConfigError, FatalError


def stop_if_live(is_live: Callable[[], bool], stop: Callable[[], None]) -> None:
    """Stop a job that is live; a refusal counts only if the job is live after it.

    Args:
        is_live: asks the service now.
        stop: asks it to stop the job.
    """
    if not is_live():
        return
    try:
        stop()
    except (ConfigError, FatalError):
        if is_live():
            raise
