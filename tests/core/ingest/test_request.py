"""A mistake in a request gives one error with its location and remedy; a credential is never shown."""

from __future__ import annotations

import json
import re
import traceback
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.batch_ingestion import Credential, parse_request
from opensearch_batch.core.ingest.request import LoadSettings
from tests.documented_requests import DOCUMENTED_MULTIPLE, DOCUMENTED_SINGLE
from tests.stored import present

S3 = "s3://bucket/out.jsonl"
REQUEST: dict[str, Any] = {
    "index_name": "books",
    "field_map": {"title": "$.title", "_id": "$.id"},
    "data_source": {"type": "s3", "source": [S3]},
}
SINGLE = DOCUMENTED_SINGLE | {
    "credential": {
        "region": "us-east-1",
        "access_key": "<your access key>",
        "secret_key": "<your secret key>",
        "session_token": "<your session token>",
    }
}
MULTIPLE = DOCUMENTED_MULTIPLE | {"credential": {"openAI_key": "<you openAI key>"}}
INDEX_RULE = (
    "cannot be an index; names are lower case, do not start with - _ or +, have no spaces and none of "
    '\\/*?"<>|,#: and at most 255 bytes.'
)
AN_OBJECT_LIKE = 'write {"type": "s3", "source": ["s3://bucket/key"]}'
AN_INDEX_LIKE = 'write {"mappings": {"properties": {"title": {"type": "text"}}}}'
NO_BUCKET = "is not a bucket name (letters, digits, dots and hyphens); write it as s3://bucket/key"
BUCKET_ONLY = "names only a bucket; write s3://bucket/key, or s3://bucket/prefix/ for several"
NO_JSONPATH = "is not a JSONPath (Parse error near the end of string!); write it like $.content[0]"
POSITIVE = "expected an integer >= 1"


def data(kind: Any, *sources: Any) -> dict[str, Any]:
    """Return a `data_source`."""
    return {"data_source": {"type": kind, "source": list(sources)}}


def refusal(**members: Any) -> str:
    """Return the error of a request with these members; None removes one."""
    request = {name: value for name, value in {**REQUEST, **members}.items() if value is not None}
    messages = set()
    for content in (request, json.dumps(request).encode()):
        with pytest.raises(ConfigError, match=r"^books\.json: ") as error:
            parse_request(content, "books.json")
        messages.add(str(error.value))
    (message,) = messages
    place, _, rest = message.partition(": ")
    assert place == "books.json"
    return rest


MISTAKES: list[tuple[dict[str, Any], str]] = [
    # what is not there
    ({"index_name": None}, 'index_name is missing; write "my-index"'),
    ({"data_source": None}, f"data_source is missing; {AN_OBJECT_LIKE}"),
    ({"data_source": {"type": "s3"}}, 'data_source.source is missing; write ["s3://bucket/key"]'),
    ({"data_source": {"source": [S3]}}, 'data_source.type is missing; write "s3", "openAI" or "local"'),
    ({"field_map": None}, "field_map maps no field; map at least one in addition to _id"),
    ({"field_map": {"_id": "$.id"}}, "field_map maps no field; map at least one in addition to _id"),
    (data("s3"), "data_source.source is empty; name at least one source"),
    # what nobody knows
    ({"feild_map": {}}, "feild_map: no such member. Did you mean 'field_map'?"),
    ({"data_source": {"type": "s3", "sources": [S3]}}, "data_source.sources: no such member. Did you mean 'source'?"),
    ({"data_source": {"xyz": 1}}, "data_source.xyz: no such member. The members are type, source."),
    ({"load": {"replicas": 0}}, "load.replicas: no such member. Did you mean 'number_of_replicas'?"),
    ({"credential": {"openai_key": "k"}}, "credential.openai_key: no such member. Did you mean 'openAI_key'?"),
    ({"connector_id": "x"}, "connector_id: a connector's credential stays in ML Commons; name a connection instead"),
    # what has another type
    ({"index_name": 5}, 'index_name: expected a string, got an integer; write "my-index"'),
    ({"data_source": S3}, f"data_source: expected an object, got a string; {AN_OBJECT_LIKE}"),
    (
        {"data_source": {"type": "s3", "source": S3}},
        'data_source.source: expected an array, got a string; write ["s3://bucket/key"]',
    ),
    (data("s3", S3, 7), 'data_source.source[1]: expected a string, got an integer; write ["s3://bucket/key"]'),
    ({"field_map": ["$.a"]}, 'field_map: expected an object, got an array; write {"title": "$.title", "_id": "$.id"}'),
    ({"ingest_fields": ["$.a", {}]}, 'ingest_fields[1]: expected a string or null, got an object; write ["$.title"]'),
    ({"index_body": "x"}, f"index_body: expected an object or null, got a string; {AN_INDEX_LIKE}"),
    ({"compress": "yes"}, "compress: expected true or false, got a string"),
    ({"max_in_flight": 1.5}, "max_in_flight: expected an integer, got a number"),
    # what would fill the memory, or never end
    ({"max_body_bytes": 10**12}, "max_body_bytes: expected an integer <= 100000000"),
    ({"max_in_flight": 10**6}, "max_in_flight: expected an integer <= 64"),
    (
        {"field_map": {"a": "$.a[?(@.b =~ '(x+)+$')]"}},
        "field_map.a: \"$.a[?(@.b =~ '(x+)+$')]\": regular expressions and arithmetic are not supported in a path",
    ),
    (
        {"field_map": {"a": "$.a.`sub(/(x+)+$/, y)`"}},
        "field_map.a: '$.a.`sub(/(x+)+$/, y)`': regular expressions and arithmetic are not supported in a path",
    ),
    (
        {"field_map": {"a": "$.a * 1000000000"}},
        "field_map.a: '$.a * 1000000000': regular expressions and arithmetic are not supported in a path",
    ),
    (
        {"field_map": {"a": "$.a | $.b"}},
        (
            "field_map.a: '$.a | $.b' is not a JSONPath (The `|` (union) operator is deprecated. It will be removed in "
            "version 2.0.0.); write it like $.content[0]"
        ),
    ),
    (
        {"field_map": {"a": "$..*..*..*"}},
        "field_map.a: '$..*..*..*' has more than 2 '..'; name the members between them",
    ),
    # a word that is none of those known
    ({"op_type": "update"}, "op_type: 'update' is not one of index, create, upsert. Did you mean 'upsert'?"),
    ({"on_missing": "nil"}, "on_missing: 'nil' is not one of null, omit, dead_letter. Did you mean 'null'?"),
    ({"on_missing": {"title": "drop"}}, "on_missing: 'drop' is not one of null, omit, dead_letter."),
    ({"on_unmatched": "stop"}, "on_unmatched: 'stop' is not one of index_partial, dead_letter, fail."),
    (data("gcs", "gs://b/k"), "data_source.type: 'gcs' is not one of s3, openAI, local."),
    (data("opanai", "file-1"), "data_source.type: 'opanai' is not one of s3, openAI, local. Did you mean 'openai'?"),
    # the index
    ({"index_name": "Books"}, f"index_name: 'Books' {INDEX_RULE} Did you mean 'books'?"),
    ({"index_name": ""}, f"index_name: '' {INDEX_RULE}"),
    ({"index_name": "_books"}, f"index_name: '_books' {INDEX_RULE}"),
    ({"index_name": "a/b"}, f"index_name: 'a/b' {INDEX_RULE}"),
    ({"index_name": "a\n"}, f"index_name: 'a\\n' {INDEX_RULE}"),
    ({"index_name": ".."}, f"index_name: '..' {INDEX_RULE}"),
    ({"index_name": "é" * 128}, f"index_name: '{'é' * 128}' {INDEX_RULE}"),
    # the sources
    (
        data("s3", "http://bucket/k"),
        "data_source.source[0]: 'http://bucket/k' is not an S3 location; write it as s3://bucket/key",
    ),
    (
        data("s3", "/data/rows.jsonl"),
        "data_source.source[0]: '/data/rows.jsonl' is not an S3 location; write it as s3://bucket/key",
    ),
    (data("s3", S3, "s3://my_bucket/k"), f"data_source.source[1]: 's3://my_bucket/k': 'my_bucket' {NO_BUCKET}"),
    (data("s3", "s3://bucket"), f"data_source.source[0]: 's3://bucket' {BUCKET_ONLY}"),
    (data("s3", "s3://bucket/"), f"data_source.source[0]: 's3://bucket/' {BUCKET_ONLY}"),
    (data("openAI", S3), f"data_source.source[0]: '{S3}' is not a file id; write it as OpenAI shows it, file-…"),
    (data("openAI", " "), "data_source.source[0]: ' ' is not a file id; write it as OpenAI shows it, file-…"),
    (
        data("local", S3),
        f"data_source.source[0]: '{S3}' is not the path of a file, folder/ or glob; for S3 give type s3",
    ),
    # the field map
    ({"field_map": {"t": 5}}, "field_map.t: expected a path like $.text, got 5"),
    ({"field_map": {"t": ["$.t", 5]}}, "field_map.t: expected a path like $.text, got 5"),
    ({"field_map": {"t": []}}, "field_map.t: expected a path like $.text, got []"),
    ({"field_map": {"t": " "}}, "field_map.t: expected a path like $.text, got ' '"),
    ({"field_map": {"": "$.t"}}, "field_map: a field name is empty; OpenSearch requires one"),
    ({"field_map": {"t": "$.a["}}, f"field_map.t: '$.a[' {NO_JSONPATH}"),
    ({"field_map": {"_id": "$.a[", "t": "$.t"}}, f"field_map._id: '$.a[' {NO_JSONPATH}"),
    ({"ingest_fields": [None, "$.a["]}, f"ingest_fields[1]: '$.a[' {NO_JSONPATH}"),
    ({"routing": "$.a["}, f"routing: '$.a[' {NO_JSONPATH}"),
    ({"routing": ""}, "routing: expected a path like $.text, got ''"),
    (
        {"field_map": {"t": "source[7].$.t"}},
        "field_map.t: no source[7]; the request has 1 source. Did you mean source[0]?",
    ),
    (
        {"field_map": {"t": "sourec[0].$.t"}},
        "field_map.t: 'sourec[0].' before the $ is not a source; write source[0].$.t",
    ),
    (
        {"field_map": {"t": "Source[0].$.t"}},
        "field_map.t: 'Source[0].' before the $ is not a source; write source[0].$.t",
    ),
    ({"field_map": {"t": "source[0].t"}}, "field_map.t: 'source[0].t' has no $ after its source; write source[0].$.t"),
    (
        data("s3", S3, "s3://bucket/b"),
        "field_map.title: '$.title' names none of the 2 sources; write source[0].$.title",
    ),
    # what a missing value does
    (
        {"on_missing": {"titel": "omit"}},
        "on_missing.titel: no such field is mapped; name one of field_map, or * for all. Did you mean 'title'?",
    ),
    # settings and sizes
    (
        {"load": "fast"},
        'load: expected an object or null, got a string; write {"refresh_interval": "-1", "number_of_replicas": 0}',
    ),
    ({"load": {"number_of_replicas": -1}}, "load.number_of_replicas: expected an integer >= 0"),
    (
        {"load": {"refresh_interval": "soon"}},
        'load.refresh_interval: expected a string; write "-1", or a time like "30s"',
    ),
    (
        {"load": {"refresh_interval": "in 5s"}},
        'load.refresh_interval: expected a string; write "-1", or a time like "30s"',
    ),
    (
        {"load": {"refresh_interval": -1}},
        'load.refresh_interval: expected a string or null, got an integer; write "-1", or a time like "30s"',
    ),
    ({"max_body_bytes": 0}, f"max_body_bytes: {POSITIVE}"),
    ({"max_body_bytes": -5}, f"max_body_bytes: {POSITIVE}"),
    ({"max_in_flight": 0}, f"max_in_flight: {POSITIVE}"),
]


@pytest.mark.parametrize(("members", "message"), MISTAKES, ids=[message[:60] for _, message in MISTAKES])
def test_each_mistake_has_its_one_error(members: dict[str, Any], message: str) -> None:
    """The error is the same for a decoded request and its text: first the location, last the remedy."""
    assert refusal(**members) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "books.json: not JSON (Input data was truncated)"),
        (b"{'a': 1}", "books.json: not JSON (JSON is malformed: object keys must be strings (byte 1))"),
        (b"[]", "books.json: expected a JSON object with index_name, field_map and data_source"),
        (b"null", "books.json: expected a JSON object with index_name, field_map and data_source"),
    ],
)
def test_text_that_is_no_request_is_refused(content: bytes, message: str) -> None:
    """Text that is not JSON, or not an object."""
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        parse_request(content, "books.json")


def test_an_unpaired_surrogate_is_refused() -> None:
    """Only a decoded request can contain it; msgspec cannot quote it in its own error."""
    with pytest.raises(ConfigError, match=r"^books\.json: a string contains an unpaired surrogate .*; remove it$"):
        parse_request({**REQUEST, "on_missing": {"a": "\ud800"}}, "books.json")


def test_the_mistake_of_a_name_comes_before_what_is_missing_for_it() -> None:
    """A misspelt member is reported, not the missing one."""
    assert refusal(index_name=None, index_nam="x") == "index_nam: no such member. Did you mean 'index_name'?"


@pytest.mark.parametrize(
    ("credential", "message"),
    [
        ("s3cr3t-value", "credential: expected an object or null, got a string; write {"),
        (["s3cr3t-value"], "credential: expected an object or null, got an array; write {"),
        ({"access_key": ["s3cr3t-value"]}, "credential.access_key: expected a string or null, got an array"),
        ({"acess_key": "s3cr3t-value"}, "credential.acess_key: no such member. Did you mean 'access_key'?"),
        ({"secret_key": {"s3cr3t-value": 1}}, "credential.secret_key: expected a string or null, got an object"),
    ],
)
def test_a_wrong_credential_is_named_and_never_shown(credential: Any, message: str) -> None:
    """The value is neither in the message nor in the chain of errors."""
    for content in ({**REQUEST, "credential": credential}, json.dumps({**REQUEST, "credential": credential}).encode()):
        with pytest.raises(ConfigError, match=f"^{re.escape(f'request: {message}')}") as error:
            parse_request(content)
        assert "s3cr3t-value" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(("members", "message"), MISTAKES, ids=[message[:60] for _, message in MISTAKES])
def test_no_mistake_elsewhere_shows_a_credential(members: dict[str, Any], message: str) -> None:
    """A valid credential is not in the message."""
    secret = {"access_key": "s3cr3t-a", "secret_key": "s3cr3t-b", "session_token": "s3cr3t-c", "openAI_key": "s3cr3t-d"}
    shown = refusal(**{"credential": secret, **members})
    assert shown == message
    assert "s3cr3t" not in shown


def test_a_credential_does_not_show_itself() -> None:
    """Neither its own repr nor that of its request shows it."""
    batch = parse_request({**REQUEST, "credential": {"access_key": "s3cr3t-a", "secret_key": "s3cr3t-b"}})
    assert repr(batch.credential) == str(batch.credential) == "Credential(…)"
    assert "s3cr3t" not in f"{batch!r} {batch} {batch.ingest!r}"


@pytest.mark.parametrize(
    ("given", "region", "token"),
    [
        ({"region": "eu-west-1"}, "eu-west-1", None),
        ({"region": "eu-west-1", "session_token": "IQoJb3JpZ2lu"}, "eu-west-1", "IQoJb3JpZ2lu"),
        # OpenSearch 2.19 takes the token for the region: that is why people write the region twice, …
        ({"region": "us-gov-west-1", "session_token": "us-gov-west-1"}, "us-gov-west-1", None),
        ({"session_token": "eusc-de-east-1"}, "eusc-de-east-1", None),
        # … and with a token each in the other's place.
        ({"region": "IQoJb3JpZ2lu", "session_token": "us-east-1"}, "us-east-1", "IQoJb3JpZ2lu"),
        ({}, None, None),
    ],
)
def test_the_region_is_found_wherever_opensearch_2_19_needed_it(
    given: dict[str, str], region: str | None, token: str | None
) -> None:
    """A request that was written for the swapped arguments of 2.19 is read correctly."""
    batch = parse_request({**REQUEST, "credential": {"access_key": "a", "secret_key": "b", **given}})
    credential = present(batch.credential)
    assert (credential.region, credential.session_token, credential.token) == (region, token, token)
    assert (credential.access_key, credential.secret_key) == ("a", "b")


@pytest.mark.parametrize("request_body", [SINGLE, MULTIPLE], ids=["single", "multiple"])
def test_the_documented_requests_are_read_as_they_are(request_body: dict[str, Any]) -> None:
    """The object and its text give the same request."""
    batch = parse_request(request_body)
    assert batch == parse_request(json.dumps(request_body).encode())
    assert batch.ingest.index == request_body["index_name"]
    assert batch.ingest.field_map == request_body["field_map"]
    assert batch.ingest.ingest_fields == request_body["ingest_fields"]
    assert batch.sources == request_body["data_source"]["source"]
    given = {name: value for name, value in msgspec.to_builtins(batch.credential).items() if value}
    assert given == request_body["credential"]


def test_what_a_request_leaves_out_is_as_documented() -> None:
    """Defaults of the members that are not documented."""
    batch = parse_request(REQUEST)
    ingest = batch.ingest
    assert (ingest.op_type, ingest.on_missing, ingest.on_unmatched) == ("index", {"*": "null"}, "index_partial")
    assert (ingest.max_body_bytes, ingest.max_in_flight, ingest.compress) == (2_000_000, 8, False)
    assert (ingest.ingest_pipeline, ingest.routing, ingest.index_body, ingest.load) == (None, None, None, None)
    assert (batch.type, batch.credential, batch.dead_letters, batch.work_prefix) == ("s3", None, None, None)


def test_every_member_arrives() -> None:
    """Each member has its own field."""
    beyond = {
        "op_type": "create",
        "on_unmatched": "fail",
        "ingest_pipeline": "clean",
        "routing": "$.tenant",
        "index_body": {"mappings": {}},
        "max_body_bytes": 1,
        "max_in_flight": 2,
        "compress": True,
    }
    rest = {
        "on_missing": {"title": "omit", "*": "dead_letter"},
        "load": {"refresh_interval": "-1", "number_of_replicas": 0},
        "credential": {"openAI_key": "k"},
        "dead_letters": "s3://bucket/dead/",
        "work_prefix": "s3://bucket/work",
    }
    batch = parse_request({**REQUEST, **beyond, **rest})
    assert {name: getattr(batch.ingest, name) for name in beyond} == beyond
    assert batch.ingest.on_missing == rest["on_missing"]
    assert batch.ingest.load == LoadSettings("-1", 0)
    assert batch.credential == Credential(openai_key="k")
    assert (batch.dead_letters, batch.work_prefix) == ("s3://bucket/dead/", "s3://bucket/work")


@pytest.mark.parametrize(
    ("kind", "source", "read_as"),
    [
        ("s3", "s3://bucket/prefix/", "s3"),
        ("S3", "s3://bucket/*.jsonl.gz", "s3"),
        ("S3", "s3://Old.Bucket-1/k", "s3"),
        ("openAI", "file-abc", "openai"),
        ("OPENAI", "file-abc", "openai"),
        ("Local", "rows/*.jsonl", "local"),
    ],
)
def test_a_type_may_be_written_in_any_case(kind: str, source: str, read_as: str) -> None:
    """Sources may be an object, a prefix or a glob."""
    batch = parse_request({**REQUEST, **data(kind, source)})
    assert (batch.type, batch.sources) == (read_as, [source])


@pytest.mark.parametrize("name", ["books", ".books", "a", "books-2026.11", "日本", "a+b", "é" * 127])
def test_what_opensearch_takes_is_an_index(name: str) -> None:
    """The rules are those of OpenSearch."""
    assert parse_request({**REQUEST, "index_name": name}).ingest.index == name


@pytest.mark.parametrize("interval", ["-1", "0", "1s", "500ms", "5m"])
def test_a_refresh_interval_is_a_time_of_opensearch(interval: str) -> None:
    """Times have a unit, except -1 and 0."""
    load = parse_request({**REQUEST, "load": {"refresh_interval": interval}}).ingest.load
    assert load == LoadSettings(interval, None)
