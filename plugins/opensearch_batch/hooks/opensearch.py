"""Airflow connections become clients here and nowhere else, so secrets stay inside the clients.

The connection types are those of apache-airflow-providers-opensearch and apache-airflow-providers-amazon.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.opensearch.client import Address, Signing, Tls, opensearch_client
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.opensearch.ml_commons import MLCommons
from opensearch_batch.core.pipeline.file import SUFFIXES
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.hooks.connections import needed

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from opensearchpy import OpenSearch

OPENSEARCH_CONN_ID = "opensearch_default"
AWS_CONN_ID = "aws_default"
KEEP_S = 300.0
PLACE_MARKS = tuple(f"{suffix}#" for suffix in SUFFIXES)
T = TypeVar("T")


class OpenSearchMLHook(BaseHook):
    """OpenSearch and its ML Commons plugin, from an Airflow connection of type ``opensearch``.

    Host, port, login and password as usual; in the extra: `use_ssl`, `verify_certs` (default true), `ca_certs`
    (a file), `ssl_assert_hostname`, `url_prefix`, and for Amazon OpenSearch Service `aws_conn_id`, `region_name` and
    `service` (``es`` or ``aoss``), which sign each request with SigV4 in place of a password.

    Args:
        opensearch_conn_id: the connection.

    Raises:
        ConfigError: the connection is missing or cannot make a client.
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
        use_ssl = flag(extra.get("use_ssl", conn.schema == "https"))
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
        """The cluster."""
        return Cluster(self.get_conn(), f"{self.opensearch_conn_id} ({self._connection.host}:{self._connection.port})")

    @cached_property
    def ml(self) -> MLCommons:
        """Its ML Commons plugin: connectors, models, batch jobs and tasks."""
        return MLCommons(self.cluster)


class _Slot(Generic[T]):
    """A client, until when it is kept, and who makes it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: T | None = None
        self.until = 0.0


class Shared:
    """Clients of one process that are made once for all its threads, and again after a while.

    A triggerer has thousands of waits: a client each would take it minutes. What is made again reads its connection
    anew, so that rotated credentials are taken up.

    Args:
        keep_s: how long a client is given out.
        clock: seconds.
    """

    def __init__(self, *, keep_s: float = KEEP_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s = keep_s
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: dict[Hashable, _Slot[Any]] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the client of this key; one thread makes it, others wait for it. An error of `make` is not kept."""
        with self._lock:
            slot: _Slot[T] = self._slots.setdefault(key, _Slot())
        with slot.lock:
            if slot.client is None or self._clock() >= slot.until:
                slot.client = make()
                slot.until = self._clock() + self._keep_s
            return slot.client


def objects(aws_conn_id: str = AWS_CONN_ID) -> S3Objects:
    """Return the object storage of an AWS connection.

    Raises:
        ConfigError: there is no such connection.
    """
    owners = connection(aws_conn_id, "aws").extra_dejson.get("bucket_owners") or {}
    client = _aws_hook(aws_conn_id, "s3").get_conn()
    if any(owners.values()):
        _expect(client, owners)
    return S3Objects(client)


def aws_client(name: str, aws_conn_id: str = AWS_CONN_ID) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
    """Return a client of one of AWS's services.

    Raises:
        ConfigError: there is no such connection.
    """
    connection(aws_conn_id, "aws")
    return _aws_hook(aws_conn_id, name).get_conn()


def connector_credential(aws_conn_id: str = AWS_CONN_ID, *, role_arn: str | None = None) -> dict[str, str]:
    """Return the ``credential`` of an ML Commons connector.

    Amazon OpenSearch Service takes a role; open-source ML Commons requires keys and gets the AWS connection's.
    """
    if role_arn:
        return {"roleArn": role_arn}
    connection(aws_conn_id, "aws")
    credentials = _aws_hook(aws_conn_id).get_credentials()
    # Airflow masks what a connection holds; the keys of an assumed role come from elsewhere.
    for secret in (credentials.secret_key, credentials.token):
        if secret:
            mask_secret(secret)
    keys = {"access_key": credentials.access_key, "secret_key": credentials.secret_key}
    return keys | ({"session_token": credentials.token} if credentials.token else {})


def connection(conn_id: str, conn_type: str) -> Connection:
    """Return an Airflow connection, or what a place in a Data Prepper file says in place of one.

    Raises:
        ConfigError: there is none of this id.
    """
    if is_place(conn_id):
        from opensearch_batch.hooks.data_prepper import connection_at

        return connection_at(conn_id)
    return needed(conn_id, conn_type)


def _expect(client: Any, owners: dict[str, str | None]) -> None:  # noqa: ANN401 - boto3 makes its clients at run time
    """Let each request say who must own its bucket: S3 refuses one that somebody else took over."""

    def expect(params: dict[str, Any], **_: object) -> None:
        if owner := owners.get(params.get("Bucket", "")):
            params.setdefault("ExpectedBucketOwner", owner)

    client.meta.events.register("provide-client-params.s3", expect)


def is_place(conn_id: str) -> bool:
    """Say whether a connection's id is a place in a Data Prepper file, ``<file>#<pipeline>/source``."""
    return any(mark in conn_id for mark in PLACE_MARKS)


def flag(value: object) -> bool:
    """Read a boolean an extra may hold as JSON or as text."""
    return value if isinstance(value, bool) else str(value).strip().lower() in {"1", "true", "yes", "on"}


def _tls(extra: dict[str, Any]) -> Tls:
    assert_hostname = flag(extra["ssl_assert_hostname"]) if "ssl_assert_hostname" in extra else None
    return Tls(extra.get("ca_certs"), flag(extra.get("verify_certs", True)), assert_hostname)


def _signing(extra: dict[str, Any]) -> Signing | None:
    aws_conn_id = extra.get("aws_conn_id")
    if not aws_conn_id:
        return None
    session = _aws_hook(aws_conn_id).get_session(region_name=extra.get("region_name"))
    return Signing(session.get_credentials(), session.region_name, extra.get("service", "es"))


def _aws_hook(aws_conn_id: str, client_type: str = "sts") -> Any:  # noqa: ANN401 - generic over boto3's run-time clients
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    class Hook(AwsBaseHook):
        """Knows the connections that stand in a file, too."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Connection:
            return connection(conn_id, "aws") if is_place(conn_id) else super().get_connection(conn_id)

    return Hook(aws_conn_id=aws_conn_id, client_type=client_type)
