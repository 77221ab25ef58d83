"""SageMaker's API as boto3 and as ML Commons call it, against the running processes."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import requests
from botocore.exceptions import ClientError

from include.local_stack.ai_services.model import MiniLM
from tests.local_stack.ai_services.stand import Stand, as_ml_commons_template, new_name, request
from tests.waiting import WAIT_S

ARN = "arn:aws:sagemaker:us-east-1:123456789012"


def refused(call: Callable[..., object], **arguments: object) -> tuple[int, str, str]:
    """Status, code and message of a boto3 call that must fail."""
    with pytest.raises(ClientError, match=r"^An error occurred") as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]


def assert_vectors_of(model: MiniLM, vectors: object, texts: list[str]) -> None:
    """The vectors are the model's own, to a cosine of 0.99999."""
    found, own = np.asarray(vectors, np.float32), model.encode(texts)
    assert found.shape == own.shape
    assert np.einsum("ij,ij->i", found, own).min() >= 0.99999


def test_a_job_through_boto3(ai_stand: Stand, ai_model: MiniLM) -> None:
    """A joined job keeps each line's fields and order, adds the model's vector, and describes itself."""
    folder, name = new_name("in"), new_name()
    texts = [f"passage number {number} about the sea" for number in range(5)]
    ai_stand.put_lines(
        f"{folder}/a.jsonl", [f'{{"id": {i}.50, "text": {json.dumps(text)}}}' for i, text in enumerate(texts)]
    )
    client = ai_stand.client("sagemaker")
    body = request(name, f"{folder}/a.jsonl", f"{folder}-out")
    before, texts_before = ai_stand.job_count(), ai_stand.text_count()
    assert client.create_transform_job(**body)["TransformJobArn"] == f"{ARN}:transform-job/{name}"
    described = ai_stand.wait(name)
    assert described["TransformJobStatus"] == "Completed"
    assert (ai_stand.job_count(), ai_stand.text_count()) == (before + 1, texts_before + 5)
    lines = ai_stand.read(f"{folder}-out/a.jsonl.out").splitlines()
    assert [line.split(',"SageMakerOutput"')[0] for line in lines] == [
        f'{{"id": {i}.50, "text": {json.dumps(text)}' for i, text in enumerate(texts)
    ]
    assert_vectors_of(ai_model, [json.loads(line)["SageMakerOutput"] for line in lines], texts)


def test_a_description_has_the_request_and_the_times(ai_stand: Stand) -> None:
    """DescribeTransformJob repeats every member of the request and orders its three times."""
    folder, name = new_name("in"), new_name()
    ai_stand.put_lines(f"{folder}/a.jsonl", ['{"text":"t"}'])
    body = request(name, f"{folder}/", f"{folder}-out", Environment={"A": "b"}, MaxPayloadInMB=1)
    ai_stand.client("sagemaker").create_transform_job(**body, Tags=[{"Key": "k", "Value": "v"}])
    described = ai_stand.wait(name)
    for member, value in body.items():
        found = described[member]
        assert {**found, **value} == found if isinstance(value, dict) else found == value
    assert "Tags" not in described
    assert described["CreationTime"] <= described["TransformStartTime"] <= described["TransformEndTime"]


def test_a_job_as_ml_commons_sends_it(ai_stand: Stand, ai_model: MiniLM) -> None:
    """The connector's three calls work over the production host, with the operation in the path."""
    folder, name = new_name("in"), new_name()
    ai_stand.put_lines(f"{folder}/a.jsonl", ['{"text":"one"}', '{"text":"two"}'])
    body = request(name, f"{folder}/", f"{folder}-out", MaxConcurrentTransforms=100.0)
    created = ai_stand.post_signed("/CreateTransformJob", as_ml_commons_template(body))
    assert (created.status_code, created.json()) == (200, {"TransformJobArn": f"{ARN}:transform-job/{name}"})
    ai_stand.wait(name)
    asked = f'{{ "TransformJobName" : "{name}"}}'
    described = ai_stand.post_signed("/DescribeTransformJob", asked).json()
    assert described["TransformJobStatus"] == "Completed"
    assert isinstance(described["CreationTime"], float)
    rows = [json.loads(line) for line in ai_stand.read(f"{folder}-out/a.jsonl.out").splitlines()]
    assert_vectors_of(ai_model, [row["SageMakerOutput"] for row in rows], ["one", "two"])
    stopped = ai_stand.post_signed("/StopTransformJob", asked)
    assert (stopped.status_code, stopped.json()["__type"]) == (400, "ValidationException")


def test_a_model_is_created_once(ai_stand: Stand) -> None:
    """CreateModel gives the model's ARN, in both wire forms, and refuses a second model of the name."""
    client, name = ai_stand.client("sagemaker"), new_name("model")
    arguments = {"ModelName": name, "PrimaryContainer": {"Image": "djl"}}
    assert client.create_model(**arguments)["ModelArn"] == f"{ARN}:model/{name}"
    assert refused(client.create_model, **arguments)[1] == "ValidationException"
    other = new_name("model")
    answer = ai_stand.post_signed("/CreateModel", json.dumps({**arguments, "ModelName": other}))
    assert answer.json() == {"ModelArn": f"{ARN}:model/{other}"}


@pytest.mark.parametrize("host", ["runtime.sagemaker.us-east-1.amazonaws.com", None])
def test_an_endpoint_answers_with_vectors(ai_stand: Stand, ai_model: MiniLM, host: str | None) -> None:
    """InvokeEndpoint gives a list of vectors for a list of texts, to ML Commons and to boto3."""
    body = '["one", "two"]'
    if host:
        answer = ai_stand.post_signed("/endpoints/any-name/invocations", body, host=host)
        vectors = answer.json()
    else:
        runtime = ai_stand.client("sagemaker-runtime")
        response = runtime.invoke_endpoint(EndpointName="any-name", ContentType="application/json", Body=body)
        vectors = json.loads(response["Body"].read())
    assert_vectors_of(ai_model, vectors, ["one", "two"])


def test_an_endpoint_refuses_what_the_model_cannot_read(ai_stand: Stand) -> None:
    """The container's refusal arrives as a ModelError."""
    runtime = ai_stand.client("sagemaker-runtime")
    status, code, message = refused(
        runtime.invoke_endpoint, EndpointName="any", ContentType="application/json", Body='{"text": 1}'
    )
    assert (status, code) == (424, "ModelError")
    assert "Received client error (400) from primary" in message


def test_refused_requests(ai_stand: Stand) -> None:
    """Wrong requests get SageMaker's status, code and message, and are not counted."""
    client, name = ai_stand.client("sagemaker"), new_name()
    good = request(name, "nothing-here/", "out")
    before = ai_stand.job_count()
    assert refused(client.create_transform_job, **{**good, "ModelName": "nobody"}) == (
        400,
        "ValidationException",
        f'Could not find model "{ARN}:model/nobody".',
    )
    assert refused(client.describe_transform_job, TransformJobName="nobody") == (
        400,
        "ValidationException",
        "Could not find requested job with name: nobody",
    )
    assert refused(client.stop_transform_job, TransformJobName="nobody")[1] == "ValidationException"
    pattern = refused(client.create_transform_job, **{**good, "TransformJobName": "under_score"})[2]
    assert pattern.startswith("1 validation error detected: Value 'under_score' at 'transformJobName' failed")
    length = refused(client.create_transform_job, **{**good, "TransformJobName": "x" * 64})[2]
    assert "Member must have length less than or equal to 63" in length
    bad_filter = {**good, "DataProcessing": {"InputFilter": "$["}}
    assert "Invalid JSONPath in InputFilter" in refused(client.create_transform_job, **bad_filter)[2]
    assert ai_stand.job_count() == before


def test_missing_members_are_all_named(ai_stand: Stand) -> None:
    """A body without required members gets one ValidationException that names each of them."""
    body = {"TransformJobName": "a", "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix"}}}}
    answer = ai_stand.post_signed("/CreateTransformJob", json.dumps(body)).json()
    assert answer["__type"] == "ValidationException"
    assert answer["message"].startswith("4 validation errors detected: ")
    for member in (
        "modelName",
        "transformInput.dataSource.s3DataSource.s3Uri",
        "transformOutput",
        "transformResources",
    ):
        assert f"Value null at '{member}' failed to satisfy constraint: Member must not be null" in answer["message"]


@pytest.mark.parametrize("body", ["[1]", "{", '{"TransformJobName": 7}'])
def test_a_body_of_another_shape(ai_stand: Stand, body: str) -> None:
    """What is no object, or holds a number for a string, is a SerializationException."""
    answer = ai_stand.post_signed("/DescribeTransformJob", body)
    assert (answer.status_code, answer.json()["__type"]) == (400, "SerializationException")


def test_a_name_is_used_once(ai_stand: Stand) -> None:
    """A second job of the same name is refused even after the first ended, and is not counted."""
    client, name = ai_stand.client("sagemaker"), new_name()
    body = request(name, "nothing-here/", "out")
    client.create_transform_job(**body)
    ai_stand.wait(name)
    before = ai_stand.job_count()
    assert refused(client.create_transform_job, **body) == (
        400,
        "ResourceInUse",
        (
            "Job name must be unique within an AWS account and region, "
            f"and a job with this name already exists ({ARN}:transform-job/{name})"
        ),
    )
    assert ai_stand.job_count() == before


def test_only_the_known_key_pair_passes(ai_stand: Stand) -> None:
    """A wrong secret is refused by every operation; without a signature there is no entry; health needs none."""
    wrong = ai_stand.client("sagemaker", secret="guess")
    assert refused(wrong.describe_transform_job, TransformJobName="a")[:2] == (403, "InvalidSignatureException")
    runtime = ai_stand.client("sagemaker-runtime", secret="guess")
    assert refused(runtime.invoke_endpoint, EndpointName="a", Body="[]")[:2] == (403, "InvalidSignatureException")
    unsigned = requests.post(f"{ai_stand.app_url}/CreateTransformJob", json={}, timeout=WAIT_S)
    assert (unsigned.status_code, unsigned.json()["__type"]) == (403, "MissingAuthenticationTokenException")
    assert requests.get(f"{ai_stand.app_url}/health", timeout=WAIT_S).status_code == 200


def test_a_host_reaches_its_own_service_only(ai_stand: Stand) -> None:
    """SageMaker's routes are not behind another service's host, nor the stack's own behind SageMaker's."""
    assert ai_stand.post_signed("/CreateTransformJob", "{}", host="api.openai.com").status_code == 404
    headers = {"host": "api.sagemaker.us-east-1.amazonaws.com"}
    assert requests.get(f"{ai_stand.app_url}/health", headers=headers, timeout=WAIT_S).status_code == 404


def test_throttling_and_errors_strike_as_often_as_asked(ai_stand: Stand) -> None:
    """A throttled call is a 400 ThrottlingException, a faulty one a 500; then the operation works again."""
    client, name = ai_stand.client("sagemaker"), new_name()
    body = request(name, "nothing-here/", "out")
    ai_stand.fault("throttle", times=2, operation="CreateTransformJob")
    for _ in range(2):
        assert refused(client.create_transform_job, **body) == (400, "ThrottlingException", "Rate exceeded")
    ai_stand.fault("error", operation="CreateTransformJob")
    assert refused(client.create_transform_job, **body)[0] == 500
    client.create_transform_job(**body)


def test_a_lost_response_hides_an_accepted_job(ai_stand: Stand) -> None:
    """The caller sees a 500, yet the job exists, runs and counts."""
    client, name = ai_stand.client("sagemaker"), new_name()
    before = ai_stand.job_count()
    ai_stand.fault("lost_response")
    assert refused(client.create_transform_job, **request(name, "nothing-here/", "out"))[0] == 500
    assert ai_stand.job_count() == before + 1
    assert ai_stand.wait(name)["TransformJobName"] == name


def test_faults_are_checked(ai_stand: Stand) -> None:
    """An unknown service or fault is refused with what there is."""
    for body in ({"service": "nobody", "fault": "throttle"}, {"service": "sagemaker", "fault": "flood"}):
        answer = requests.post(f"{ai_stand.app_url}/faults", json=body, timeout=WAIT_S)
        assert (answer.status_code, answer.json()["detail"][:7]) == (400, "/faults")
