"""OpenSearch and its ML Commons plugin, from an Airflow connection.

The connection type is that of apache-airflow-providers-opensearch.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.opensearch.client import Address, Signing, Tls, opensearch_client
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.opensearch.ml_commons import MLCommons
from opensearch_batch.hooks.aws import aws_hook
from opensearch_batch.hooks.connections import OPENSEARCH_CONN_ID, connection

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from opensearchpy import OpenSearch


class OpenSearchMLHook(BaseHook):
    """OpenSearch and its ML Commons plugin, from an Airflow connection of type ``opensearch``.

    Host, port, login and password as usual; the host may name several nodes of the cluster, separated by commas, with
    ports of their own: ``node-1,node-2:9201``. In the extra: `use_ssl`, `verify_certs` (default true), `ca_certs` (a
    file), `ssl_assert_hostname`, `url_prefix`, and for Amazon OpenSearch Service `aws_conn_id`, `region_name` and
    `service` (``es`` or ``aoss``): with `aws_conn_id`, requests are signed with SigV4 and need no password.
    """

    conn_name_attr = "opensearch_conn_id"
    default_conn_name = OPENSEARCH_CONN_ID
    conn_type = "opensearch"
    hook_name = "OpenSearch ML Commons"

    def __init__(self, opensearch_conn_id: str = OPENSEARCH_CONN_ID) -> None:
        super().__init__()
        self.opensearch_conn_id = opensearch_conn_id

    @cached_property
    def _connection(self) -> Connection:
        return connection(self.opensearch_conn_id, "opensearch")

    def get_conn(self) -> OpenSearch:
        """Return an opensearch-py client."""
        conn, extra = self._connection, self._connection.extra_dejson
        if not conn.host:
            raise ConfigError(f"connection {self.opensearch_conn_id}: no host; give the cluster's host name")
        use_ssl = _flag(extra.get("use_ssl", conn.schema == "https"))
        if conn.password and not use_ssl:
            if "use_ssl" not in extra:
                raise ConfigError(
                    f"connection {self.opensearch_conn_id}: the password would be sent unencrypted; write "
                    '{"use_ssl": true} in the extra, or {"use_ssl": false} to allow that'
                )
            self.log.warning("connection %s sends its password unencrypted (use_ssl is false)", self.opensearch_conn_id)
        try:
            return opensearch_client(
                Address(conn.host, conn.port, use_ssl, extra.get("url_prefix") or ""),
                user=conn.login,
                password=conn.password,
                signing=_signing(extra),
                tls=_tls(extra),
            )
        except ConfigError as error:
            raise ConfigError(f"connection {self.opensearch_conn_id}: {error}") from error

    @cached_property
    def cluster(self) -> Cluster:
        """The connection's cluster."""
        conn = self._connection
        address = f"{conn.host}:{conn.port}" if conn.port else conn.host
        return Cluster(self.get_conn(), f"{self.opensearch_conn_id} ({address})")

    @cached_property
    def ml(self) -> MLCommons:
        """The cluster's ML Commons plugin: connectors, models, batch jobs and tasks."""
        return MLCommons(self.cluster)


def _flag(value: object) -> bool:
    """Read a boolean that an extra may contain as JSON or as text."""
    return value if isinstance(value, bool) else str(value).strip().lower() in {"1", "true", "yes", "on"}


def _tls(extra: dict[str, Any]) -> Tls:
    assert_hostname = _flag(extra["ssl_assert_hostname"]) if "ssl_assert_hostname" in extra else None
    return Tls(extra.get("ca_certs"), _flag(extra.get("verify_certs", True)), assert_hostname)


def _signing(extra: dict[str, Any]) -> Signing | None:
    aws_conn_id = extra.get("aws_conn_id")
    if not aws_conn_id:
        return None
    session = aws_hook(aws_conn_id).get_session(region_name=extra.get("region_name"))
    return Signing(session.get_credentials(), session.region_name, extra.get("service", "es"))
