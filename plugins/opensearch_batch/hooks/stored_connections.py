"""Connections that Airflow stores: in its database, in a secrets backend or in environment variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from opensearch_batch.core.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import Connection


CONN_ID = re.compile(r"[\w.-]+")
# Requested type -> types that the connection may have; a type that is not listed accepts only itself.
ACCEPTED_TYPES = {"http": ("http", "generic")}


def find_stored_connection(conn_id: str, conn_type: str) -> Connection | None:
    """Return a connection, None if Airflow stores none; raise ConfigError for an invalid id or another type."""
    if not CONN_ID.fullmatch(conn_id):
        raise ConfigError(f"{conn_id!r} is not a connection id; an id has only letters, digits, _, . and -")
    try:
        conn = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return None
    types = ACCEPTED_TYPES.get(conn_type, (conn_type,))
    if conn.conn_type not in types:
        raise ConfigError(f"connection {conn_id}: its type is {conn.conn_type}, not {' or '.join(types)}")
    return conn


def stored_connection(conn_id: str, conn_type: str) -> Connection:
    """Return a connection; raise ConfigError if the id is invalid, or Airflow stores none with this type."""
    conn = find_stored_connection(conn_id, conn_type)
    if conn is None:
        raise ConfigError(f"no Airflow connection {conn_id!r}; create one of type {conn_type} under Admin, Connections")
    return conn
