"""The model of a CloudFormation stack is found in its outputs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.services.cloudformation import stack_model_id
from tests.core.aws import aws


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """CloudFormation's API on loopback."""
    with aws("cloudformation") as made:
        yield made


def stack(client: Any, outputs: dict[str, str]) -> str:
    """Create a stack that gives out these values."""
    name = f"s-{uuid.uuid4().hex[:8]}"
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    client.create_stack(StackName=name, TemplateBody=json.dumps(template))
    return name


@pytest.mark.parametrize(
    "outputs",
    [{"ModelId": "m", "ConnectorId": "c"}, {"modelid": "m"}, {"ModelId": "other", "BatchInferenceModelId": "m"}],
)
def test_spelling_variants_of_the_output_are_accepted(client: Any, outputs: dict[str, str]) -> None:
    """Of two model ids, the one with `batch` in its name is returned."""
    assert stack_model_id(client, stack(client, outputs)) == "m"


@pytest.mark.parametrize(
    ("outputs", "found"),
    [({"ConnectorId": "c"}, "ConnectorId"), ({"AModelId": "1", "BModelId": "2"}, "AModelId, BModelId")],
)
def test_a_stack_without_one_model_is_refused(client: Any, outputs: dict[str, str], found: str) -> None:
    """The message names the outputs of the stack."""
    with pytest.raises(ConfigError, match=f"expected one output model_id, found {found}; set model_id"):
        stack_model_id(client, stack(client, outputs))


def test_a_missing_stack_is_named(client: Any) -> None:
    """The message contains CloudFormation's error."""
    with pytest.raises(ConfigError, match=r"CloudFormation stack 'no-such'.*does not exist"):
        stack_model_id(client, "no-such")


def test_an_unreachable_service_is_a_retriable_error() -> None:
    """Airflow retries the task."""
    nobody = boto3.client(
        "cloudformation",
        endpoint_url="http://127.0.0.1:1",
        region_name="us-east-1",
        aws_access_key_id="tests",
        aws_secret_access_key="tests",
    )
    with pytest.raises(RetriableError, match="CloudFormation stack 's': AWS does not answer"):
        stack_model_id(nobody, "s")
    nobody.close()


@pytest.mark.parametrize(
    ("status", "is_usable"),
    [
        ("CREATE_COMPLETE", True),
        ("UPDATE_ROLLBACK_COMPLETE", True),
        ("UPDATE_IN_PROGRESS", False),
        ("ROLLBACK_COMPLETE", False),
        ("DELETE_COMPLETE", False),
    ],
)
def test_only_a_stack_that_has_its_resources_is_usable(status: str, *, is_usable: bool) -> None:
    """After an update that was rolled back, a stack has the resources of before."""
    outputs = [{"OutputKey": "ModelId", "OutputValue": "m"}]
    client = SimpleNamespace(describe_stacks=lambda **_: {"Stacks": [{"StackStatus": status, "Outputs": outputs}]})
    if is_usable:
        assert stack_model_id(client, "s") == "m"
        return
    with pytest.raises(ConfigError, match=f"CloudFormation stack 's' is {status}; wait until"):
        stack_model_id(client, "s")


def test_throttling_is_a_retriable_error() -> None:
    """Airflow retries the task."""

    def refuse(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": "Throttling", "Message": "Rate exceeded"}}, "DescribeStacks")

    with pytest.raises(RetriableError, match=r"CloudFormation stack 's': .*Rate exceeded"):
        stack_model_id(SimpleNamespace(describe_stacks=refuse), "s")
