"""A predict action sends for a record what a batch job sends, whatever the text is, or it is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.predict_action import PredictAction, RealtimeLimit, realtime_form, realtime_limit
from opensearch_batch.core.opensearch.ml_commons import fill
from opensearch_batch.core.types.predict_response import PredictResponse
from opensearch_batch.services.registry import BUILT_IN, adapter_of

CONNECTORS = Path(__file__).parents[3] / "plugins" / "opensearch_batch" / "connectors"
VALUES = {
    "region": "us-east-1",
    "model_name": "amazon.titan-embed-text-v2:0",
    "job_role_arn": "j",
    "role_arn": "r",
    "endpoint_name": "e",
}
INPUTS = ["$.text"]
TEXTS = st.text() | st.text("{}[]$\"\\: parameters.input'", max_size=30)
# What a service returns: through the connector's post_process_function, or as it is.
ANSWERS = {
    "openai": {"data": [{"index": 0, "embedding": [0.5, 0.25]}]},
    "bedrock": {"embedding": [0.5, 0.25]},
    "cohere": {"embeddings": {"float": [[0.5, 0.25]]}},
    "sagemaker": [[0.5, 0.25]],
}


def connector(service: str, **predict: str) -> dict[str, Any]:
    """Return the connector of a service; `predict` replaces members of its predict action."""
    body: dict[str, Any] = fill(json.loads((CONNECTORS / f"{service}.json").read_text()), VALUES, "connector")
    body["actions"][0] |= predict
    return body


def java_substituted(text: str, values: dict[str, str]) -> str:
    """Substitute as the StringSubstitutor of commons-text: values are substituted again, ``$`` before one escapes."""
    position = 0
    while (start := text.find("${parameters.", position)) >= 0 and (end := text.find("}", start)) >= 0:
        if start > 0 and text[start - 1] == "$":
            text, position = text[: start - 1] + text[start:], start
            continue
        name, has_default, default = text[start + len("${parameters.") : end].partition(":-")
        if name not in values and not has_default:
            position = end + 1
            continue
        inner = java_substituted(values.get(name, default), values)
        text, position = text[:start] + inner + text[end + 1 :], start + len(inner)
    return text


def java_escaped(value: str) -> str:
    """Escape as ML Commons does: not what it takes for a JSON object or array, or may take for one."""
    if value.strip()[:1] in {"{", "["}:
        return value
    return json.dumps(value)[1:-1].replace("/", "\\/")


@pytest.mark.parametrize("service", BUILT_IN)
@given(text=TEXTS.filter(str.strip))
def test_a_request_has_what_a_line_has(service: str, text: str) -> None:
    """Also if the text looks like JSON, or like a placeholder of ML Commons."""
    adapter, body = adapter_of(service), connector(service)
    parameters, form = body["parameters"], realtime_form(adapter)
    try:
        record = json.dumps({"text": text}, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    line = adapter.request_line(parameters, INPUTS)(record, "r0000000000")
    wanted = form.body(line, parameters, INPUTS)
    sent = PredictAction.of(body["actions"], form, parameters).parameters(wanted)
    values = {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}
    values |= {name: java_escaped(value) for name, value in sent.items()}
    body_sent = json.loads(java_substituted(body["actions"][0]["request_body"], values))
    if isinstance(wanted, dict):
        body_sent, wanted = ({**form.assumed(parameters), **each} for each in (body_sent, wanted))
    assert body_sent == wanted


@pytest.mark.parametrize("service", BUILT_IN)
@pytest.mark.parametrize("is_raw", [False, True])
def test_a_response_becomes_a_row_of_a_job(service: str, *, is_raw: bool) -> None:
    """With the same id and the same path of its prediction; a refusal becomes an error row with its reason."""
    adapter, parameters = adapter_of(service), connector(service)["parameters"]
    line = adapter.request_line(parameters, INPUTS)(b'{"text": "a"}', "r0000000007")
    form = realtime_form(adapter)
    response = PredictResponse(ANSWERS[service]) if is_raw else PredictResponse(vectors=[[0.5, 0.25]])
    row = form.row(line, response, parameters, INPUTS)
    read, refused = adapter.row(row), adapter.row(form.error_row(line, "too long", parameters))
    assert (read.record_id, read.error) == ("r0000000007" if adapter.id_member else None, None)
    assert refused.record_id == read.record_id
    assert "too long" in str(refused.error)
    value: Any = json.loads(row)
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", adapter.prediction_path(parameters, INPUTS, 0)):
        value = value[name] if name else value[int(index)]
    assert value == [0.5, 0.25]


def test_who_predicts_in_real_time_by_default() -> None:
    """Only a service that refuses small jobs; 0 turns it off, and a number is for every service."""
    limits = {}
    for service in BUILT_IN:
        body = connector(service)
        arguments = (adapter_of(service), body["actions"], body["parameters"], INPUTS)
        limits[service] = realtime_limit(None, *arguments).below
        assert [realtime_limit(number, *arguments).below for number in (0, 7)] == [0, 7]
    assert limits == {"sagemaker": 0, "bedrock": 100, "openai": 0, "cohere": 0}


@pytest.mark.parametrize(
    ("service", "predict", "message"),
    [
        ("openai", {"action_type": "execute"}, "the connector has no predict action; add one"),
        ("openai", {"url": "https://api.openai.com/v1/chat/completions"}, "which must end with /v1/embeddings"),
        ("bedrock", {"url": "https://b/model/amazon.titan-embed-image-v1/invoke"}, "which must end with /model/amazon"),
        (
            "cohere",
            {"request_body": '{"texts": ${parameters.texts}}'},
            'but a batch job sends {"texts":\\["a text"\\],"model"',
        ),
        ("openai", {"request_body": '{"input": ${parameters.prompt}}'}, "sends text that is not JSON, but a batch job"),
        ("bedrock", {"request_body": '{"inputText": "${parameters.inputText}", "dimensions": 256}'}, "but a batch job"),
    ],
)
def test_an_action_that_predicts_something_else_is_refused(service: str, predict: dict[str, str], message: str) -> None:
    """If a number is configured; the default of a service gives way, and tells why."""
    body = connector(service, **predict)
    arguments = (adapter_of(service), body["actions"], body["parameters"], INPUTS)
    with pytest.raises(ConfigError, match=f"batch_predict.realtime_below is 7, but .*{message}"):
        realtime_limit(7, *arguments)
    default = realtime_limit(None, *arguments)
    assert default.below == 0
    assert bool(default.problem) == (service == "bedrock")


def test_what_a_service_assumes_is_no_difference() -> None:
    """Titan has 1,024 dimensions unless a request says otherwise."""
    body = connector("bedrock", request_body='{"inputText": "${parameters.inputText}", "dimensions": 1024}')
    assert realtime_limit(7, adapter_of("bedrock"), body["actions"], body["parameters"], INPUTS) == RealtimeLimit(7)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ([{"name": "sentence_embedding", "data": [1.0]}, {"data": [2.0]}], PredictResponse(vectors=[[1.0], [2.0]])),
        ([{"name": "response", "dataAsMap": {"embedding": [1.0]}}], PredictResponse({"embedding": [1.0]})),
        ([{"name": "response", "dataAsMap": {"response": [[1.0]]}}], PredictResponse([[1.0]])),
        ([], PredictResponse({})),
    ],
)
def test_responses_of_ml_commons(output: list[Any], expected: PredictResponse) -> None:
    """A response that is no object has a member of its own."""
    assert PredictResponse.of({"inference_results": [{"output": output, "status_code": 200}]}) == expected
