"""Batch transform of one record: filters, joins, and the input's bytes kept."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.local_stack.ai_services.container import PayloadError, texts_of
from include.local_stack.ai_services.s3 import relative_key
from include.local_stack.ai_services.transform import FilterSyntaxError, RecordError, Transform

ANSWER = b"[0.5,-1e-05]"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def transform(**processing: str) -> Transform:
    """The transform of a request with this DataProcessing."""
    return Transform.of({"DataProcessing": processing})


@pytest.mark.parametrize(
    ("processing", "record", "expected"),
    [
        ({}, b'"t"', b"[0.5,-1e-05]"),
        ({"OutputFilter": "$[1]"}, b'"t"', b"-1e-05"),
        ({"OutputFilter": "$[0:1]"}, b'"t"', b"[0.5]"),
        ({"JoinSource": "Input"}, b'{"id":1.10, "n":1e400}', b'{"id":1.10, "n":1e400,"SageMakerOutput":[0.5,-1e-05]}'),
        ({"JoinSource": "Input"}, b"{ }", b'{"SageMakerOutput":[0.5,-1e-05]}'),
        ({"JoinSource": "Input"}, b'"t"', b'{"SageMakerInput":"t","SageMakerOutput":[0.5,-1e-05]}'),
        ({"JoinSource": "Input"}, b'["a", 1.0]', b'{"SageMakerInput":["a", 1.0],"SageMakerOutput":[0.5,-1e-05]}'),
        (
            {"JoinSource": "Input"},
            b'{"SageMakerOutput":[9],"id":12345678901234567890123}',
            b'{"SageMakerOutput":[0.5,-1e-05],"id":12345678901234567890123}',
        ),
        (
            {"JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"},
            b'{"text":"t","id":1.10}',
            b'{"id":1.10,"SageMakerOutput":[0.5,-1e-05]}',
        ),
        ({"JoinSource": "Input", "OutputFilter": "$.SageMakerOutput"}, b'{"id":1}', ANSWER),
        ({"JoinSource": "Input", "OutputFilter": "$.SageMakerOutput[-1]"}, b'{"id":1}', b"-1e-05"),
        ({"JoinSource": "Input", "OutputFilter": "$.SageMakerOutput[0,1]"}, b'{"id":1}', ANSWER),
    ],
)
def test_output_of_a_record(processing: dict[str, str], record: bytes, expected: bytes) -> None:
    """Joins and output filters give the bytes SageMaker documents, and numbers keep their text."""
    assert transform(**processing).output(record, ANSWER) == expected


@settings(max_examples=50)
@given(st.dictionaries(st.text().filter(lambda key: key != "SageMakerOutput"), JSON_VALUES))
def test_a_join_keeps_the_line(document: dict[str, object]) -> None:
    """Whatever an object holds, its line stays as it was and only gains the output."""
    record = json.dumps(document).encode()
    joined = transform(JoinSource="Input").output(record, ANSWER)
    assert json.loads(joined) == {**document, "SageMakerOutput": [0.5, -1e-05]}
    assert joined.startswith(record[:-1])


@pytest.mark.parametrize(
    ("path", "record", "payload"),
    [
        ("$", b'"t"', "t"),
        ("$.text", b'{"text":"t"}', "t"),
        ("$.a.b", b'{"a":{"b":"t"}}', "t"),
        ("$['text']", b'{"text":"t"}', "t"),
        ("$[1:]", b'["id","a","b"]', ["a", "b"]),
        ("$[0]", b'["a","b"]', "a"),
    ],
)
def test_payload_of_a_record(path: str, record: bytes, payload: object) -> None:
    """The input filter selects what the container is sent."""
    assert transform(InputFilter=path).payload(record) == payload


@pytest.mark.parametrize("record", [b"", b"{'text':'t'}", b"NaN", b'{"a":1}x', b'"\xff"'])
def test_what_is_not_json_is_refused(record: bytes) -> None:
    """Blank lines, single quotes, NaN, trailing text and broken UTF-8 are no records."""
    with pytest.raises(RecordError, match="not JSON"):
        transform().payload(record)


def test_a_filter_must_select_something() -> None:
    """A record without the filtered field is an error that names the filter."""
    with pytest.raises(RecordError, match=r"the filter \$\.text selects nothing"):
        transform(InputFilter="$.text").payload(b'{"body":"t"}')


def test_a_filter_must_be_a_path() -> None:
    """A broken JSONPath names the member it stands in."""
    with pytest.raises(FilterSyntaxError, match=r"InputFilter: '\$\['"):
        transform(InputFilter="$[")


@pytest.mark.parametrize(
    ("payload", "texts", "single"),
    [("t", ("t",), True), (["a", "b"], ("a", "b"), False), ({"inputs": "t"}, ("t",), True), ([], (), False)],
)
def test_payloads_the_container_takes(payload: object, texts: tuple[str, ...], single: bool) -> None:  # noqa: FBT001
    """A text, a list of texts, and either of them under `inputs`."""
    read = texts_of(payload)
    assert (read.texts, read.single) == (texts, single)


@pytest.mark.parametrize("payload", [1, None, True, {"text": "t"}, ["a", 1], {"inputs": {"a": "b"}}])
def test_payloads_the_container_refuses(payload: object) -> None:
    """Anything else is refused with what it was."""
    with pytest.raises(PayloadError, match="the model takes a JSON string"):
        texts_of(payload)


def test_half_a_surrogate_pair_is_the_record_s_fault() -> None:
    """An escape that is no character is refused by name, as text to compute and as text to write."""
    with pytest.raises(PayloadError, match="surrogate"):
        texts_of(transform().payload(rb'"\ud800"'))
    with pytest.raises(RecordError, match="surrogate"):
        transform(JoinSource="Input", OutputFilter="$.id").output(rb'{"id":"\ud800"}', ANSWER)


@pytest.mark.parametrize(
    ("key", "prefix", "expected"),
    [
        ("in/a.jsonl", "in/", "a.jsonl"),
        ("in/sub/a.jsonl", "in/", "sub/a.jsonl"),
        ("in/sub/a.jsonl", "in", "sub/a.jsonl"),
        ("in/a.jsonl", "in/a.jsonl", "a.jsonl"),
        ("in/part-1", "in/part-", "part-1"),
        ("a.jsonl", "", "a.jsonl"),
    ],
)
def test_the_part_of_a_key_an_output_keeps(key: str, prefix: str, expected: str) -> None:
    """Folders below the prefix and the file name stay; a prefix inside a name cuts nothing off."""
    assert relative_key(key, prefix) == expected
