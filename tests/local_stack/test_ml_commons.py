"""A real node's ML Commons reaches every local AI service under its public name, by the connectors of production."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import cohere
import openai
import pytest
import requests

from opensearch_batch.core.errors import RemoteError
from opensearch_batch.core.opensearch.ml_commons import MLCommons
from opensearch_batch.core.pipeline.bodies import packaged_body
from tests.lab import Lab
from tests.waiting import WAIT_S

MODEL_OF = {
    "openai": "text-embedding-3-small",
    "bedrock": "amazon.titan-embed-text-v2:0",
    "cohere": "embed-english-light-v3.0",
}
ROLE = "arn:aws:iam::123456789012:role/batch"


@pytest.fixture
def one_hour(lab: Lab) -> Iterator[None]:
    """Jobs begin after an hour, so that their states are known."""
    for service in MODEL_OF:
        lab.fault(service=service, fault="delay", seconds=3600, operation=None)
    yield
    lab.no_faults()


def registered(lab: Lab, service: str) -> str:
    """Create a service's connector and its model: the model's id."""
    text = json.dumps(packaged_body("connector", service))
    places = {"region": "us-east-1", "model_name": MODEL_OF[service], "job_role_arn": ROLE}
    for name, value in places.items():
        text = text.replace(f"<{name}>", value)
    connector: dict[str, Any] = json.loads(text)
    keys = lab.stack.credentials
    connector["credential"] = {
        "openai": {"openAI_key": keys.secret_key},
        "cohere": {"cohere_key": keys.secret_key},
        "bedrock": {"access_key": keys.access_key, "secret_key": keys.secret_key},
    }[service]
    made = lab.node("POST", "_plugins/_ml/connectors/_create", connector)
    body = {"name": service, "function_name": "remote", "connector_id": made["connector_id"]}
    return str(lab.node("POST", "_plugins/_ml/models/_register?deploy=true", body)["model_id"])


def parameters(lab: Lab, service: str) -> dict[str, Any]:
    """What this job overrides of its connector, with its input where the service reads it."""
    name, key = f"job-{uuid.uuid4().hex[:12]}", lab.stack.credentials.secret_key
    if service == "bedrock":
        places = {
            side: {f"s3{side.capitalize()}DataConfig": {"s3Uri": f"s3://batch/{side}/"}} for side in ("input", "output")
        }
        return {"jobName": name, **{f"{side}DataConfig": place for side, place in places.items()}}
    if service == "openai":
        with openai.OpenAI(api_key=key, base_url=f"{lab.stack.addresses.ai_services}/v1") as files:
            return {"input_file_id": files.files.create(file=("in.jsonl", b"{}"), purpose="batch").id}
    lab.no_faults()  # a dataset could be delayed too
    with cohere.Client(api_key=key, base_url=lab.stack.addresses.ai_services) as datasets:
        made = datasets.datasets.create(name=name, type="embed-input", data=("in.jsonl", b'{"text":"one"}'))
    lab.fault(service=service, fault="delay", seconds=3600)
    return {"dataset_id": made.id, "name": name}


@pytest.mark.usefixtures("one_hour")
@pytest.mark.parametrize("service", sorted(MODEL_OF))
def test_a_batch_job_is_submitted_seen_and_cancelled(lab: Lab, service: str) -> None:
    """The node's own three calls; the job counts as one at the service."""
    url = f"{lab.stack.addresses.ai_services}/jobs/count"
    before = requests.get(url, timeout=WAIT_S).json()[service]
    body = {"parameters": parameters(lab, service)}
    task = lab.node("POST", f"_plugins/_ml/models/{registered(lab, service)}/_batch_predict", body)["task_id"]
    assert requests.get(url, timeout=WAIT_S).json()[service] == before + 1
    seen = lab.node("GET", f"_plugins/_ml/tasks/{task}")
    assert (seen["state"], seen["remote_job"]["status"]) == (
        "RUNNING",
        {"openai": "validating", "bedrock": "Submitted", "cohere": "processing"}[service],
    )
    assert lab.node("POST", f"_plugins/_ml/tasks/{task}/_cancel") == {"status": "OK"}
    assert lab.node("GET", f"_plugins/_ml/tasks/{task}")["state"] in {"CANCELLING", "CANCELLED"}


@pytest.mark.usefixtures("one_hour")
def test_a_key_that_changed_is_replaced_in_the_connector(lab: Lab) -> None:
    """The node refuses an update while a model is deployed, and a deployed model keeps the key of its deployment."""
    text = json.dumps(packaged_body("connector", "openai"))
    connector = json.loads(text.replace("<model_name>", MODEL_OF["openai"]))
    connector["name"] = f"connector {uuid.uuid4().hex}"
    ml, job = MLCommons(lab.cluster()), parameters(lab, "openai")
    keys = ("revoked", lab.stack.credentials.secret_key)

    def ensured(key: str) -> str:
        return ml.ensure_model("model", {**connector, "credential": {"openAI_key": key}}, conn_id="openai_default").id

    model_id = ensured(keys[0])
    with pytest.raises(RemoteError, match="401"):
        ml.batch_predict(model_id, job)
    assert [ensured(keys[1]) for _ in range(2)] == [model_id, model_id]
    task = ml.batch_predict(model_id, job).ml_task_id
    assert ensured(keys[0]) == model_id
    with pytest.raises(RemoteError, match="401"):
        ml.task(str(task))
    assert ensured(keys[1]) == model_id
    assert ml.task(str(task))["remote_job"]["status"] == "validating"
