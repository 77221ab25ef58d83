"""Resolves a connection id to an Airflow connection, or to one that a Data Prepper file describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.configuration import conf

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.hooks.file_conn_ids import is_in_file
from opensearch_batch.hooks.stored_connections import find_stored_connection, stored_connection

if TYPE_CHECKING:
    from airflow.sdk import Connection

OPENSEARCH_CONN_ID = "opensearch_default"
AWS_CONN_ID = "aws_default"
# Default of the option `request_connections`: the connections that a request may use.
REQUEST_CONNECTIONS = "opensearch_default, aws_default, openai_default"
# Ids of connections of runs begin with this.
RUN_CONNECTION = "opensearch_batch_run."


def connection(conn_id: str, conn_type: str) -> Connection:
    """Return the connection with this id; raise ConfigError if it is unknown, or Airflow's but of another type."""
    if is_in_file(conn_id):
        from opensearch_batch.hooks.file_connections import connection_at

        return connection_at(conn_id)
    return stored_connection(conn_id, conn_type)


def refuse_unlisted_conn_ids(*conn_ids: str) -> None:
    """Raise ConfigError if a request may not use one of these connections.

    Without this check, any user who can trigger a run could use any Airflow connection. Airflow's configuration lists
    the allowed connections: option ``request_connections`` in section ``opensearch_batch``.
    """
    listed = conf.get("opensearch_batch", "request_connections", fallback=REQUEST_CONNECTIONS)
    allowed = [conn_id.strip() for conn_id in (listed or "").split(",")]
    for conn_id in conn_ids:
        if conn_id not in allowed:
            raise ConfigError(
                f"a request may not use connection {conn_id!r}; allowed: {', '.join(allowed)} (option "
                "request_connections of [opensearch_batch] in Airflow's configuration)"
            )


def run_conn_id(dag_id: str, run_id: str) -> str:
    """Return the id of the connection with the credential of a request, which only the run of the request may use.

    The id follows from the run, so it need not be listed.
    """
    return f"{RUN_CONNECTION}{dag_id}.{run_id}"


def require_run_connection(conn_id: str, conn_type: str) -> None:
    """Raise ConfigError if the connection of a run was removed: the run had ended, and a user started it again."""
    if conn_id.startswith(RUN_CONNECTION) and find_stored_connection(conn_id, conn_type) is None:
        raise ConfigError("the credential of this run was removed when the run had ended; send the request again")


def configured_work_prefix() -> str | None:
    """Return the work prefix of requests in Airflow's configuration, None if it has none."""
    prefix: str | None = conf.get("opensearch_batch", "work_prefix", fallback=None)
    return prefix or None


def base_url(conn: Connection) -> str | None:
    """Return the base URL of an HTTP connection, with its path; None if the connection has no host."""
    if not conn.host:
        return None
    host = conn.host if "://" in conn.host else f"{conn.schema or 'https'}://{conn.host}"
    if not conn.port:
        return host
    scheme, _, rest = host.partition("://")
    name, slash, path = rest.partition("/")
    return f"{scheme}://{name}:{conn.port}{slash}{path}"
