"""What reaches each service through ML Commons, and what it answers; `test_conformance` has what all share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import (
    AlreadySubmitted,
    BatchError,
    ConfigError,
    RecordRejected,
    RemoteError,
    Throttled,
)
from opensearch_batch.core.jobs.contract import PredictionRow, explain
from opensearch_batch.core.opensearch.ml_commons import fill
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.core.types.record_ids import position_of, record_id
from opensearch_batch.services.registry import BUILT_IN, adapter_of

CONNECTORS = Path(__file__).resolve().parents[2] / "plugins" / "opensearch_batch" / "connectors"
VALUES = {
    "region": "us-east-1",
    "model_name": "m",
    "job_role_arn": "arn:job",
    "role_arn": "arn:r",
    "endpoint_name": "e",
}
FOLDER, INPUT, OUTPUT = "s3://w/jobs/k", "s3://w/jobs/k/input.jsonl", "s3://w/jobs/k/output/1/"
TITAN, EMBED, CLAUDE = (
    "amazon.titan-embed-text-v2:0",
    "cohere.embed-english-v3",
    "anthropic.claude-3-haiku-20240307-v1:0",
)


def parameters(name: str, **more: Any) -> dict[str, Any]:
    """The connector's parameters as ML Commons stores them: nested ones as text."""
    body = fill(json.loads((CONNECTORS / f"{name}.json").read_text()), VALUES, "connector")["parameters"] | more
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in body.items()}


def record(name: str, **more: Any) -> JobRecord:
    """A job's record."""
    return msgspec.structs.replace(JobRecord("k", "p-k-1", name, "m", INPUT, OUTPUT, 0.0), **more)


@pytest.mark.parametrize(
    ("name", "more", "inputs", "line"),
    [
        ("openai", {}, ["$.a", "$.b"],
         {"custom_id": "r1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": ["A", "B"]}}),
        ("openai", {"body": {"dimensions": 3}}, ["$.a"],
         {"custom_id": "r1", "method": "POST", "url": "/v1/embeddings",
          "body": {"model": "m", "dimensions": 3, "input": ["A"]}}),
        ("openai", {"endpoint": "/v1/chat/completions"}, ["$.a"],
         {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions",
          "body": {"model": "m", "messages": [{"role": "user", "content": "A"}]}}),
        ("bedrock", {"modelId": TITAN, "model_input": {"dimensions": 256}}, ["$.a"],
         {"recordId": "r1", "modelInput": {"inputText": "A", "dimensions": 256}}),
        ("bedrock", {"modelId": EMBED}, ["$.a", "$.b"],
         {"recordId": "r1", "modelInput": {"texts": ["A", "B"], "input_type": "search_document"}}),
        ("bedrock", {"modelId": CLAUDE, "model_input": {"max_tokens": 9}}, ["$.a"],
         {"recordId": "r1", "modelInput": {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9,
                                           "messages": [{"role": "user", "content": "A"}]}}),
        ("bedrock", {"modelId": f"us.{CLAUDE}"}, ["$.a"],
         {"recordId": "r1", "modelInput": {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1024,
                                           "messages": [{"role": "user", "content": "A"}]}}),
        ("bedrock", {"modelId": "new.model", "model_input": {"x": [{"prompt": "<input>"}]}}, ["$.a"],
         {"recordId": "r1", "modelInput": {"x": [{"prompt": "A"}]}}),
        ("bedrock", {"modelId": "new.model", "model_input": {"prompt": 'In "short": <input>.', "n": 1}}, ["$.q"],
         {"recordId": "r1", "modelInput": {"prompt": 'In "short": say "<input>"\n\\.', "n": 1}}),
        ("cohere", {}, ["$.a"], {"text": "A", "record_id": "r1"}),
    ],
)  # fmt: skip
def test_a_record_becomes_the_services_own_line(
    name: str, more: dict[str, Any], inputs: list[str], line: dict[str, Any]
) -> None:
    """With the record's id, from which the answer is known again."""
    given = parameters(name, **more)
    adapter_of(name).check(given, inputs)
    made = adapter_of(name).request_line(given, inputs)(b'{"a":"A","b":"B","n":1,"q":"say \\"<input>\\"\\n\\\\"}', "r1")
    assert json.loads(made) == line
    assert b"\n" not in made


@pytest.mark.parametrize("name", ["openai", "bedrock", "cohere"])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"b":1}', r"nothing at \$\.a"), (b'{"a":null}', r"nothing at \$\.a"), (b'{"a":[1]}', "is not a string"),
        (b'{"a":""}', "is empty"), (b'{"a":" \\n"}', "is empty"),
    ],
)  # fmt: skip
def test_a_record_the_model_could_not_read_is_rejected(name: str, row: bytes, reason: str) -> None:
    """Before it is paid for, with the path."""
    more = {"modelId": TITAN} if name == "bedrock" else {}
    line = adapter_of(name).request_line(parameters(name, **more), ["$.a"])
    with pytest.raises(RecordRejected, match=reason):
        line(row, "r1")


@pytest.mark.parametrize(
    ("name", "more", "inputs", "message"),
    [
        ("openai", {}, [], r"openai /v1/embeddings: input is missing; .* like input: \$\.text"),
        ("openai", {"endpoint": "/v1/moderations"}, ["$.a"], "endpoint is '/v1/moderations'"),
        ("openai", {"endpoint": "/v1/chat/completions"}, ["$.a", "$.b"], "takes 1 input per record, found 2"),
        ("openai", {}, ["$.a[*]"], "not a plain path"),
        ("openai", {"body": "no object"}, ["$.a"], "parameters.body must be an object"),
        ("bedrock", {"modelId": TITAN}, ["$.a", "$.b"], r"found 2; map one, or choose a cohere\.embed model"),
        ("bedrock", {"modelId": EMBED, "model_input": {"texts": ["<input>"]}}, ["$.a", "$.b"], "takes 1 input"),
        ("bedrock", {"modelId": TITAN, "model_input": "[1]"}, ["$.a"], "parameters.model_input must be an object"),
        ("bedrock", {"modelId": "new.model"}, ["$.a"], 'give parameters.model_input with "<input>"'),
        ("cohere", {}, ["$.a", "$.b"], "takes 1 input per record, found 2"),
        ("cohere", {"embedding_types": ["float", "int8"]}, ["$.a"], "must be a list with exactly one of float"),
        ("cohere", {"embedding_types": "float"}, ["$.a"], "must be a list with exactly one of float.*found 'float'"),
    ],
)  # fmt: skip
def test_what_cannot_make_a_job_is_refused_before_paying(
    name: str, more: dict[str, Any], inputs: list[str], message: str
) -> None:
    """The error names the parameter and the way out."""
    with pytest.raises(ConfigError, match=message):
        adapter_of(name).check(parameters(name, **more), inputs)


@pytest.mark.parametrize(
    ("name", "missing"), [("openai", "model"), ("bedrock", "modelId"), ("bedrock", "roleArn"), ("cohere", "model")]
)
def test_a_parameter_the_service_needs_is_missed(name: str, missing: str) -> None:
    """By its own name."""
    given = {key: value for key, value in parameters(name).items() if key != missing}
    with pytest.raises(ConfigError, match=f"parameters.{missing} is missing"):
        adapter_of(name).check(given, ["$.a"])


@pytest.mark.parametrize(
    ("name", "more", "inputs", "number", "path"),
    [
        ("openai", {}, ["$.a"], None, "$.response.body.data[0].embedding"),
        ("openai", {}, ["$.a", "$.b"], 1, "$.response.body.data[1].embedding"),
        ("openai", {"endpoint": "/v1/chat/completions"}, ["$.a"], 0, "$.response.body.choices[0].message.content"),
        ("bedrock", {"modelId": TITAN}, ["$.a"], 0, "$.modelOutput.embedding"),
        ("bedrock", {"modelId": EMBED}, ["$.a", "$.b"], 1, "$.modelOutput.embeddings[1]"),
        ("bedrock", {"modelId": CLAUDE}, ["$.a"], None, "$.modelOutput.content[0].text"),
        ("bedrock", {"modelId": f"arn:aws:bedrock:us-east-1:1:inference-profile/us.{CLAUDE}"}, ["$.a"], None,
         "$.modelOutput.content[0].text"),
        ("bedrock", {"modelId": f"arn:aws:bedrock:us-east-1::foundation-model/{TITAN}"}, ["$.a"], None,
         "$.modelOutput.embedding"),
        ("bedrock", {"modelId": "new.model"}, ["$.a"], None, "$.modelOutput"),
        ("cohere", {}, ["$.a"], 0, "$.embeddings.float"),
        ("cohere", {"embedding_types": ["int8"]}, ["$.a"], None, "$.embeddings.int8"),
    ],
)  # fmt: skip
def test_a_prediction_stands_where_the_service_puts_it(
    name: str, more: dict[str, Any], inputs: list[str], number: int | None, path: str
) -> None:
    """So that a pipeline changes its service and not its field map."""
    assert adapter_of(name).prediction_path(parameters(name, **more), inputs, number) == path


@pytest.mark.parametrize(
    ("name", "told", "state", "reason"),
    [
        ("openai", {"status": "validating"}, "RUNNING", ""),
        ("openai", {"status": "finalizing", "output_file_id": "f"}, "RUNNING", ""),
        ("openai", {"status": "completed", "output_file_id": "f"}, "COMPLETED", ""),
        ("openai", {"status": "completed", "error_file_id": "f"}, "COMPLETED", ""),
        ("openai", {"status": "completed"}, "FAILED", "completed, but without an output file"),
        ("openai", {"status": "failed", "errors": {"data": [{"message": "bad line"}]}}, "FAILED", "bad line"),
        ("openai", {"status": "expired"}, "EXPIRED", ""),
        ("openai", {"status": "expired", "output_file_id": "f", "request_counts": {"completed": 2.0, "total": 3.0}},
         "COMPLETED", "expired, with 2 of 3 requests done"),
        ("openai", {"status": "cancelled", "output_file_id": "f"}, "CANCELLED", ""),
        ("openai", {"status": "incomplete"},
         "UNKNOWN", "openai reports the state 'incomplete', which this version does not know"),
        ("openai", {}, "RUNNING", ""),
        ("bedrock", {"status": "Scheduled"}, "RUNNING", ""),
        ("bedrock", {"status": "Completed"}, "COMPLETED", ""),
        ("bedrock", {"status": "PartiallyCompleted", "message": "some"}, "COMPLETED", "some"),
        ("bedrock", {"status": "Failed", "message": "too few"}, "FAILED", "too few"),
        ("bedrock", {"status": "Stopped"}, "CANCELLED", ""),
        ("bedrock", {"status": "Expired"}, "EXPIRED", ""),
        ("bedrock", {"jobArn": "a"}, "RUNNING", ""),
        ("cohere", {"status": "processing"}, "RUNNING", ""),
        ("cohere", {"status": "complete", "output_dataset_id": "d"}, "COMPLETED", ""),
        ("cohere", {"status": "complete"}, "FAILED", "complete, but without an output dataset"),
        ("cohere", {"status": "completed", "output_dataset_id": "d"},
         "UNKNOWN", "cohere reports the state 'completed', which this version does not know"),
        ("cohere", {"status": "cancelled"}, "CANCELLED", ""),
        ("cohere", {"status": "failed"}, "FAILED", ""),
        ("sagemaker", {"TransformJobStatus": "InProgress", "FailureReason": None}, "RUNNING", ""),
        ("sagemaker", {"TransformJobStatus": "Stopping", "FailureReason": None}, "RUNNING", ""),
        ("sagemaker", {"TransformJobStatus": "Completed", "FailureReason": None}, "COMPLETED", ""),
        ("sagemaker", {"TransformJobStatus": "Failed", "FailureReason": None}, "FAILED", ""),
        ("sagemaker", {"TransformJobStatus": "Stopped", "FailureReason": None}, "CANCELLED", ""),
        ("sagemaker", {"TransformJobStatus": "incomplete", "FailureReason": None},
         "UNKNOWN", "sagemaker reports the state 'incomplete', which this version does not know"),
        ("sagemaker", {"TransformJobStatus": None, "FailureReason": None}, "RUNNING", ""),
    ],
)  # fmt: skip
def test_the_state_is_read_exactly(name: str, told: dict[str, Any], state: str, reason: str) -> None:
    """No substring decides, and a job that ended early but kept rows is not thrown away."""
    seen = adapter_of(name).job_status(told)
    assert (seen.state, seen.reason) == (state, reason)


@pytest.mark.parametrize(
    ("name", "told", "places"),
    [
        ("openai", {"output_file_id": "file-1", "error_file_id": "file-2"}, ["openai://file-1", "openai://file-2"]),
        ("openai", {"output_file_id": None, "error_file_id": "file-2"}, ["openai://file-2"]),
        ("bedrock", {"jobArn": "arn:aws:bedrock:r:1:model-invocation-job/abc"}, [f"{OUTPUT}abc/input.jsonl.out"]),
        ("cohere", {"output_dataset_id": "d"}, ["cohere://d"]),
        ("sagemaker", {}, [f"{OUTPUT}input.jsonl.out"]),
    ],
)  # fmt: skip
def test_the_outputs_are_where_the_service_says(name: str, told: dict[str, Any], places: list[str]) -> None:
    """Rows of errors included."""
    assert adapter_of(name).outputs(record(name), told) == places


@pytest.mark.parametrize(
    ("name", "row", "read"),
    [
        ("openai", b'{"custom_id":"r1","response":{"status_code":200,"body":{}},"error":null}', PredictionRow("r1")),
        ("openai", b'{"custom_id":"r1","response":{"status_code":400,"body":{"error":{"message":"long"}}}}',
         PredictionRow("r1", "400: long")),
        ("openai", b'{"custom_id":"r1","response":null,"error":{"code":"batch_expired","message":"late"}}',
         PredictionRow("r1", "batch_expired: late")),
        ("openai", b'{"custom_id":"r1","resp', PredictionRow(None, "the row is not a valid JSON object")),
        ("bedrock", b'{"modelInput":{},"modelOutput":{"embedding":[1]},"recordId":"r1"}', PredictionRow("r1")),
        ("bedrock", b'{"modelInput":{},"error":{"errorCode":400,"errorMessage":"long"},"recordId":"r1"}',
         PredictionRow("r1", "400: long")),
        ("bedrock", b"[1]", PredictionRow(None, "the row is not a valid JSON object")),
        ("cohere", b'{"text":"t","embeddings":{"float":[1.0],"int8":null},"record_id":"r1"}', PredictionRow("r1")),
        ("cohere", b'{"text":"t","embeddings":{"float":null},"record_id":"r1"}',
         PredictionRow("r1", "the row has no embeddings")),
    ],
)  # fmt: skip
def test_a_row_names_its_record_or_says_why_it_has_none(name: str, row: bytes, read: PredictionRow) -> None:
    """The service's own reason is kept."""
    assert adapter_of(name).row(row) == read


@pytest.mark.parametrize(
    ("name", "staged", "known", "told", "is_it"),
    [
        ("openai", {"input_file_id": "f"}, {}, {"input_file_id": "f"}, True),
        ("openai", {"input_file_id": "f"}, {}, {"input_file_id": "g"}, False),
        ("openai", {}, {}, {}, False),
        ("bedrock", {}, {}, {"jobName": "p-k-1"}, True),
        ("bedrock", {}, {}, {"jobName": "p-k-12"}, False),
        ("bedrock", {}, {"jobArn": "a"}, {"jobArn": "a"}, True),
        ("bedrock", {}, {}, {}, False),
        ("cohere", {"dataset_id": "d"}, {}, {"input_dataset_id": "d"}, True),
        ("cohere", {"dataset_id": "d"}, {"job_id": "j"}, {"job_id": "j"}, True),
        ("cohere", {"dataset_id": "d"}, {}, {"job_id": "j"}, False),
        ("cohere", {}, {}, {}, False),
    ],
)  # fmt: skip
def test_a_job_is_known_by_what_only_it_has(
    name: str,
    staged: dict[str, str],
    known: dict[str, Any],
    told: dict[str, Any],
    is_it: bool,  # noqa: FBT001 - a case
) -> None:
    """An orphan is taken for ours only if it is."""
    assert adapter_of(name).is_job(record(name, staged=staged, remote_job=known), told) is is_it


@pytest.mark.parametrize(
    ("name", "staged", "sent"),
    [
        ("openai", {"input_file_id": "f"}, {"input_file_id": "f", "endpoint": "/v1/embeddings"}),
        ("bedrock", {}, {
            "jobName": "p-k-1",
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": INPUT}},
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": OUTPUT}},
        }),
        ("cohere", {"dataset_id": "d"}, {"dataset_id": "d", "name": "p-k-1"}),
        ("sagemaker", {}, {
            "TransformJobName": "p-k-1",
            "TransformInput": {
                "ContentType": "application/json",
                "SplitType": "Line",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": INPUT}},
            },
            "TransformOutput": {"AssembleWith": "Line", "Accept": "application/json", "S3OutputPath": OUTPUT},
        }),
    ],
)  # fmt: skip
def test_a_job_overrides_what_differs_from_job_to_job(name: str, staged: dict[str, str], sent: dict[str, Any]) -> None:
    """The rest is the connector's."""
    assert adapter_of(name).batch_predict_parameters(record(name, staged=staged), parameters(name)) == sent


@pytest.mark.parametrize(
    "row",
    [
        b'{"url":"/x","response":{"status_code":404},"SageMakerOutput":[0.1]}',
        b'{"record_id":"7","error":"disk full","SageMakerOutput":[0.1]}',
    ],
)
def test_a_users_own_words_of_errors_are_none_of_sagemakers(row: bytes) -> None:
    """Its rows hold the whole record."""
    assert adapter_of("sagemaker").row(row).error is None


def test_a_spent_budget_is_no_throttling() -> None:
    """OpenAI answers 429 for both."""
    error = RemoteError("x", status=429, code="insufficient_quota")
    assert type(explain(adapter_of("openai"), error)) is ConfigError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Your account has reached the quota for number of concurrent invoke-model jobs", Throttled),
        ("Too many requests, please wait before trying again.", Throttled),
        ("A job of this name exists already", AlreadySubmitted),
        ("The provided model identifier is invalid.", ConfigError),
    ],
)
def test_bedrock_is_known_by_its_words(text: str, kind: type[BatchError]) -> None:
    """ML Commons passes on no header, and Bedrock names its errors nowhere else."""
    assert type(explain(adapter_of("bedrock"), RemoteError(text, status=400, code=""))) is kind


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_identity_is_the_same_however_ml_commons_keeps_a_parameter(name: str) -> None:
    """As it was written, or as JSON text: a job that is paid for is found by both."""
    written = fill(json.loads((CONNECTORS / f"{name}.json").read_text()), VALUES, "connector")["parameters"]
    written |= {"Environment": {"A": "1"}}
    kept = {key: value if isinstance(value, str) else json.dumps(value) for key, value in written.items()}
    adapter = adapter_of(name)
    assert adapter.identity(written) == adapter.identity(kept)
    assert adapter.prediction_path(written, ["$.a"]) == adapter.prediction_path(kept, ["$.a"])


def test_a_record_id_is_what_every_service_takes() -> None:
    """Eleven letters and digits; anything else stands for no record of ours."""
    assert (record_id(7), position_of(record_id(7)), len(record_id(49_999))) == ("r0000000007", 7, 11)
    assert [position_of(name) for name in (None, "", "r7", "x0000000007", "r000000000x", "CALL0000001")] == [None] * 6


@pytest.mark.parametrize(
    ("name", "inputs", "records"), [("openai", 1, 50_000), ("openai", 3, 16_666), ("bedrock", 2, 50_000)]
)
def test_a_job_takes_so_many_inputs(name: str, inputs: int, records: int) -> None:
    """OpenAI counts the texts of all records together."""
    assert adapter_of(name).limits.records_at_most(inputs) == records
