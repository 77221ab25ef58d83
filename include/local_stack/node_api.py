"""The stack's own calls of its node: over TLS and signed in when the node has its Security plugin, never by a proxy."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from pathlib import Path

import msgspec

from include.local_stack.settings import LOOPBACK

TIMEOUT_S = 5


class NodeAPI(msgspec.Struct, frozen=True):
    """One node and, when it is secured, who calls it and whose certificate it shows."""

    port: int
    user: str = ""
    password: str = ""
    ca_certs: Path | None = None

    def __repr__(self) -> str:
        """Hide the password from logs and tracebacks."""
        return f"NodeAPI(port={self.port}, user={self.user!r})"

    def call(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        """Send one request and return status and JSON; status 0 when there was no such answer."""
        headers = {"Content-Type": "application/json"}
        if self.user:
            login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        try:
            connection = self._connection()
        except OSError:
            return 0, {}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        except (OSError, http.client.HTTPException, ValueError):
            return 0, {}
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if not self.ca_certs:
            return http.client.HTTPConnection(LOOPBACK, self.port, timeout=TIMEOUT_S)
        trusted = ssl.create_default_context(cafile=str(self.ca_certs))
        return http.client.HTTPSConnection(LOOPBACK, self.port, timeout=TIMEOUT_S, context=trusted)
