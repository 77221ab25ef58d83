"""A content key is of what the model reads, and of nothing else, at every service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ledger.content_keys import KEY_BYTES, content_key
from opensearch_batch.services.entry import AiService
from opensearch_batch.services.registry import BUILT_IN, service_of
from tests import fifth_service

SERVICES = [*(service_of(name) for name in BUILT_IN), fifth_service.SERVICE]
INPUTS = ["$.text"]
COHERE = {"modelId": "cohere.embed-english-v3", "roleArn": "role"}
TEMPLATE = {"modelId": "new.model", "roleArn": "role", "model_input": {"prompt": "Sum up: <input>"}}
# A service, its parameters, and the inputs of a record.
SEVERAL = [
    ("sagemaker", {}, ["$.text", "$.body.more"]),
    ("openai", {}, ["$.text", "$.body.more"]),
    ("bedrock", COHERE, ["$.text", "$.body.more"]),
    ("bedrock", TEMPLATE, ["$.text"]),
]


@pytest.fixture(params=SERVICES, ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest) -> AiService:
    """A service."""
    found: AiService = request.param
    return found


def key(entry: AiService, record: dict[str, Any], inputs: Sequence[str] = INPUTS, /, **more: Any) -> bytes:
    """The content key of a record."""
    parameters = {**entry.adapter.example_parameters, **more}
    return content_key(entry.adapter, parameters, inputs)(json.dumps(record, ensure_ascii=False).encode())


def test_a_field_that_the_model_does_not_read_does_not_count(entry: AiService) -> None:
    """Nor does the order of the fields."""
    one = key(entry, {"id": 1, "text": "a cat", "price": 1})
    assert len(one) == KEY_BYTES
    assert key(entry, {"price": 2.5, "text": "a cat", "id": "2", "more": [{}]}) == one
    assert key(entry, {"body": "a cat"}, ["$.body"]) == one


def test_what_the_model_reads_counts(entry: AiService) -> None:
    """Another text, another model, and another service have another key."""
    adapter = entry.adapter
    model = next(name for name in ("model", "ModelName", "modelId") if name in adapter.example_parameters)
    other_model: dict[str, Any] = {model: "amazon.titan-embed-text-v1" if adapter.name == "bedrock" else "other"}
    keys = {
        key(entry, {"text": "a cat"}),
        key(entry, {"text": "a cat "}),
        key(entry, {"text": "a dog"}),
        key(entry, {"text": "a cat"}, **other_model),
        *(key(other, {"text": "a cat"}) for other in SERVICES if other is not entry),
    }
    assert len(keys) == 3 + 1 + len(SERVICES) - 1


def test_an_escaped_character_is_the_character(entry: AiService) -> None:
    """A source that is written again with other escapes is not paid for again."""
    of_record = content_key(entry.adapter, entry.adapter.example_parameters, INPUTS)
    assert of_record(b'{"text":"caf\\u00e9 \\/ \\u0022"}') == of_record('{"text":"café / \\""}'.encode())
    assert of_record(b'{"text":"a\\\\u00e9"}') != of_record('{"text":"aé"}'.encode())


def test_a_record_that_cannot_be_predicted_has_no_key(entry: AiService) -> None:
    """It becomes a dead letter of prepare."""
    of_record = content_key(entry.adapter, entry.adapter.example_parameters, INPUTS)
    for record in (b'{"title":"x"}', b'{"text":null}', b"[1", b"\xff"):
        with pytest.raises(RecordRejected, match=r"nothing at \$\.text|not JSON|not UTF-8"):
            of_record(record)


@pytest.mark.parametrize(("name", "parameters", "inputs"), SEVERAL)
def test_several_inputs_count_in_their_order(name: str, parameters: dict[str, Any], inputs: list[str]) -> None:
    """Their fields may move, their texts may not run into each other."""
    entry = service_of(name)
    one = key(entry, {"text": "a", "body": {"more": "b"}, "price": 1}, inputs, **parameters)
    assert key(entry, {"body": {"other": 1, "more": "b"}, "text": "a"}, inputs, **parameters) == one
    for text, more in (("b", "a"), ("a,b", ""), ("ab", "b"), ('a","b', "b")):
        assert key(entry, {"text": text, "body": {"more": more or "x"}}, inputs, **parameters) != one


def test_members_that_are_added_to_each_request_count() -> None:
    """The model reads them, too."""
    openai, bedrock = service_of("openai"), service_of("bedrock")
    assert key(openai, {"text": "a"}, body={"dimensions": 8}) != key(openai, {"text": "a"}, body={"dimensions": 9})
    assert key(bedrock, {"text": "a"}, model_input={"dimensions": 8}) != key(bedrock, {"text": "a"})
    other = {**TEMPLATE, "model_input": {"prompt": "Translate: <input>"}}
    assert key(bedrock, {"text": "a"}, **TEMPLATE) != key(bedrock, {"text": "a"}, **other)


def test_a_model_at_sagemaker_may_read_the_whole_record() -> None:
    """Without an InputFilter, and without inputs in the pipeline file."""
    sagemaker = service_of("sagemaker")
    assert key(sagemaker, {"a": 1, "b": 1}, []) != key(sagemaker, {"a": 1, "b": 2}, [])
    filtered: dict[str, Any] = {"DataProcessing": {"JoinSource": "Input", "InputFilter": "$.a"}}
    assert key(sagemaker, {"a": 1, "b": 1}, [], **filtered) == key(sagemaker, {"a": 1, "b": 2}, [], **filtered)
    assert key(sagemaker, {"a": 1}, [], **filtered) != key(sagemaker, {"a": 2}, [], **filtered)


def test_large_numbers_are_told_apart() -> None:
    """A number keeps all its digits, also beside an escaped character."""
    sagemaker = service_of("sagemaker")
    of_record = content_key(sagemaker.adapter, sagemaker.adapter.example_parameters, ["$.x"])
    numbers = [b"9007199254740993", b"9007199254740992", b"0.1", b"0.10000000000000000001", b"1e400", b"1e401"]
    assert len({of_record(b'{"x":["\\n",%b]}' % number) for number in numbers}) == len(numbers)


@pytest.mark.parametrize("escaped", [True, False])
@given(text=st.text(min_size=1), other=st.text(min_size=1))
def test_keys_are_equal_exactly_if_the_texts_are(*, escaped: bool, text: str, other: str) -> None:
    """However the texts are written."""
    entry = service_of("sagemaker")
    of_record = content_key(entry.adapter, entry.adapter.example_parameters, INPUTS)
    one = of_record(json.dumps({"text": text}, ensure_ascii=False).encode())
    two = of_record(json.dumps({"n": 1, "text": other}, ensure_ascii=escaped).encode())
    assert (one == two) == (text == other)
