"""The door of Amazon OpenSearch Service: a request passes only when its signature, computed anew, is the one it has."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime

from include.local_stack.ai_services.aws import AwsError
from include.local_stack.ai_services.sigv4 import KeyPair, ReceivedRequest, verify
from tests.scripted import Answer, accept
from tests.serving import Exchange, Server

SERVICE = "es"


class Gate(Server):
    """Lets signed bulk requests through to an index that takes everything.

    Args:
        keys: the one key pair that may pass.
        tampers: change the last byte of each body before it is looked at, as somebody on the way could.
    """

    def __init__(self, keys: KeyPair, *, tampers: bool = False) -> None:
        self._keys = keys
        self._tampers = tampers
        self.passed: list[ReceivedRequest] = []
        super().__init__(self._handle)

    def _handle(self, request: Exchange) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = ReceivedRequest(request.command, request.path, headers, request.body())
        request.reply(*(self.answer(received) or (500, {})))

    def answer(self, request: ReceivedRequest) -> Answer:
        """Refuse a wrong signature as the service does, else let the documents in."""
        body = request.body
        if self._tampers:
            body = body[:-1] + bytes([body[-1] ^ 1])
        try:
            verify(
                ReceivedRequest(request.method, request.path_and_query, request.headers, body),
                keys=self._keys,
                service=SERVICE,
                now=datetime.now(UTC),
            )
        except AwsError as error:
            return error.status, {"message": error.message}
        self.passed.append(request)
        return accept(gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body)
