"""Creates the commands that add Airflow connections for the hosts and roles of a file, without secrets."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from opensearch_batch.core.config.option_types import ACCOUNT_DIGITS
from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.convert.commented_yaml import COMMAND
from opensearch_batch.core.data_prepper.convert.refusals import input_bucket
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.opensearch.client import HTTPS_PORT, NODE_PORT, address_of

OPENSEARCH, SIGNER = "opensearch_default", "aws_opensearch"


def connections_of(compiled: CompiledPipeline) -> dict[str, str]:
    """Return the connection ids of a converted pipeline."""
    connections = compiled.file.settings.connections
    return {"opensearch": connections.opensearch or OPENSEARCH, "aws": connections.aws}


def connection_notes(compiled: CompiledPipeline, sink: OpenSearchSink) -> Iterator[str]:
    """Yield comments with the commands that create the connections."""
    conn_id = compiled.file.settings.connections.opensearch
    if conn_id:
        yield f"Hosts and roles come from Airflow connections. The file names {conn_id}; create the other connection:"
    else:
        yield "Hosts, users and roles come from Airflow connections. Create these once:"
    aws = connections_of(compiled)["aws"]
    bucket = input_bucket(compiled).name
    owner = compiled.source.owner_of(bucket)
    extra = compiled.source.aws.connection_extra()
    if owner and owner.isdigit() and len(owner) == ACCOUNT_DIGITS:
        extra["bucket_owners"] = {bucket: owner}
    yield _command(aws, "aws", extra)
    if not conn_id:
        yield from _cluster_commands(compiled, sink, aws)


def _cluster_commands(compiled: CompiledPipeline, sink: OpenSearchSink, aws: str) -> Iterator[str]:
    address = address_of(*sink.hosts)
    port = address.port or (HTTPS_PORT if address.use_ssl else NODE_PORT)
    extra: dict[str, Any] = {"use_ssl": address.use_ssl}
    if prefix := (sink.path_prefix or address.url_prefix).strip("/"):
        extra["url_prefix"] = prefix
    arguments = ["--conn-host", address.host, "--conn-port", str(port)]
    if sink.aws is None:
        extra |= {"verify_certs": False} if sink.insecure else {}
        extra |= {"ca_certs": sink.cert} if sink.cert and not sink.insecure else {}
        if sink.credentials.username is not None:
            arguments += ["--conn-login", "USER", "--conn-password", "PASSWORD"]
        yield _command(OPENSEARCH, "opensearch", extra, *arguments)
        return
    signer, notes = _signer(compiled, sink, aws)
    yield from notes
    service = "aoss" if sink.aws.serverless else "es"
    extra |= {"aws_conn_id": signer, "region_name": sink.aws.region, "service": service}
    yield _command(OPENSEARCH, "opensearch", extra, *arguments)


def _signer(compiled: CompiledPipeline, sink: OpenSearchSink, aws: str) -> tuple[str, list[str]]:
    """Return the id of the AWS connection that signs requests to the cluster, and the comments on how to create it."""
    model_aws = compiled.ml.aws if compiled.ml else None
    roles = {each.sts_role_arn: each for each in (model_aws, sink.aws) if each is not None and each.sts_role_arn}
    if not roles or set(roles) == {compiled.source.aws.sts_role_arn}:
        return aws, []
    first = next(iter(roles.values()))
    notes = [_command(SIGNER, "aws", first.connection_extra())]
    if len(roles) > 1:
        text = f"The file uses different roles for model and index ({' and '.join(map(str, roles))})"
        notes.insert(
            0, f"{text}; here one connection is used for both, so its role needs the permissions of both roles."
        )
    return SIGNER, notes


def _command(conn_id: str, kind: str, extra: dict[str, Any], *more: str) -> str:
    words = ["airflow", "connections", "add", conn_id, "--conn-type", kind, *more]
    return COMMAND + shlex.join([*words, "--conn-extra", json.dumps(extra)] if extra else words)
