"""What reaches SageMaker through ML Commons, and what comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.jobs.contract import PredictionRow
from opensearch_batch.core.opensearch.ml_commons import _normalized, fill
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.services.sagemaker import SageMakerAdapter

CONNECTOR = Path(__file__).resolve().parents[2] / "plugins" / "opensearch_batch" / "connectors" / "sagemaker.json"
VALUES = {"region": "us-east-1", "model_name": "minilm", "endpoint_name": "e", "role_arn": "arn:r"}
RECORD = JobRecord("k", "p-k-1", "sagemaker", "m", "s3://w/jobs/k/input.jsonl", "s3://w/jobs/k/output/1/", 0.0)


@pytest.fixture
def parameters() -> dict[str, Any]:
    """The connector's parameters as ML Commons stores them: nested ones as text."""
    body: dict[str, Any] = fill(json.loads(CONNECTOR.read_text()), VALUES, "connector")["parameters"]
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in body.items()}


def test_the_connector_for_amazon_opensearch_service_keeps_its_role() -> None:
    """Filled with a role, the documents' credential form stands unchanged."""
    body = fill(json.loads(CONNECTOR.read_text()), VALUES, "connector")
    assert body["credential"] == {"roleArn": "arn:r"}
    assert body["actions"][1]["url"] == "https://api.sagemaker.us-east-1.amazonaws.com/CreateTransformJob"


def test_a_placeholder_without_value_is_named() -> None:
    """The error names the place and what is known."""
    with pytest.raises(ConfigError, match=r"connector name: no value for <model_name>"):
        fill(json.loads(CONNECTOR.read_text()), {"region": "x"}, "connector")


def test_a_shard_is_read_as_an_object_whatever_the_connector_reads(parameters: dict[str, Any]) -> None:
    """Of a manifest file the connector's own jobs may read; a shard is one object."""
    source = json.loads(parameters["TransformInput"])
    source["DataSource"]["S3DataSource"] = {"S3DataType": "ManifestFile", "S3Uri": "s3://x/batch.manifest"}
    job = SageMakerAdapter().batch_predict_parameters(RECORD, {**parameters, "TransformInput": json.dumps(source)})
    place = {"S3DataType": "S3Prefix", "S3Uri": "s3://w/jobs/k/input.jsonl"}
    assert job["TransformInput"]["DataSource"] == {"S3DataSource": place}


def test_machine_sizes_and_places_are_no_part_of_the_identity(parameters: dict[str, Any]) -> None:
    """A bigger machine predicts the same; another filter does not."""
    one = SageMakerAdapter().identity(parameters)
    bigger = {**parameters, "TransformResources": '{"InstanceCount":9}', "TransformJobName": "x"}
    other = {**parameters, "DataProcessing": '{"InputFilter":"$.title","JoinSource":"Input","OutputFilter":"$"}'}
    assert SageMakerAdapter().identity(bigger) == one
    assert SageMakerAdapter().identity(other) != one


@pytest.mark.parametrize("name", ["p", "Ünï çøde!", "a" * 200, "--"])
def test_a_job_name_is_one_sagemaker_takes(name: str) -> None:
    """At most 63 letters, digits and inner hyphens, and different for each folder and submission."""
    made = SageMakerAdapter().job_name(name, "s3://w/jobs/k", 1)
    assert len(made) <= 63
    assert all(part.isascii() and part.isalnum() for part in made.split("-") if part)
    assert made[0] != "-"
    others = [SageMakerAdapter().job_name(name, *other) for other in (("s3://w/jobs/k", 2), ("s3://v/jobs/k", 1))]
    assert len({made, *others}) == 3


def test_a_record_without_the_models_input_is_rejected(parameters: dict[str, Any]) -> None:
    """SageMaker would fail the whole job for it; others pass unchanged."""
    for path, line in (
        ("text", SageMakerAdapter().request_line(parameters, ["$.text"])),
        ("content", SageMakerAdapter().request_line(parameters)),
    ):
        record = b'{"%b": "x", "n": 1.10}' % path.encode()
        assert line(record, "r") == record
        for wrong in (b'{"title":"x"}', b'{"%b":null}' % path.encode()):
            with pytest.raises(RecordRejected, match=rf"nothing at \$\.{path}"):
                line(wrong, "r")


def test_several_inputs_travel_as_one_more_member(parameters: dict[str, Any]) -> None:
    """Their texts untouched, in the order they were named; the job's InputFilter reads them."""
    inputs = ["$.title", "$.body.text"]
    line = SageMakerAdapter().request_line(parameters, inputs)
    record = b'{"title":"a\\u0041", "body": {"text":1.10} }'
    assert line(record, "r") == b'{"title":"a\\u0041", "body": {"text":1.10},"model_inputs":["a\\u0041",1.10]}'
    job = SageMakerAdapter().batch_predict_parameters(RECORD, parameters, inputs)
    assert job["DataProcessing"] == {"InputFilter": "$.model_inputs", "JoinSource": "Input", "OutputFilter": "$"}
    assert [SageMakerAdapter().prediction_path(parameters, inputs, number) for number in (0, 1)] == [
        "$.SageMakerOutput[0]",
        "$.SageMakerOutput[1]",
    ]


def test_one_input_overrides_the_connectors_filter(parameters: dict[str, Any]) -> None:
    """The prediction is the whole output then."""
    job = SageMakerAdapter().batch_predict_parameters(RECORD, parameters, ["$.text"])
    assert job["DataProcessing"]["InputFilter"] == "$.text"
    assert {SageMakerAdapter().prediction_path(parameters, ["$.text"], number) for number in (None, 0)} == {
        "$.SageMakerOutput"
    }
    assert SageMakerAdapter().prediction_path(parameters, (), 1) == "$.SageMakerOutput[1]"


def test_rows_without_their_records_are_known_by_position(parameters: dict[str, Any]) -> None:
    """JoinSource None: the row is the bare answer."""
    processing = '{"InputFilter":"$.text","JoinSource":"None","OutputFilter":"$"}'
    bare = {**parameters, "DataProcessing": processing}
    SageMakerAdapter().check(bare, ["$.text"])
    assert [SageMakerAdapter().row_matching(each) for each in (parameters, bare)] == ["beside_record", "by_position"]
    assert SageMakerAdapter().prediction_path(bare, ["$.text"], 0) == "$"
    assert SageMakerAdapter().row(b"[1,2]") == PredictionRow(None)


def test_an_error_row_gives_its_reason_and_a_text_that_says_so_does_not() -> None:
    """Only the service's own key counts."""
    service = SageMakerAdapter()
    error = service.row(b'{"SageMakerInferenceError":"too long"}').error
    assert error == "SageMakerInferenceError: too long"
    assert service.row(b'{"SageMakerInferenceError":null,"SageMakerOutput":[1]}').error is None
    assert service.row(b'{"text":"SageMakerInferenceError","SageMakerOutput":[1]}').error is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TransformInput", '{"SplitType":"None"}', "SplitType must be Line"),
        ("TransformOutput", '{"S3OutputPath":"s3://x/"}', "AssembleWith must be Line"),
        (
            "DataProcessing",
            '{"InputFilter":"$.t","JoinSource":"Input","OutputFilter":"$.SageMakerOutput"}',
            "OutputFilter",
        ),
        ("DataProcessing", '{"InputFilter":"$.a[*]","JoinSource":"Input"}', "not a plain path"),
        ("TransformInput", "7", "must be an object"),
    ],
)
def test_parameters_that_cannot_be_ingested_are_refused_before_paying(
    parameters: dict[str, Any], name: str, value: str, message: str
) -> None:
    """The error names the parameter."""
    with pytest.raises(ConfigError, match=message):
        SageMakerAdapter().check({**parameters, name: value})


@pytest.mark.parametrize(("stored", "given"), [("true", True), ("100", 100), ("0.5", 0.5), ('{"a":"1"}', {"a": 1})])
def test_a_connector_compares_as_ml_commons_stores_it(stored: object, given: object) -> None:
    """Parameters come back as text; a connector that is there is not made again for that."""
    assert _normalized(stored) == _normalized(given)
    assert _normalized(stored) != "other"
