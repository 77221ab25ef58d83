"""Connections as Airflow stores them: a person made each under Admin, Connections, in a secrets backend or by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from opensearch_batch.core.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import Connection


def stored(conn_id: str) -> Connection | None:
    """Return a connection, None where there is none of this id."""
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None


def needed(conn_id: str, conn_type: str) -> Connection:
    """Return a connection.

    Raises:
        ConfigError: there is none of this id.
    """
    found = stored(conn_id)
    if found is None:
        raise ConfigError(f"no Airflow connection {conn_id!r}; create one of type {conn_type} under Admin, Connections")
    return found
