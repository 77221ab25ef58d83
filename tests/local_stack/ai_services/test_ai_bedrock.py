"""Bedrock's batch inference and InvokeModel as boto3 and as ML Commons call them."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from botocore.exceptions import ClientError

from include.local_stack.ai_services.model import MiniLM
from tests.local_stack.ai_services.stand import BUCKET, Stand, new_name
from tests.waiting import eventually

TITAN, COHERE = "amazon.titan-embed-text-v2:0", "cohere.embed-english-v3"
CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
ROLE = "arn:aws:iam::123456789012:role/batch"
HOST = "bedrock.us-east-1.amazonaws.com"
LIVE = {"Submitted", "Validating", "Scheduled", "InProgress", "Stopping"}


@pytest.fixture
def few(ai_stand: Stand) -> Stand:
    """The services, where a job of one record is large enough."""
    ai_stand.quotas(bedrock_min_records=1)
    return ai_stand


def refused(call: Callable[..., object], **arguments: object) -> tuple[int, str, str]:
    """Status, code and message of a boto3 call that must fail."""
    with pytest.raises(ClientError, match=r"^An error occurred") as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]


def request(name: str, folder: str, **changes: object) -> dict[str, Any]:
    """A CreateModelInvocationJob body."""
    body = {
        "jobName": name,
        "roleArn": ROLE,
        "modelId": TITAN,
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": f"s3://{BUCKET}/{folder}/"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"s3://{BUCKET}/{folder}-out/"}},
    }
    return {**body, **changes}


def records(count: int, *, first: int = 1) -> list[str]:
    """Lines of an input."""
    numbers = range(first, first + count)
    return [json.dumps({"recordId": f"R{n:010d}", "modelInput": {"inputText": f"text {n}"}}) for n in numbers]


def submit(stand: Stand, lines: list[str], **changes: object) -> tuple[str, str]:
    """Start a job over one object of these lines: its ARN, and where its outputs will lie."""
    folder = new_name("in")
    stand.put_lines(f"{folder}/a.jsonl", lines)
    arn = stand.client("bedrock").create_model_invocation_job(**request(new_name(), folder, **changes))["jobArn"]
    return arn, f"{folder}-out/{arn.rpartition('/')[2]}/"


def ended(stand: Stand, arn: str) -> dict[str, Any]:
    """The job once it has ended."""
    client = stand.client("bedrock")
    eventually(lambda: client.get_model_invocation_job(jobIdentifier=arn)["status"] not in LIVE, f"job {arn} ends")
    job: dict[str, Any] = client.get_model_invocation_job(jobIdentifier=arn)
    return job


def run(stand: Stand, lines: list[str], **changes: object) -> tuple[dict[str, Any], list[Any]]:
    """A job over these lines, ended, and the rows of its output."""
    arn, output = submit(stand, lines, **changes)
    job = ended(stand, arn)
    return job, [json.loads(row) for row in stand.read(f"{output}a.jsonl.out").splitlines()]


@pytest.mark.slow
def test_a_job_through_boto3(ai_stand: Stand, ai_model: MiniLM) -> None:
    """Every object below the prefix gets its own output, and the manifest the sums; other objects are no input."""
    folder, name = new_name("in"), new_name()
    ai_stand.put_lines(f"{folder}/a.jsonl", records(98))
    ai_stand.put_lines(f"{folder}/sub/b.jsonl", records(2, first=99))
    ai_stand.put_lines(f"{folder}/readme.txt", ["no record"])
    before = ai_stand.job_count("bedrock")
    arn = ai_stand.client("bedrock").create_model_invocation_job(**request(name, folder))["jobArn"]
    job, output = ended(ai_stand, arn), f"{folder}-out/{arn.rpartition('/')[2]}/"
    assert (job["status"], job["jobName"], job["jobArn"], job["modelId"]) == ("Completed", name, arn, TITAN)
    assert job["submitTime"] <= job["lastModifiedTime"] == job["endTime"] < job["jobExpirationTime"]
    assert [job[f"{kind}RecordCount"] for kind in ("total", "processed", "success", "error")] == [100, 100, 100, 0]
    assert ai_stand.job_count("bedrock") == before + 1
    assert ai_stand.keys(output) == [
        f"{output}{name}" for name in ("a.jsonl.out", "manifest.json.out", "sub/b.jsonl.out")
    ]
    rows = [json.loads(row) for row in ai_stand.read(f"{output}sub/b.jsonl.out").splitlines()]
    assert [list(row) for row in rows] == [["modelInput", "modelOutput", "recordId"]] * 2
    assert [row["recordId"] for row in rows] == ["R0000000099", "R0000000100"]
    found = np.array([row["modelOutput"]["embedding"] for row in rows])
    assert np.abs(found - ai_model.encode(["text 99", "text 100"])).max() < 1e-5
    manifest = json.loads(ai_stand.read(f"{output}manifest.json.out"))
    tokens = sum(len(words) for words in ai_model.tokens([f"text {number}" for number in range(1, 101)]))
    assert manifest == {
        "totalRecordCount": 100,
        "processedRecordCount": 100,
        "successRecordCount": 100,
        "errorRecordCount": 0,
        "inputTokenCount": tokens,
        "outputTokenCount": 0,
    }


def test_too_few_records_fail_the_job(ai_stand: Stand) -> None:
    """99 are too few; the message is Bedrock's, and nothing is stored."""
    arn, output = submit(ai_stand, records(99))
    job = ended(ai_stand, arn)
    message = f"Batch job {arn} contains less records (99) than the required minimum of: 100"
    assert (job["status"], job["message"]) == ("Failed", message)
    assert ai_stand.keys(output) == []


def test_a_record_the_model_refuses_has_an_error(few: Stand) -> None:
    """In place of its output; a record without an id is given one."""
    lines = [*records(1), '{"recordId":"bad","modelInput":{"text":"x"}}', '{"modelInput":{"inputText":"none"}}']
    job, rows = run(few, lines)
    assert job["status"] == "PartiallyCompleted"
    assert [job[f"{kind}RecordCount"] for kind in ("total", "processed", "success", "error")] == [3, 3, 2, 1]
    assert [list(row)[1] for row in rows] == ["modelOutput", "error", "modelOutput"]
    assert rows[1]["error"]["errorCode"] == 400
    assert "required key [inputText] not found" in rows[1]["error"]["errorMessage"]
    assert [row["recordId"] for row in rows] == ["R0000000001", "bad", "CALL0000003"]


def test_a_line_that_is_no_record_fails_the_job(few: Stand) -> None:
    """The message names object and line."""
    for line in ("not json", '{"recordId":"a"}', '{"recordId":7,"modelInput":{}}'):
        arn, output = submit(few, [*records(1), line])
        job = ended(few, arn)
        assert job["status"] == "Failed"
        assert "/a.jsonl line 2 is no record" in job["message"]
        assert few.keys(output) == []


def test_a_prefix_without_input_fails_the_job(few: Stand) -> None:
    """And so does a bucket that is not there."""
    client = few.client("bedrock")
    for folder in (new_name("nothing"), new_name("text")):
        few.put_lines(f"{folder}x/a.txt", ["x"])
        arn = client.create_model_invocation_job(**request(new_name(), folder))["jobArn"]
        assert ended(few, arn)["message"].startswith("No .jsonl files were found at s3://")
    missing = {"s3InputDataConfig": {"s3Uri": "s3://no-such-bucket-anywhere/a/"}}
    arn = client.create_model_invocation_job(**request(new_name(), "x", inputDataConfig=missing))["jobArn"]
    assert "NoSuchBucket" in ended(few, arn)["message"]


def test_cohere_and_claude_jobs(few: Stand, ai_model: MiniLM) -> None:
    """Each model answers in its own form."""
    given: Any = {"texts": ["one", "two"], "input_type": "search_document"}
    _, (row,) = run(few, [json.dumps({"recordId": "a", "modelInput": given})], modelId=COHERE)
    assert np.abs(np.array(row["modelOutput"]["embeddings"]) - ai_model.encode(["one", "two"])).max() < 1e-5
    messages = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    given = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": messages}
    _, (row,) = run(few, [json.dumps({"recordId": "a", "modelInput": given})], modelId=CLAUDE)
    assert row["modelInput"] == given
    assert row["modelOutput"]["content"] == [{"type": "text", "text": "HELLO"}]
    assert row["modelOutput"]["usage"] == {"input_tokens": 1, "output_tokens": 1}


def test_invoke_model(ai_stand: Stand, ai_model: MiniLM) -> None:
    """One answer of a model, to boto3 and to ML Commons, whose path escapes the colon."""
    runtime = ai_stand.client("bedrock-runtime")
    answer = runtime.invoke_model(modelId=TITAN, body='{"inputText":"one","dimensions":256}')
    found = json.loads(answer["body"].read())
    assert (len(found["embedding"]), round(float(np.linalg.norm(found["embedding"])), 5)) == (256, 1.0)
    assert found["inputTextTokenCount"] == 1
    path, host = f"/model/{quote(TITAN)}/invoke", f"bedrock-runtime.{HOST.partition('.')[2]}"
    plain = ai_stand.signed("POST", path, '{"inputText":"one"}', host=host, service="bedrock").json()
    assert np.abs(np.array(plain["embedding"]) - ai_model.encode(["one"])[0]).max() < 1e-5
    assert refused(runtime.invoke_model, modelId=TITAN, body="{}")[:2] == (400, "ValidationException")
    unknown = refused(runtime.invoke_model, modelId="amazon.nobody-v1", body="{}")
    assert unknown == (400, "ValidationException", "The provided model identifier is invalid.")


@pytest.mark.parametrize("escaped", [True, False])
def test_a_job_as_ml_commons_calls_it(few: Stand, *, escaped: bool) -> None:
    """By the production host, with the ARN in the path, its colons and slash escaped or not."""
    few.fault("delay", service="bedrock", seconds=3600)
    folder = new_name("in")
    few.put_lines(f"{folder}/a.jsonl", records(1))
    body = request(new_name(), folder, timeoutDurationInHours=24.0)
    created = few.signed("POST", "/model-invocation-job", json.dumps(body), host=HOST, service="bedrock")
    assert (created.status_code, list(created.json())) == (200, ["jobArn"])
    path = f"/model-invocation-job/{quote(created.json()['jobArn'], safe='' if escaped else ':/')}"
    shown = few.signed("GET", path, "", host=HOST, service="bedrock").json()
    assert (shown["status"], shown["submitTime"][-1]) == ("Submitted", "Z")
    stopped = few.signed("POST", f"{path}/stop", "", host=HOST, service="bedrock")
    assert (stopped.status_code, stopped.json()) == (200, {})
    assert ended(few, created.json()["jobArn"])["status"] == "Stopped"
    assert few.signed("GET", path, "", host="api.openai.com", service="bedrock").status_code == 404


def test_a_job_name_is_free_again_when_its_job_has_ended(few: Stand) -> None:
    """As long as it lives, a second job of the name is a conflict and is not counted."""
    client, name = few.client("bedrock"), new_name()
    few.fault("delay", service="bedrock", seconds=3600)
    arn = client.create_model_invocation_job(**request(name, "nothing-here"))["jobArn"]
    before = few.job_count("bedrock")
    conflict = refused(client.create_model_invocation_job, **request(name, "nothing-here"))
    assert conflict == (400, "ConflictException", "The provided job name is currently in use.")
    assert few.job_count("bedrock") == before
    client.stop_model_invocation_job(jobIdentifier=arn)
    assert ended(few, arn)["status"] == "Stopped"
    assert client.create_model_invocation_job(**request(name, "nothing-here"))["jobArn"] != arn


def test_a_client_token_gives_one_job(few: Stand) -> None:
    """The same ARN each time, also after the response was lost and after the job has ended."""
    client = few.client("bedrock")
    body = request(new_name(), "nothing-here", clientRequestToken="t0ken" + new_name("").replace("-", ""))
    before = few.job_count("bedrock")
    few.fault("lost_response", service="bedrock")
    assert refused(client.create_model_invocation_job, **body)[:2] == (500, "InternalServerException")
    arn = client.create_model_invocation_job(**body)["jobArn"]
    assert ended(few, arn)["clientRequestToken"] == body["clientRequestToken"]
    assert client.create_model_invocation_job(**body)["jobArn"] == arn
    assert few.job_count("bedrock") == before + 1


def test_jobs_are_listed_by_name_and_page(few: Stand) -> None:
    """The newest first unless asked otherwise; boto3 walks the pages."""
    client, stem = few.client("bedrock"), new_name()
    few.fault("delay", service="bedrock", seconds=3600, times=3)
    names = [f"{stem}-{number}" for number in range(3)]
    for name in names:
        client.create_model_invocation_job(**request(name, "nothing-here"))

    def listed(**options: object) -> list[str]:
        pages = client.get_paginator("list_model_invocation_jobs").paginate(nameContains=stem, **options)
        return [job["jobName"] for page in pages for job in page["invocationJobSummaries"]]

    assert listed(PaginationConfig={"PageSize": 2}) == names[::-1]
    assert listed(sortOrder="Ascending", PaginationConfig={"PageSize": 1}) == names
    (first,) = client.list_model_invocation_jobs(nameContains=names[0])["invocationJobSummaries"]
    assert listed(submitTimeBefore=first["submitTime"]) == []
    assert listed(statusEquals="Submitted") == names[::-1]
    assert listed(statusEquals="Completed") == []
    page = client.list_model_invocation_jobs(nameContains=stem, maxResults=2)
    assert ([job["jobName"] for job in page["invocationJobSummaries"]], bool(page["nextToken"])) == (names[:0:-1], True)
    assert refused(client.list_model_invocation_jobs, statusEquals="Nothing")[1] == "ValidationException"


def test_refused_requests(ai_stand: Stand) -> None:
    """Wrong requests get Bedrock's status and code, and are not counted."""
    client = ai_stand.client("bedrock")
    before = ai_stand.job_count("bedrock")
    wrong: list[dict[str, object]] = [
        {"jobName": "under_score"},
        {"modelId": "amazon.nobody-v1"},
        {"modelInvocationType": "Converse"},
        {"timeoutDurationInHours": 200},
        {"roleArn": "nobody"},
    ]
    for change in wrong:
        found = refused(client.create_model_invocation_job, **request(new_name(), "in", **change))
        assert found[:2] == (400, "ValidationException")
    empty = request(new_name(), "in", inputDataConfig={})
    answer = ai_stand.signed("POST", "/model-invocation-job", json.dumps(empty), host=HOST, service="bedrock")
    # A REST service of AWS names its errors in a header alone.
    assert (answer.status_code, answer.headers["x-amzn-ErrorType"]) == (400, "ValidationException")
    assert set(answer.json()) == {"message"}
    missing = f"arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/{'a' * 12}"
    for call in (client.get_model_invocation_job, client.stop_model_invocation_job):
        assert refused(call, jobIdentifier=missing)[:2] == (404, "ResourceNotFoundException")
        assert refused(call, jobIdentifier="nobody")[:2] == (400, "ValidationException")
    wrong_key = ai_stand.client("bedrock", secret="guess")
    assert refused(wrong_key.list_model_invocation_jobs)[:2] == (403, "InvalidSignatureException")
    assert ai_stand.job_count("bedrock") == before


def test_calls_fail_as_often_as_asked(ai_stand: Stand) -> None:
    """Throttling, the quota of concurrent jobs and errors are told in Bedrock's words."""
    client, body = ai_stand.client("bedrock"), request(new_name(), "nothing-here")
    ai_stand.fault("throttle", service="bedrock", operation="CreateModelInvocationJob")
    assert refused(client.create_model_invocation_job, **body)[:2] == (429, "ThrottlingException")
    ai_stand.fault("quota", service="bedrock")
    status, code, message = refused(client.create_model_invocation_job, **body)
    assert (status, code) == (400, "ServiceQuotaExceededException")
    assert "quota for number of concurrent invoke-model jobs" in message
    ai_stand.fault("error", service="bedrock")
    assert refused(client.create_model_invocation_job, **body)[:2] == (500, "InternalServerException")
    client.create_model_invocation_job(**body)


@pytest.mark.parametrize(
    ("fault", "status", "ids"),
    [
        ("partial", "PartiallyCompleted", [1, 2, 3, 4]),
        ("missing", "Completed", [1, 3]),
        ("duplicate", "Completed", [1, 2, 2, 3, 4, 4]),
        ("reorder", "Completed", [4, 3, 2, 1]),
    ],
)
def test_faults_of_rows(few: Stand, fault: str, status: str, ids: list[int]) -> None:
    """The output is not what the counts say, but for the records that failed."""
    few.fault(fault, service="bedrock")
    job, rows = run(few, records(4))
    assert (job["status"], job["processedRecordCount"]) == (status, 4)
    assert [int(row["recordId"][1:]) for row in rows] == ids
    failed = [row["recordId"][-1] for row in rows if "error" in row]
    assert failed == (["2", "4"] if fault == "partial" else [])


def test_faults_within_rows(few: Stand) -> None:
    """Every second vector lacks a number, and the last row ends in its middle."""
    few.fault("wrong_dimension", service="bedrock")
    few.fault("truncate", service="bedrock")
    arn, output = submit(few, records(3))
    assert ended(few, arn)["status"] == "Completed"
    *whole, cut = few.read(f"{output}a.jsonl.out").splitlines()
    assert [len(json.loads(row)["modelOutput"]["embedding"]) for row in whole] == [384, 383]
    with pytest.raises(json.JSONDecodeError, match=r"Expecting|Unterminated"):
        json.loads(cut)


@pytest.mark.parametrize(("fault", "status"), [("fail", "Failed"), ("expire", "Expired")])
def test_jobs_that_end_badly_leave_nothing(few: Stand, fault: str, status: str) -> None:
    """Each with its message."""
    few.fault(fault, service="bedrock")
    arn, output = submit(few, records(1))
    job = ended(few, arn)
    assert (job["status"], bool(job["message"])) == (status, True)
    assert few.keys(output) == []


def long_job(stand: Stand) -> tuple[str, str]:
    """Start a job of several seconds and wait until some records are done: its ARN and where its output will lie."""
    given = [{"inputText": f"{number} the sea is wide and " * 8} for number in range(600)]
    arn, output = submit(stand, [json.dumps({"recordId": str(n), "modelInput": one}) for n, one in enumerate(given)])
    client = stand.client("bedrock")
    eventually(
        lambda: client.get_model_invocation_job(jobIdentifier=arn).get("processedRecordCount", 0) > 0,
        "records are done",
    )
    return arn, output


@pytest.mark.slow
def test_stopping_a_running_job(ai_stand: Stand) -> None:
    """It is Stopping, then Stopped, leaves nothing, and cannot be stopped again."""
    arn, output = long_job(ai_stand)
    client = ai_stand.client("bedrock")
    client.stop_model_invocation_job(jobIdentifier=arn)
    assert client.get_model_invocation_job(jobIdentifier=arn)["status"] in {"Stopping", "Stopped"}
    assert ended(ai_stand, arn)["status"] == "Stopped"
    assert ai_stand.keys(output) == []
    assert refused(client.stop_model_invocation_job, jobIdentifier=arn)[:2] == (400, "ConflictException")


@pytest.mark.slow
def test_a_job_outlives_its_worker(ai_stand: Stand) -> None:
    """The next worker computes it from its start, and every record is in its output once."""
    arn, output = long_job(ai_stand)
    ai_stand.kill_worker()
    assert ai_stand.client("bedrock").get_model_invocation_job(jobIdentifier=arn)["status"] == "InProgress"
    ai_stand.start_worker()
    job = ended(ai_stand, arn)
    assert (job["status"], job["processedRecordCount"], job["successRecordCount"]) == ("Completed", 600, 600)
    rows = [json.loads(row) for row in ai_stand.read(f"{output}a.jsonl.out").splitlines()]
    assert [row["recordId"] for row in rows] == [str(number) for number in range(600)]
