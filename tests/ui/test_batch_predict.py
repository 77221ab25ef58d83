"""`_batch_predict` over the API: an equal request finds the job that was paid for."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.submission import INTENT_GRACE_S
from opensearch_batch.core.storage.s3 import S3Objects
from tests.ui.api_server import Api
from tests.ui.ml_node import MODEL, MLNode, refusal

PREDICT = f"models/{MODEL}/_batch_predict"


def request(**parameters: Any) -> dict[str, Any]:
    """Make a request over a file that no other test has."""
    return {"parameters": {"input_file_id": f"file-{uuid.uuid4().hex}", **parameters}}


def test_the_answer_is_the_documented_one(api: Api, node: MLNode) -> None:
    """The task is ML Commons' own; the parameters of the request override the connector's."""
    body = {**request(model="text-embedding-3-large"), "dlq": {"bucket": "b", "region": "r"}}
    answer = api.ok("POST", PREDICT, body)
    assert (answer["status"], answer["task_id"]) == ("CREATED", "KYZSv5EBqL2d0mFvs801")
    assert answer["remote_job"]["input_file_id"] == body["parameters"]["input_file_id"]
    assert node.paid == [body]
    assert api.ok("GET", f"tasks/{answer['task_id']}")["state"] == "RUNNING"


def test_an_equal_request_finds_the_job(api: Api, node: MLNode) -> None:
    """Whether it runs or has completed; another parameter or `force` is another job."""
    body = request()
    task_id = api.ok("POST", PREDICT, body)["task_id"]
    assert api.ok("POST", PREDICT, body)["task_id"] == task_id
    node.tasks[task_id]["remote_job"] |= {"status": "completed", "output_file_id": "file-out"}
    assert api.ok("POST", PREDICT, body)["task_id"] == task_id
    assert len(node.paid) == 1
    other = {"parameters": {**body["parameters"], "model": "other"}}
    assert api.ok("POST", PREDICT, other)["task_id"] != task_id
    forced = api.ok("POST", f"{PREDICT}?force=true", body)["task_id"]
    assert forced != task_id
    assert api.ok("POST", PREDICT, body)["task_id"] == forced
    assert len(node.paid) == 3


def test_after_a_bad_end_the_next_request_is_a_new_job(api: Api, node: MLNode) -> None:
    """A person sent it again."""
    body = request()
    first = api.ok("POST", PREDICT, body)["task_id"]
    node.tasks[first]["remote_job"]["status"] = "failed"
    second = api.ok("POST", PREDICT, body)["task_id"]
    assert second != first
    assert api.ok("POST", PREDICT, body)["task_id"] == second
    assert len(node.paid) == 2


def test_a_lost_answer_is_found_and_not_paid_again(
    api: Api, node: MLNode, s3_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ML Commons has stored the task, but its answer did not arrive; who asks too soon is told to ask again."""
    from opensearch_batch.hooks import requested_jobs

    body = request()
    node.lose_answer = True
    assert api.refused(503, "POST", PREDICT, body)
    monkeypatch.setattr(requested_jobs, "MAX_WAIT_S", 0.0)
    assert "another request is submitting this job" in api.refused(503, "POST", PREDICT, body)
    age_intent(S3Objects(s3_client), body["parameters"]["input_file_id"])
    assert api.ok("POST", PREDICT, body)["task_id"] == "KYZSv5EBqL2d0mFvs801"
    assert len(node.paid) == 1


def age_intent(objects: S3Objects, file_id: str) -> None:
    """Let the intent to submit a job over a file be as old as one of an attempt that has died."""
    for item in objects.list("s3://opensearch-batch/jobs/"):
        records = JobRecords(objects, item.uri.removesuffix("/job.json"))
        stored = records.load()
        if stored and stored.value.staged == {"input_file_id": file_id}:
            aged = msgspec.structs.replace(stored.value, intended_at=stored.value.intended_at - INTENT_GRACE_S)
            assert records.write(aged, etag=stored.etag)
            return
    pytest.fail(f"no intent for {file_id}")


@pytest.fixture
def transform(node: MLNode, s3_client: Any, bucket: str) -> dict[str, Any]:
    """The parameters of a transform job over two objects, with the kind of source as `kind`; it has no name."""
    for name in ("in/1.jsonl", "in/2.jsonl"):
        s3_client.put_object(Bucket=bucket, Key=name, Body=name.encode())
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/in/"}}
    output = {"S3OutputPath": f"s3://{bucket}/out/"}
    node.batch_url = "https://api.sagemaker.us-east-1.amazonaws.com/CreateTransformJob"
    # As ML Commons stores nested parameters.
    node.parameters = {"ModelName": "m", "region": "us-east-1", "TransformInput": json.dumps({"DataSource": source})}
    return {"TransformInput": {"DataSource": source}, "TransformOutput": output}


def end(node: MLNode, task_id: str, status: str) -> None:
    """End a transform job."""
    node.tasks[task_id]["remote_job"]["TransformJobStatus"] = status


def test_an_equal_request_over_changed_objects_is_another_job(
    api: Api, node: MLNode, transform: dict[str, Any], s3_client: Any, bucket: str
) -> None:
    """Over the same ones it is the same, also when it has completed."""
    first = api.ok("POST", PREDICT, {"parameters": transform})["task_id"]
    end(node, first, "Completed")
    assert api.ok("POST", PREDICT, {"parameters": transform})["task_id"] == first
    s3_client.put_object(Bucket=bucket, Key="in/2.jsonl", Body=b"changed")
    second = api.ok("POST", PREDICT, {"parameters": transform})["task_id"]
    assert second != first
    names = [body["parameters"].pop("TransformJobName") for body in node.paid]
    assert len(set(names)) == 2
    assert all(name.startswith("requests-") for name in names)
    assert node.paid == [{"parameters": transform}] * 2


def test_over_a_manifest_an_equal_request_finds_the_job_only_while_it_runs(
    api: Api, node: MLNode, transform: dict[str, Any]
) -> None:
    """What the objects that it names have become is unknown."""
    transform["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"] = "ManifestFile"
    first = api.ok("POST", PREDICT, {"parameters": transform})["task_id"]
    assert api.ok("POST", PREDICT, {"parameters": transform})["task_id"] == first
    end(node, first, "Completed")
    second = api.ok("POST", PREDICT, {"parameters": transform})["task_id"]
    assert second != first
    assert api.ok("POST", PREDICT, {"parameters": transform})["task_id"] == second


@pytest.mark.parametrize(("status", "path"), [("Failed", PREDICT), ("Completed", f"{PREDICT}?force=true")])
def test_a_name_that_a_user_chose_is_used_once(
    api: Api, node: MLNode, transform: dict[str, Any], status: str, path: str
) -> None:
    """As at the service itself; the reason tells which parameter to change."""
    transform["TransformJobName"] = f"mine-{uuid.uuid4().hex[:8]}"
    task_id = api.ok("POST", PREDICT, {"parameters": transform})["task_id"]
    end(node, task_id, status)
    reason = api.refused(409, "POST", path, {"parameters": transform})
    assert f"job {transform['TransformJobName']} ended {status.upper()}" in reason
    assert "give another parameters.TransformJobName" in reason
    assert len(node.paid) == 1


def test_a_name_of_somebody_elses_job_is_not_taken_for_ours(api: Api, node: MLNode, transform: dict[str, Any]) -> None:
    """Its job is older than our intent, so it is no orphan of ours, however often we ask."""
    transform["TransformJobName"] = name = f"theirs-{uuid.uuid4().hex[:8]}"
    job = {"TransformJobArn": f"arn:aws:sagemaker:us-east-1:1:transform-job/{name}", "TransformJobStatus": "InProgress"}
    node.add("TheirsTheirsTheirs01", remote_job=job)
    for _ in range(2):
        node.refuse_jobs = refusal(400, 'Error from remote service: {"__type": "ResourceInUse"}')
        reason = api.refused(400, "POST", PREDICT, {"parameters": transform})
        assert "ResourceInUse" in reason
        assert "give another parameters.TransformJobName" in reason
    assert node.paid == []


def test_refusals_of_the_service_are_those_of_the_request(api: Api, node: MLNode) -> None:
    """With the status that tells whether to try again."""
    for answer, status in (
        (refusal(429, "Exceeded maximum limit for BATCH_PREDICTION tasks"), 429),
        (refusal(400, 'Error from remote service: {"error": {"code": "invalid_file"}}'), 400),
    ):
        node.refuse_jobs = answer
        assert api.refused(status, "POST", PREDICT, request())


@pytest.mark.parametrize("model_id", ["none", "a.b"])
def test_a_model_that_does_not_exist_is_not_found(api: Api, model_id: str) -> None:
    """Nothing is paid for."""
    assert api.refused(404, "POST", f"models/{model_id}/_batch_predict", request())


@pytest.mark.parametrize("body", [{"parameters": []}, {"parameters": {}, "dlq": "s3://b"}])
def test_an_invalid_request_is_not_sent(api: Api, node: MLNode, body: dict[str, Any]) -> None:
    """The reason names the member."""
    assert "must be an object" in api.refused(400, "POST", PREDICT, body)
    assert node.asked == []


def test_a_connector_of_an_unknown_service_gets_the_request_unchanged(api: Api, node: MLNode) -> None:
    """ML Commons supports services that this package does not know."""
    node.batch_url = "https://europe-west4-aiplatform.googleapis.com/v1/batchPredictionJobs"
    body = {**request(), "action_type": "batch_predict"}
    assert api.ok("POST", PREDICT, body)["status"] == "CREATED"
    assert node.paid == [body]
