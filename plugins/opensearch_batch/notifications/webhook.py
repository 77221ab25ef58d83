"""Posts alerts to the URL of an Airflow connection; the URL itself may be a secret."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NoReturn

import structlog
from airflow.providers.http.hooks.http import HttpHook
from airflow.providers.http.notifications.http import HttpNotifier
from airflow.sdk import Connection

from opensearch_batch.hooks.connections import base_url, connection

TIMEOUT_S = 30.0


def _drop(*_: object) -> NoReturn:
    raise structlog.DropEvent


# Drops every line: the hook and the notifier log the URL, and the hook also logs the server's response.
_SILENT = structlog.wrap_logger(None, processors=[_drop])


class WebhookHook(HttpHook):
    """Sends to the URL that `base_url` reads from the connection: HTTPS, unless the connection's schema is http."""

    _log = _SILENT

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """Return a connection with the URL only, because the password is a bearer token."""
        return Connection(conn_id=conn_id, conn_type="http", host=base_url(connection(conn_id, "http")))


class WebhookNotifier(HttpNotifier):
    """Posts JSON to a connection of type ``http``, with its password as bearer token."""

    _log = _SILENT

    def __init__(self, conn_id: str, body: dict[str, Any]) -> None:
        password = connection(conn_id, "http").password
        super().__init__(
            http_conn_id=conn_id,
            json=body,
            headers={"Authorization": f"Bearer {password}"} if password else {},
            extra_options={"timeout": TIMEOUT_S},
        )

    @cached_property
    def hook(self) -> WebhookHook:
        """The hook that sends."""
        return WebhookHook(http_conn_id=self.http_conn_id)
