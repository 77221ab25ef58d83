"""What a request may cost the api-server, which also serves Airflow's UI and the heartbeats of its tasks.

Bodies have a maximum size. Blocking calls run in threads of their own, a few at once; a request that finds all of them
busy is refused at once, with the time after which to try again. So nothing queues without a bound, and the threads that
the api-server has for its other requests stay free.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import ParamSpec, TypeVar

import msgspec
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Request

from opensearch_batch.ui.responses import JSON, PARSING, ApiError

P = ParamSpec("P")
T = TypeVar("T")
MAX_BODY_BYTES = 1_000_000
GZIP_WINDOW = zlib.MAX_WBITS | 16
_UNDECODABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
# PostgreSQL stores no text with this character.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Lane:
    """Runs blocking calls in threads, at most `at_once`; a call beyond that is refused (429)."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._busy = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread and return its result."""
        if self._busy >= self.at_once:
            reason = f"this process already runs {self.at_once} requests of this kind, its maximum; try again"
            raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, reason, retry_after_s=1)
        self._busy += 1
        try:
            # With a limiter of its own, the call takes none of the threads that all apps of the process share.
            return await run_sync(partial(function, *args, **kwargs), limiter=CapacityLimiter(1))
        finally:
            self._busy -= 1


async def json_object(request: Request) -> dict[str, object]:
    """Return the body of a request, a JSON object; ``{}`` if it has none."""
    content = await _content(request)
    if not content.strip():
        return {}
    kind = request.headers.get("Content-Type", "")
    if kind.partition(";")[0].strip().lower() != JSON:
        raise ApiError(HTTPStatus.NOT_ACCEPTABLE, f"Content-Type header [{kind}] is not supported; send {JSON}")
    try:
        value = msgspec.json.decode(content)
        # Fails for unpaired surrogates, which no database stores.
        msgspec.json.encode(value)
    except _UNDECODABLE as error:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"the body is not JSON ({error})", kind=PARSING) from None
    if not isinstance(value, dict):
        raise ApiError(HTTPStatus.BAD_REQUEST, "the body is not a JSON object", kind=PARSING)
    if _NUL.search(content):
        raise ApiError(HTTPStatus.BAD_REQUEST, "a string has the character \\u0000; remove it", kind=PARSING)
    return value


async def _content(request: Request) -> bytes:
    """Read the body, decompressed if it is gzip; stop when it is too large."""
    is_gzip = request.headers.get("Content-Encoding", "").strip().lower() == "gzip"
    unzip, content = zlib.decompressobj(GZIP_WINDOW), bytearray()
    async for chunk in request.stream():
        try:
            content += unzip.decompress(chunk, MAX_BODY_BYTES + 1) if is_gzip else chunk
        except zlib.error:
            raise ApiError(HTTPStatus.BAD_REQUEST, "the body is not gzip", kind=PARSING) from None
        if len(content) > MAX_BODY_BYTES:
            reason = f"the body has more than {MAX_BODY_BYTES} bytes"
            raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
    return bytes(content)
