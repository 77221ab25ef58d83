"""Connections that Airflow stores: under Admin, Connections, in a secrets backend or in an environment variable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from opensearch_batch.core.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import Connection


def find_stored_connection(conn_id: str) -> Connection | None:
    """Return a connection, None if Airflow stores none of this id."""
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None


def stored_connection(conn_id: str, conn_type: str) -> Connection:
    """Return a connection.

    Raises:
        ConfigError: Airflow stores none of this id.
    """
    conn = find_stored_connection(conn_id)
    if conn is None:
        raise ConfigError(f"no Airflow connection {conn_id!r}; create one of type {conn_type} under Admin, Connections")
    return conn
