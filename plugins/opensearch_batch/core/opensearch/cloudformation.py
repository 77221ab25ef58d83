"""Reads the model id from the outputs of an AWS CloudFormation stack.

Source: "Using an OpenSearch Ingestion pipeline with machine learning offline batch inference", where a stack creates
connector and model, and its Outputs tab shows `connector_id` and `model_id`.
"""

from __future__ import annotations

import re
from typing import Any

from opensearch_batch.core.errors import ConfigError, RetriableError

MODEL = "modelid"
_NOT_LETTERS = re.compile(r"[^a-z]")


def model_of_stack(client: Any, stack: str) -> str:  # noqa: ANN401 - boto3 makes its clients at run time
    """Return the model id in the outputs of a stack, given by name or ARN, through a boto3 client for cloudformation.

    Spelling variants of the output's name are accepted: ``model_id``, ``ModelId``, ``BatchInferenceModelId``. If
    several outputs match, those with ``batch`` in the name take precedence.

    Raises:
        ConfigError: the stack does not exist or is not complete, or its outputs have no model id or several.
        RetriableError: CloudFormation does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        (description,) = client.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        raise ConfigError(f"CloudFormation stack {stack!r}: {error}; correct batch_predict.stack or region") from error
    except BotoCoreError as error:
        raise RetriableError(f"CloudFormation does not answer: {error}") from error
    status = str(description["StackStatus"])
    if not status.endswith("_COMPLETE") or "ROLLBACK" in status:
        raise ConfigError(f"CloudFormation stack {stack!r} is {status}; wait until it is complete, or create it again")
    outputs = {output["OutputKey"]: output["OutputValue"] for output in description.get("Outputs", [])}
    letters = {name: _NOT_LETTERS.sub("", name.lower()) for name in outputs}
    models = {name: value for name, value in outputs.items() if letters[name].endswith(MODEL)}
    candidates = {name: value for name, value in models.items() if "batch" in letters[name]} or models
    if len(set(candidates.values())) != 1:
        names = ", ".join(candidates or outputs) or "none"
        raise ConfigError(
            f"CloudFormation stack {stack!r}: expected one output model_id, found {names}; set model_id instead"
        )
    return str(next(iter(candidates.values())))
