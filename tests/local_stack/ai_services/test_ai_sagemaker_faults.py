"""SageMaker's sparse models, and what faults do to the rows of a transform job."""

import json
import math
from typing import Any

import pytest
import requests

from tests.local_stack.ai_services.stand import Stand, new_name, request
from tests.waiting import WAIT_S


def run(stand: Stand, lines: list[str], **changes: object) -> tuple[str, list[str]]:
    """A job over these lines, ended: its status and the lines of its output."""
    folder, name = new_name("in"), new_name()
    stand.put_lines(f"{folder}/a.jsonl", lines)
    stand.client("sagemaker").create_transform_job(**request(name, f"{folder}/", f"{folder}-out", **changes))
    return stand.wait(name)["TransformJobStatus"], stand.read(f"{folder}-out/a.jsonl.out").splitlines()


def numbered(count: int) -> list[str]:
    """Records with an id and a text."""
    return [json.dumps({"id": number, "text": f"text {number}"}) for number in range(1, count + 1)]


def test_a_sparse_model_gives_weights(ai_stand: Stand) -> None:
    """Of each token, more for one that comes more often; the same in a job and at once."""
    name = new_name("sparse-model")
    ai_stand.client("sagemaker").create_model(ModelName=name, PrimaryContainer={"Image": "djl"})
    _, (row,) = run(ai_stand, ['{"text":"the cat, the unbelievable cat"}'], ModelName=name)
    weights: dict[str, Any] = json.loads(row)["SageMakerOutput"]
    assert {weights["the"], weights["cat"]} == {math.log1p(2)}
    assert weights[","] == math.log1p(1)
    assert not {"[CLS]", "[SEP]"} & set(weights)
    runtime = ai_stand.client("sagemaker-runtime")
    body = json.dumps(["the cat, the unbelievable cat", ""])
    answer = runtime.invoke_endpoint(EndpointName="sparse-x", ContentType="application/json", Body=body)
    assert json.loads(answer["Body"].read()) == [weights, {}]


@pytest.mark.parametrize(
    ("fault", "ids"), [("missing", [1, 3]), ("duplicate", [1, 2, 2, 3, 4, 4]), ("reorder", [4, 3, 2, 1])]
)
def test_faults_of_rows(ai_stand: Stand, fault: str, ids: list[int]) -> None:
    """The job says it is Completed all the same."""
    ai_stand.fault(fault)
    status, rows = run(ai_stand, numbered(4))
    assert (status, [json.loads(row)["id"] for row in rows]) == ("Completed", ids)


@pytest.mark.parametrize(("joins", "members"), [("Input", ["id", "text"]), ("None", [])])
def test_rows_that_failed(ai_stand: Stand, joins: str, members: list[str]) -> None:
    """Have the error in place of the output, beside the record where it is joined."""
    ai_stand.fault("partial", every=3)
    status, rows = run(ai_stand, numbered(4), DataProcessing={"InputFilter": "$.text", "JoinSource": joins})
    assert (status, len(rows)) == ("Completed", 4)
    assert list(json.loads(rows[2])) == [*members, "SageMakerInferenceError"]
    assert ["SageMakerInferenceError" in row for row in rows] == [False, False, True, False]


def test_faults_within_rows(ai_stand: Stand) -> None:
    """Every second vector lacks a number, and the last row ends in its middle."""
    ai_stand.fault("wrong_dimension")
    ai_stand.fault("truncate")
    _, (*whole, cut) = run(ai_stand, numbered(3))
    assert [len(json.loads(row)["SageMakerOutput"]) for row in whole] == [384, 383]
    with pytest.raises(json.JSONDecodeError, match=r"Expecting|Unterminated"):
        json.loads(cut)


def test_a_quota_is_no_throttling(ai_stand: Stand) -> None:
    """It has SageMaker's own code."""
    ai_stand.fault("quota", operation="CreateTransformJob")
    body = json.dumps(request(new_name(), "nothing-here/", "out"))
    answer = ai_stand.post_signed("/CreateTransformJob", body)
    assert (answer.status_code, answer.json()["__type"]) == (400, "ResourceLimitExceeded")


def test_a_fault_a_service_cannot_have_is_refused(ai_stand: Stand) -> None:
    """The answer names those it can; numbers out of range are refused too."""
    wrong: list[dict[str, Any]] = [
        {"service": "sagemaker", "fault": "expire"},
        {"service": "cohere", "fault": "expire"},
        {"service": "openai", "fault": "partial", "every": 0},
        {"service": "openai", "fault": "partial", "times": 0},
    ]
    for body in wrong:
        answer = requests.post(f"{ai_stand.app_url}/faults", json=body, timeout=WAIT_S)
        assert (answer.status_code, answer.json()["detail"][:7]) == (400, "/faults")
    assert requests.delete(f"{ai_stand.app_url}/faults", timeout=WAIT_S).json() == {"faults": []}


def test_quotas_are_shown_set_and_checked(ai_stand: Stand) -> None:
    """Those that are not named go back to production's."""
    url = f"{ai_stand.app_url}/quotas"
    assert requests.put(url, json={"bedrock_min_records": 7}, timeout=WAIT_S).json() == {"bedrock_min_records": 7}
    assert requests.get(url, timeout=WAIT_S).json() == {"bedrock_min_records": 7}
    assert requests.put(url, json={"bedrock_min_records": 0}, timeout=WAIT_S).status_code == 400
    assert requests.put(url, json={}, timeout=WAIT_S).json() == {"bedrock_min_records": 100}
