"""Reads the model id from the outputs of an AWS CloudFormation stack.

Source: AWS' guide "Using an OpenSearch Ingestion pipeline with machine learning offline batch inference". Its stack
creates the connector and the model, and has the outputs `connector_id` and `model_id`.
"""

from __future__ import annotations

import re
from typing import Any

from opensearch_batch.core.errors import ConfigError, RetriableError

_OUTPUT_SUFFIX = "modelid"
_NOT_LETTERS = re.compile(r"[^a-z]")


def stack_model_id(client: Any, stack: str) -> str:  # noqa: ANN401 - boto3 makes its clients at run time
    """Return the model id in the outputs of a stack, given by name or ARN, through a boto3 client for cloudformation.

    Spelling variants of the output's name are accepted: ``model_id``, ``ModelId``, ``BatchInferenceModelId``. If
    several outputs match, those with ``batch`` in the name take precedence.

    Raises:
        ConfigError: CloudFormation refused the request, for example because the stack does not exist; the stack is not
            complete or was rolled back; or its outputs have no model id or several.
        RetriableError: the request could not be sent, or got no response.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        (description,) = client.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        raise ConfigError(f"CloudFormation stack {stack!r}: {error}; correct batch_predict.stack or region") from error
    except BotoCoreError as error:
        raise RetriableError(f"cannot call CloudFormation: {error}") from error
    status = str(description["StackStatus"])
    if not status.endswith("_COMPLETE") or "ROLLBACK" in status:
        raise ConfigError(
            f"CloudFormation stack {stack!r} is {status}, not CREATE_COMPLETE or UPDATE_COMPLETE; wait, or deploy "
            "the stack again"
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
