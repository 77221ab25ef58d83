"""What a Data Prepper file says of hosts, users and roles becomes Airflow connections where they are used.

A place in a file stands for a connection's id, ``<file>#<pipeline>/source``: so the file alone is enough, and what is
secret in it reaches no template, no XCom and no log. Roles are assumed with the keys of an Airflow connection.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opensearch_batch.core.data_prepper.file.ml_inference import MlInference
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile, DataPrepperPipeline
from opensearch_batch.core.data_prepper.file.s3_sink import S3Sink
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.options.aws import Aws, S3Dlq
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.opensearch.client import address_of
from opensearch_batch.hooks.connections import needed, stored

if TYPE_CHECKING:
    from airflow.sdk import Connection

SOURCE, MODEL = "source", "model"


def place(path: Path, pipeline: str, *keys: str | int) -> str:
    """Return the id of the connection that a place in a file is."""
    return f"{path}#{'/'.join(map(str, (pipeline, *keys)))}"


def connection_at(conn_id: str) -> Connection:
    """Return the connection that a place in a file is.

    Raises:
        ConfigError: the file has changed meanwhile and has no such place.
    """
    name, _, keys = conn_id.rpartition("#")
    pipeline_name, *rest = keys.split("/")
    path = Path(name)
    file = _read(path, path.stat().st_mtime_ns) if path.is_file() else DataPrepperFile(path)
    pipeline = next((found for found in file.pipelines if found.name == pipeline_name), None)
    if pipeline is None:
        raise ConfigError(f"{path}: no pipeline {pipeline_name} any more; it was there when this run was made")
    try:
        return _Connections(file, pipeline).at(rest)
    except (IndexError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}: nothing at {keys} any more; clear the run's first task") from error


@lru_cache(maxsize=32)
def _read(path: Path, changed_at: int) -> DataPrepperFile:  # noqa: ARG001 - a file that changed is read again
    return DataPrepperFile(path)


class _Connections:
    """The connections of one pipeline."""

    def __init__(self, file: DataPrepperFile, pipeline: DataPrepperPipeline) -> None:
        self._file = file
        self._pipeline = pipeline

    def at(self, keys: list[str]) -> Connection:
        """Return the connection at a place."""
        match keys:
            case [str(kind)] if kind == MODEL:
                return self._model()
            case ["sink", number]:
                return self._opensearch(self._sink(number), number)
        block = self._block(keys)
        found, owners = self._aws(block), dict[str, str | None]()
        if keys == [SOURCE]:
            source = self._pipeline.source
            owners = {bucket.name: source.owner_of(bucket.name) for bucket in source.buckets}
        elif isinstance(block, S3Dlq):
            owners = {block.bucket: block.bucket_owner}
        elif keys[0] == "sink" and isinstance(sink := self._sink(keys[1]), S3Sink):
            owners = {sink.bucket: sink.owner_of(sink.bucket)}
        found.extra = json.dumps({**found.extra_dejson, "bucket_owners": owners})
        return found

    def _block(self, keys: list[str]) -> Aws | S3Dlq:
        """Return the block of a file that names a role."""
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

    def _sink(self, number: str) -> Any:  # noqa: ANN401 - the options of either sink
        return self._pipeline.sinks[int(number)][1]

    def _aws(self, aws: Aws | S3Dlq | None) -> Connection:
        """Return the base connection with the role of a block of the file, if it has one."""
        # Without one, the AWS client looks for keys in its ordinary places.
        base = stored(self._file.own.connections.aws)
        extra = {} if base is None else dict(base.extra_dejson)
        if aws is not None:
            if aws.region:
                extra["region_name"] = aws.region
            if aws.sts_role_arn:
                extra["role_arn"] = aws.sts_role_arn
                if aws.sts_external_id:
                    extra["assume_role_kwargs"] = {"ExternalId": aws.sts_external_id}
        keys = {} if base is None else {"login": base.login, "password": base.password}
        return _connection("aws", extra=extra, **keys)

    def _model(self) -> Connection:
        named = self._file.own.connections.model_opensearch or self._file.own.connections.opensearch
        if named:
            return needed(named, "opensearch")
        return self._signed(self._ml.host, self._ml.aws, (MODEL, "aws"), "es")

    def _opensearch(self, sink: OpenSearchSink, number: str) -> Connection:
        if named := self._file.own.connections.opensearch:
            return needed(named, "opensearch")
        if sink.aws is not None:
            service = "aoss" if sink.aws.serverless else "es"
            return self._signed(sink.hosts[0], sink.aws, ("sink", number, "aws"), service, sink.path_prefix)
        extra: dict[str, Any] = {"verify_certs": not sink.insecure}
        if sink.cert and not sink.insecure:
            extra["ca_certs"] = sink.cert
        said = sink.credentials
        user, password = (secret and secret.value for secret in (said.username, said.password))
        return self._at_host(sink.hosts[0], extra, sink.path_prefix, login=user, password=password)

    def _signed(
        self, host: str, aws: Aws, keys: tuple[str, ...], service: str, prefix: str | None = None
    ) -> Connection:
        conn_id = place(self._file.path, self._pipeline.name, *keys)
        return self._at_host(host, {"aws_conn_id": conn_id, "region_name": aws.region, "service": service}, prefix)

    def _at_host(self, url: str, extra: dict[str, Any], prefix: str | None, **more: Any) -> Connection:  # noqa: ANN401 - login and password
        address = address_of(url)
        extra |= {"use_ssl": address.use_ssl, "url_prefix": (prefix or address.url_prefix).strip("/")}
        return _connection("opensearch", extra=extra, host=address.host, port=address.port, **more)


def _connection(conn_type: str, *, extra: dict[str, Any], **more: Any) -> Connection:  # noqa: ANN401 - its fields
    from airflow.sdk import Connection

    return Connection(conn_id=f"{conn_type} of a pipeline file", conn_type=conn_type, extra=json.dumps(extra), **more)
