"""Builds Airflow connections from the hosts, users and roles in a Data Prepper file, when a task needs them.

The id of such a connection names a block of the file, ``<file>#<pipeline>/source``. So no template, XCom or
log contains secrets of the file. Roles are assumed with the keys of a connection that Airflow stores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from airflow.sdk import Connection

from opensearch_batch.core.data_prepper.file.ml_inference import MlInference
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile, DataPrepperPipeline
from opensearch_batch.core.data_prepper.file.s3_sink import S3Sink
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.options.aws import Aws, S3Dlq
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.opensearch.client import address_of
from opensearch_batch.hooks.file_conn_ids import MODEL, SOURCE, file_conn_id
from opensearch_batch.hooks.pipeline_files import local_file
from opensearch_batch.hooks.stored_connections import find_stored_connection, stored_connection


def connection_at(conn_id: str) -> Connection:
    """Return the connection that a block of a file describes; raise ConfigError if the file has lost the block."""
    location, _, keys = conn_id.rpartition("#")
    pipeline_name, *rest = keys.split("/")
    with local_file(location) as path:
        file = _read(path, location, path.stat().st_mtime_ns) if path.is_file() else DataPrepperFile(path)
    pipeline = next((each for each in file.pipelines if each.name == pipeline_name), None)
    if pipeline is None:
        raise ConfigError(
            f"{location}: pipeline {pipeline_name} was removed from the file since this run began; put it back, or "
            "delete the run"
        )
    try:
        return _Connections(file, pipeline).at(rest)
    except (IndexError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{location}: {keys} was removed from the file since this run began; clear the run's first task"
        ) from error


@lru_cache(maxsize=32)
def _read(path: Path, location: str, changed_at: int) -> DataPrepperFile:  # noqa: ARG001 - part of the cache key: a changed file is read again
    return DataPrepperFile(path, location)


class _Connections:
    """The connections of one pipeline."""

    def __init__(self, file: DataPrepperFile, pipeline: DataPrepperPipeline) -> None:
        self._file = file
        self._pipeline = pipeline

    def at(self, keys: list[str]) -> Connection:
        """Return the connection that the block at these keys describes."""
        match keys:
            case [str(kind)] if kind == MODEL:
                return self._model()
            case ["sink", number] if isinstance(sink := self._sink(number), OpenSearchSink):
                return self._opensearch(sink, number)
        block = self._block(keys)
        conn, owners = self._aws(block), dict[str, str | None]()
        if keys == [SOURCE]:
            source = self._pipeline.source
            owners = {bucket.name: source.owner_of(bucket.name) for bucket in source.buckets}
        elif isinstance(block, S3Dlq):
            owners = {block.bucket: block.bucket_owner}
        elif keys[0] == "sink" and isinstance(sink := self._sink(keys[1]), S3Sink):
            owners = {sink.bucket: sink.owner_of(sink.bucket)}
        conn.extra = json.dumps({**conn.extra_dejson, "bucket_owners": owners})
        return conn

    def _block(self, keys: list[str]) -> Aws:
        """Return the block with the region and the role."""
        match keys:
            case ["source"]:
                return self._pipeline.source.aws
            case ["model", "aws"]:
                return self._ml.aws
            case ["model", "dlq"] if self._ml.dlq:
                return self._ml.dlq
            case ["sink", number, ("aws" | "dlq") as name]:
                return getattr(self._sink(number), name)  # type: ignore[no-any-return] # either block
        raise KeyError(keys)

    @property
    def _ml(self) -> MlInference:
        return next(options for _, _, options in self._pipeline.processors if isinstance(options, MlInference))

    def _sink(self, number: str) -> OpenSearchSink | S3Sink:
        return self._pipeline.sinks[int(number)][1]

    def _aws(self, aws: Aws | None) -> Connection:
        """Return the stored AWS connection with the region and the role of a block."""
        # Without a stored connection, boto3 searches its usual credential sources.
        base = find_stored_connection(self._file.settings.connections.aws, "aws")
        extra = {**({} if base is None else base.extra_dejson), **(aws.connection_extra() if aws else {})}
        conn = Connection(conn_id="aws of a pipeline file", conn_type="aws", extra=json.dumps(extra))
        if base is not None:
            conn.login, conn.password = base.login, base.password
        return conn

    def _model(self) -> Connection:
        conn_id = self._file.settings.connections.model_opensearch or self._file.settings.connections.opensearch
        if conn_id:
            return stored_connection(conn_id, "opensearch")
        return self._signed((self._ml.host,), self._ml.aws, (MODEL, "aws"), "es")

    def _opensearch(self, sink: OpenSearchSink, number: str) -> Connection:
        if conn_id := self._file.settings.connections.opensearch:
            return stored_connection(conn_id, "opensearch")
        if sink.aws is not None:
            service = "aoss" if sink.aws.serverless else "es"
            return self._signed(sink.hosts, sink.aws, ("sink", number, "aws"), service, sink.path_prefix)
        extra: dict[str, Any] = {"verify_certs": not sink.insecure}
        if sink.cert and not sink.insecure:
            extra["ca_certs"] = sink.cert
        conn = self._at_hosts(sink.hosts, extra, sink.path_prefix)
        user, password = sink.credentials.username, sink.credentials.password
        conn.login = None if user is None else user.value
        conn.password = None if password is None else password.value
        return conn

    def _signed(
        self, hosts: Sequence[str], aws: Aws, keys: tuple[str, ...], service: str, prefix: str | None = None
    ) -> Connection:
        conn_id = file_conn_id(self._file.location, self._pipeline.name, *keys)
        return self._at_hosts(hosts, {"aws_conn_id": conn_id, "region_name": aws.region, "service": service}, prefix)

    def _at_hosts(self, urls: Sequence[str], extra: dict[str, Any], prefix: str | None) -> Connection:
        address = address_of(*urls)
        extra |= {"use_ssl": address.use_ssl, "url_prefix": (prefix or address.url_prefix).strip("/")}
        return Connection(
            conn_id="opensearch of a pipeline file",
            conn_type="opensearch",
            host=address.host,
            port=address.port,
            extra=json.dumps(extra),
        )
