"""The connectors are the documents' own: every difference is one that is named here."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from opensearch_batch.core.pipeline.check import check_pipeline
from opensearch_batch.services.registry import adapter_of

PUBLISHED = json.loads(Path(__file__).with_name("published_connectors.json").read_text())
ROOT = Path(__file__).resolve().parents[2]
CONNECTORS = ROOT / "plugins" / "opensearch_batch" / "connectors"
Place = tuple[str | int, ...]
SAGEMAKER = "https://api.sagemaker.<region>.amazonaws.com"
DIFFERENCES: dict[str, dict[Place, Any]] = {
    "openai": {
        ("name",): "OpenAI Embedding model: <model_name>",
        ("description",): "OpenAI embedding model <model_name> for offline batch",
        ("credential", "openAI_key"): "from the connection",
        ("parameters", "model"): "<model_name>",
        ("parameters", "input_file_id"): "set-for-each-job",
        # An action without a body is passed over by ML Commons.
        ("actions", 2, "request_body"): "{}",
        ("actions", 3, "request_body"): "{}",
    },
    "sagemaker": {
        ("name",): "DJL Sagemaker Connector: <model_name>",
        ("description",): "The connector to sagemaker embedding model <model_name>",
        ("credential", "roleArn"): "<role_arn>",
        ("parameters", "region"): "<region>",
        ("parameters", "ModelName"): "<model_name>",
        ("parameters", "DataProcessing", "InputFilter"): "$.content",
        ("parameters", "TransformJobName"): "set-for-each-job",
        ("parameters", "TransformInput", "DataSource", "S3DataSource", "S3Uri"): "s3://set-for-each-job/input/",
        ("parameters", "TransformOutput", "S3OutputPath"): "s3://set-for-each-job/output/",
        ("parameters", "TransformResources", "InstanceCount"): 1,
        ("actions", 0, "url"): (
            "https://runtime.sagemaker.<region>.amazonaws.com/endpoints/<endpoint_name>/invocations"
        ),
        ("actions", 1, "url"): f"{SAGEMAKER}/CreateTransformJob",
        # SageMaker has no GET (docs/decisions/003).
        ("actions", 2, "method"): "POST",
        ("actions", 2, "url"): f"{SAGEMAKER}/DescribeTransformJob",
        ("actions", 3, "url"): f"{SAGEMAKER}/StopTransformJob",
    },
}


def connector(name: str) -> Any:
    """One of ours."""
    return json.loads((CONNECTORS / f"{name}.json").read_text())


def changed(body: Any, changes: dict[Place, Any]) -> Any:
    """A body with other values at these places."""
    body = deepcopy(body)
    for place, value in changes.items():
        inner = body
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = value
    return body


@pytest.mark.parametrize("name", list(DIFFERENCES))
def test_a_connector_is_the_published_one(name: str) -> None:
    """But for the places that a user fills in or a job sets, and what ML Commons needs to honour it."""
    assert connector(name) == changed(PUBLISHED[name], DIFFERENCES[name])


@pytest.mark.parametrize("name", ["sagemaker", "bedrock", "openai", "cohere"])
def test_a_connector_submits_looks_and_cancels(name: str) -> None:
    """Each action has a body, without which ML Commons would make up its own."""
    actions = {action["action_type"]: action for action in connector(name)["actions"]}
    assert set(actions) == {"predict", "batch_predict", "batch_predict_status", "cancel_batch_predict"}
    assert all(action["request_body"] for action in actions.values())


@pytest.mark.parametrize("service", ["sagemaker", "bedrock", "openai", "cohere"])
@pytest.mark.parametrize("name", ["sagemaker", "bedrock", "openai", "cohere"])
def test_a_connector_of_another_service_is_refused(tmp_path: Path, service: str, name: str) -> None:
    """`check` compares the URL to which the connector submits jobs with the service's own."""
    (tmp_path / "pipelines").mkdir()
    pipelines = ROOT / "include" / "pipelines"
    source = pipelines / ("passages.yaml" if service == "sagemaker" else f"passages_{service}.yaml")
    spec = yaml.safe_load(source.read_text())
    values = {"region": "r", "endpoint_name": "e", "job_role_arn": "a", "model_name": "amazon.titan-embed-text-v2:0"}
    spec["batch_predict"] |= {"connector": name, "values": values, "instead": {}}
    path = tmp_path / "pipelines" / "books.yaml"
    path.write_text(yaml.safe_dump(spec | {"tests": []}))
    mistakes = check_pipeline(path, adapter_of).mistakes
    if service == name:
        assert mistakes == []
    else:
        (mistake,) = mistakes
        assert "batch_predict: connector" in mistake
        assert f"a URL of {service} ends in" in mistake


def test_a_bedrock_job_has_a_token() -> None:
    """Bedrock returns the first job to a second call with its token; a name is free again when its job has ended."""
    (action,) = (action for action in connector("bedrock")["actions"] if action["action_type"] == "batch_predict")
    assert '"clientRequestToken": "${parameters.jobName}"' in action["request_body"]
