"""Reads the model id from the outputs of an AWS CloudFormation stack.

Source: "Using an OpenSearch Ingestion pipeline with machine learning offline batch inference", which lets a stack
create connector and model and reads `connector_id` and `model_id` from its Outputs tab.
"""

from __future__ import annotations

import re
from typing import Any

from opensearch_batch.core.errors import ConfigError, RetriableError

MODEL = "modelid"
_NOT_LETTERS = re.compile(r"[^a-z]")


def model_of_stack(client: Any, stack: str) -> str:  # noqa: ANN401 - boto3 makes its clients at run time
    """Return the model id in a stack's outputs.

    Outputs are found by name, however it is written: ``model_id``, ``ModelId``, ``BatchInferenceModelId``. Where
    several are, the one for batch inference is meant.

    Args:
        client: boto3's, for cloudformation.
        stack: name or ARN.

    Raises:
        ConfigError: there is no such stack, it is not complete, or it gives out no model, or several.
        RetriableError: CloudFormation does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        (found,) = client.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        raise ConfigError(
            f"CloudFormation stack {stack!r}: {error}; mend batch_predict.stack, or its region"
        ) from error
    except BotoCoreError as error:
        raise RetriableError(f"CloudFormation does not answer: {error}") from error
    if not str(found["StackStatus"]).endswith("_COMPLETE") or "ROLLBACK" in found["StackStatus"]:
        raise ConfigError(f"CloudFormation stack {stack!r} is {found['StackStatus']}; wait for it, or create it again")
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
    models = {name: value for name, value in outputs.items() if _letters(name).endswith(MODEL)}
    meant = {name: value for name, value in models.items() if "batch" in _letters(name)} or models
    if len(set(meant.values())) != 1:
        names = ", ".join(meant or outputs) or "none"
        raise ConfigError(
            f"CloudFormation stack {stack!r}: expected one output model_id, found {names}; give model_id in its place"
        )
    return str(next(iter(meant.values())))


def _letters(name: str) -> str:
    return _NOT_LETTERS.sub("", name.lower())
