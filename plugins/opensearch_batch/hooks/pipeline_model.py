"""Finds the model of a pipeline, or creates it from its connector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.contract import ServiceAdapter, check_connector
from opensearch_batch.core.opensearch.ml_commons import MLCommons, Model, fill
from opensearch_batch.hooks.ai_services import connector_credential
from opensearch_batch.hooks.aws import aws_client
from opensearch_batch.services.cloudformation import stack_model_id


def pipeline_model(
    ml: MLCommons,
    adapter: ServiceAdapter,
    *,
    model_id: str | None,
    stack: str | None,
    connector: Mapping[str, Any],
    values: Mapping[str, str],
    aws_conn_id: str,
    ai_conn_id: str | None,
    dry_run: bool,
) -> Model:
    """Return the model with this id, or of this stack or connector; a dry run creates none."""
    if not model_id and stack:
        model_id = stack_model_id(aws_client("cloudformation", aws_conn_id), stack)
    if model_id:
        return ml.model(model_id)
    if not connector:
        raise ConfigError("no model; give model_id, the stack that created the model, or a connector")
    body = fill(connector, values, "connector")
    check_connector(adapter, body)
    if dry_run:
        return Model("", dict(body.get("parameters", {})), list(body.get("actions", [])))
    conn_id, credential = connector_credential(
        adapter.name, aws_conn_id=aws_conn_id, ai_conn_id=ai_conn_id, role_arn=values.get("role_arn")
    )
    return ml.ensure_model(str(body["name"]), {**body, "credential": credential}, conn_id=conn_id)


def without_credential(connector: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a connector's body without its credential."""
    return None if connector is None else {name: connector[name] for name in connector if name != "credential"}
