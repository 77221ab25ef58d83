"""Reads the model id from the outputs of an AWS CloudFormation stack.

Source: AWS' guide "Using an OpenSearch Ingestion pipeline with machine learning offline batch inference". Its stack
creates the connector and the model, and has the outputs `connector_id` and `model_id`.
"""

from __future__ import annotations

import re
from typing import Any

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.services.aws import aws_errors

# The resources of such a stack are those of its template, or those before an update that failed.
_USABLE = frozenset(
    {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE", "IMPORT_ROLLBACK_COMPLETE"}
)
_OUTPUT_SUFFIX = "modelid"
_NOT_LETTERS = re.compile(r"[^a-z]")


def stack_model_id(client: Any, stack: str) -> str:  # noqa: ANN401 - boto3 makes its clients at run time
    """Return the model id in the outputs of a stack, given by name or ARN, through a boto3 client for cloudformation.

    Spelling variants of the output's name are accepted: ``model_id``, ``ModelId``, ``BatchInferenceModelId``. If
    several outputs match, those with ``batch`` in the name take precedence.

    Raises:
        ConfigError: CloudFormation refuses the call, for example because the stack does not exist; the stack is not
            complete; or its outputs have no model id or several.
        RetriableError: CloudFormation does not answer, or throttles.
    """
    with aws_errors(f"CloudFormation stack {stack!r}", frozenset({"Throttling", "ThrottlingException"})):
        (description,) = client.describe_stacks(StackName=stack)["Stacks"]
    status = str(description["StackStatus"])
    if status not in _USABLE:
        raise ConfigError(
            f"CloudFormation stack {stack!r} is {status}; wait until it is CREATE_COMPLETE or UPDATE_COMPLETE, or "
            "deploy it again"
        )
    outputs = {output["OutputKey"]: output["OutputValue"] for output in description.get("Outputs", [])}
    normalized = {name: _NOT_LETTERS.sub("", name.lower()) for name in outputs}
    models = {name: value for name, value in outputs.items() if normalized[name].endswith(_OUTPUT_SUFFIX)}
    candidates = {name: value for name, value in models.items() if "batch" in normalized[name]} or models
    if len(set(candidates.values())) != 1:
        names = ", ".join(candidates or outputs) or "none"
        raise ConfigError(
            f"CloudFormation stack {stack!r}: expected one output model_id, found {names}; set model_id instead"
        )
    return str(next(iter(candidates.values())))
