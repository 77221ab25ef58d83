"""Retries S3 requests for longer than boto3, whose own retries end after about two seconds.

Throttling, a conflicting request, a skewed clock, and a HEAD that fails without a reason usually pass within minutes.
These errors are retried for five minutes, as long as bulk requests to the cluster; other errors are retried by boto3.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

RETRY_WINDOW_S = 300.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 20.0
BUSY_STATUSES = frozenset({429, 502, 503, 504})
BUSY_CODES = frozenset(
    {
        *("SlowDown", "TooManyRequests", "TooManyRequestsException", "RequestLimitExceeded", "RequestTimeout"),
        *("OperationAborted", "ConditionalRequestConflict", "RequestTimeTooSkewed"),
    }
)
BAD_REQUEST = 400
_SINCE = "opensearch_batch_since"


class BusyRetries(msgspec.Struct, frozen=True):
    """Handles botocore's event ``needs-retry``: sleeps before the next attempt, for `RETRY_WINDOW_S` in all."""

    clock: Callable[[], float]
    sleep: Callable[[float], None]

    def __call__(
        self, *, response: tuple[Any, dict[str, Any]] | None, attempts: int, request_dict: dict[str, Any], **_: object
    ) -> float | None:
        """Return 0 to send the request again at once, None to leave the decision to boto3."""
        if response is None:
            return None
        method, status = request_dict["method"], response[0].status_code
        if not is_busy(str(response[1].get("Error", {}).get("Code", "")), status, method):
            return None
        since = request_dict["context"].setdefault(_SINCE, self.clock())
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempts, 10)) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
        if self.clock() + pause_s > since + RETRY_WINDOW_S:
            return None
        self.sleep(pause_s)
        return 0.0


def is_busy(code: str, status: int, method: str) -> bool:
    """Return whether the same request may succeed within minutes.

    The response to a HEAD has no body and thus no error code, so its 400 may mean KMS throttling or a skewed clock.
    """
    if status in BUSY_STATUSES or code in BUSY_CODES or "throttl" in code.lower():
        return True
    return method == "HEAD" and status == BAD_REQUEST
