"""Each option of the opensearch and the s3 sink is read as what it means, or refused in its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from opensearch_batch.core.config.option_types import Secret
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.options.aws import OpenSearchAws
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.formats.csv import CsvEncoding
from opensearch_batch.core.formats.json import JsonEncoding
from opensearch_batch.core.formats.parquet_writer import ParquetEncoding
from tests.core.data_prepper.data_prepper_files import line_of, option, read, with_options

ROLE = "arn:aws:iam::123456789012:role/r"
OLD_AWS = (
    f"aws_sigv4: true\naws_region: eu-west-1\naws_sts_role_arn: {ROLE}\naws_sts_external_id: abc\nserverless: true"
)
NEW_AWS = OpenSearchAws(region="eu-west-1", sts_role_arn=ROLE, sts_external_id="abc", serverless=True)
AVRO = '{"type": "record", "name": "row", "fields": [{"name": "id", "type": "string"}]}'
DLQ = "dlq: {s3: {bucket: s3://letters, key_path_prefix: 'a/%{yyyy}'"


@pytest.mark.parametrize(
    ("options", "path", "value"),
    [
        ("hosts: [a, 'b:1']", "hosts", ("a", "b:1")),
        ("username: me", "username", Secret("me")),
        ("password: 0123", "password", Secret("0123")),
        ("authentication: {username: me}", "credentials.username", Secret("me")),
        ("authentication: {password: '1'}", "authentication.password", Secret("1")),
        ("password: p", "credentials.password", Secret("p")),
        ("cert: /ca.pem", "cert", "/ca.pem"),
        ("insecure: true", "insecure", True),
        ("insecure: On", "insecure", True),
        ("insecure: 'true'", "insecure", True),
        ("path_prefix: /search", "path_prefix", "/search"),
        ("distribution_version: default", "distribution_version", "default"),
        ("index: docs-${/tenant}-%{yyyy.MM.dd}", "index", "docs-${/tenant}-%{yyyy.MM.dd}"),
        ("index: docs-%{yyyy.MM.dd.HH}", "index", "docs-%{yyyy.MM.dd.HH}"),
        ("index_type: management_disabled", "index_type", "management_disabled"),
        ("index_type: custom", "index_type", "custom"),
        ("insecure: false", "index_type", "custom"),
        ("aws: {serverless: true}", "index_type", "management_disabled"),
        ("aws: {serverless: true}", "template_type", "index-template"),
        ("aws: {serverless: false}", "aws.region", "us-east-1"),
        (f"aws: {{sts_role_arn: '{ROLE}'}}", "aws.sts_role_arn", ROLE),
        ("aws: {sts_external_id: abc}", "aws.sts_external_id", "abc"),
        ("template_type: index-template", "template_type", "index-template"),
        ("template_file: s3://a/b.json", "template_file", "s3://a/b.json"),
        ("template_content: '{\"mappings\": {}}'", "template_content", '{"mappings": {}}'),
        ("number_of_shards: '3'", "number_of_shards", 3),
        ("number_of_replicas: 1", "number_of_replicas", 1),
        ("bulk_size: 2", "bulk_bytes", 2 << 20),
        ("bulk_size: -1", "bulk_bytes", None),
        ("document_id: ${/id}", "document_id", "${/id}"),
        ("document_id_field: /a/id", "document_id", "${a/id}"),
        ("routing: ${/tenant}", "routing", "${/tenant}"),
        ("routing_field: tenant", "routing", "${tenant}"),
        ("normalize_index: true", "normalize_index", True),
        ("action: CREATE", "action", "create"),
        ("action: ${/how}", "action", "${/how}"),
        ("actions: [{type: Delete, when: /gone == true}, {type: index}]", "actions.0.type", "delete"),
        ("actions: [{type: delete, when: /gone == true}]", "actions.0.when", "/gone == true"),
        ("document_root_key: a/b", "document_root_key", "a/b"),
        (f"{DLQ}}}}}", "dlq.bucket", "letters"),
        (f"{DLQ}}}}}", "dlq.key_path_prefix", "a/%{yyyy}"),
        (f"{DLQ}}}}}", "dlq.region", "us-east-1"),
        (f"{DLQ}, region: eu-west-1}}}}", "dlq.region", "eu-west-1"),
        (f"{DLQ}, sts_role_arn: '{ROLE}'}}}}", "dlq.sts_role_arn", ROLE),
        (f"{DLQ}, sts_external_id: abc}}}}", "dlq.sts_external_id", "abc"),
        (f"{DLQ}, bucket_owner: 012345678901}}}}", "dlq.bucket_owner", "012345678901"),
        (OLD_AWS, "aws", NEW_AWS),
        ("aws_sigv4: true", "aws", OpenSearchAws()),
        ("routes: [_default]", "routes", ("_default",)),
        ("include_keys: [a, 1]", "include_keys", ("a", "1")),
        ("exclude_keys: [a]", "exclude_keys", ("a",)),
        ("tags_target_key: tags", "tags_target_key", "tags"),
    ],
)
def test_an_option_of_opensearch_is_read(tmp_path: Path, options: str, path: str, value: Any) -> None:
    """With the type it has; a deprecated one as the one that replaced it."""
    found = option(tmp_path, "opensearch", options, path)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("options", "below", "message"),
    [
        ("indx: a", 0, r"opensearch.indx: unknown key. Did you mean 'index'\?"),
        ("index:", -1, r"books.sink\[0\].opensearch: index is missing; write index: \"passages\""),
        ("hosts:", -1, r"books.sink\[0\].opensearch: hosts is missing; write hosts: \["),
        ("hosts: []", 0, r"opensearch.hosts: Expected `array` of length >= 1; write hosts: \["),
        ("hosts: ['https://a', 'http://b']", 0, r"opensearch.hosts: the nodes of a cluster have the same scheme"),
        ("hosts: ['https://me:hidden@a']", 0, r"opensearch.hosts\[0\]: a host must not contain credentials; set"),
        ("index: Passages", 0, r"opensearch.index: .*'passages'"),
        ("index: a-${", 0, r"opensearch.index: .*is not closed"),
        ("index: a-%{QQ}", 0, r"opensearch.index: "),
        ("index: a-%{yyyy}-%{MM}", 0, r"opensearch.index: an index name may contain one date, like %{yyyy.MM}"),
        ("index: a-%{yyyy.MM.dd.HH.mm}", 0, r"opensearch.index: .* must not contain m; use units from years to hours"),
        ("index: 'a-%{yyyy:MM}'", 0, r"opensearch.index: .* must not contain :; use units from years to hours"),
        ("index: a-${/b}-%{SSS}", 0, r"opensearch.index: .* must not contain S; use units from years to hours"),
        ("index_type: trace-analytics-raw", 0, r"opensearch.index_type: .*; write custom, or management_disabled"),
        ("index_type: tsdb", 0, r"opensearch.index_type: .*; write custom"),
        ("index_type: custm", 0, r"opensearch.index_type: 'custm' is not one of .* Did you mean 'custom'\?"),
        ("template_type: v2", 0, r"opensearch.template_type: 'v2' is not one of v1, index-template"),
        ("template_content: '{'", 0, r"opensearch.template_content: not valid JSON: "),
        ("template_content: '[]'", 0, r"opensearch.template_content: not a JSON object; write"),
        ("distribution_version: es6", 0, r"opensearch.distribution_version: Elasticsearch 6 is not supported"),
        ("number_of_shards: -1", 0, r"opensearch.number_of_shards: Expected `int` >= 0"),
        ("bulk_size: 0", 0, r"opensearch.bulk_size: 0 allows no document; write a number of MiB, or -1"),
        ("action: upser", 0, r"opensearch.action: 'upser' is not one of .* Did you mean 'upsert'\?"),
        ("action: ${/a b =}", 0, r"opensearch.action: "),
        ("actions: [{type: drop}]", 0, r"opensearch.actions\[0\].type: 'drop' is not one of"),
        ("actions:\n  - {type: index}\n  - {type: delete, when: a ==}", 2, r"opensearch.actions\[1\].when: "),
        ("actions: [{when: /a}]", 0, r"opensearch.actions\[0\]: type is missing; write type: \"index\""),
        ("document_id: ${", 0, r"opensearch.document_id: "),
        (
            "document_id: a\ndocument_id_field: b",
            1,
            r"opensearch.document_id_field: deprecated, and cannot be combined with document_id",
        ),
        (
            "routing: a\nrouting_field: b",
            1,
            r"opensearch.routing_field: deprecated, and cannot be combined with routing",
        ),
        ("document_root_key: '#'", 0, r"opensearch.document_root_key: '#' is not a valid key"),
        (
            "aws: {}\naws_sigv4: true",
            1,
            r"opensearch.aws_sigv4: deprecated, and cannot be combined with aws; remove it",
        ),
        ("aws: {}\naws_region: a", 1, r"opensearch.aws_region: deprecated"),
        (f"aws: {{}}\naws_sts_role_arn: {ROLE}", 1, r"opensearch.aws_sts_role_arn: deprecated"),
        ("aws: {}\naws_sts_external_id: ab", 1, r"opensearch.aws_sts_external_id: deprecated"),
        ("aws: {}\nserverless: true", 1, r"opensearch.serverless: deprecated"),
        ("aws: {serverless_options: {}}", 0, r"aws.serverless_options: this option is not supported"),
        ("aws: {semantic_enrichment: {}}", 0, r"aws.semantic_enrichment: this option is not supported"),
        ("aws: {sts_header_overrides: {}}", 0, r"aws.sts_header_overrides: this option is not supported"),
        ("serverless_options: {}", 0, r"opensearch.serverless_options: this option is not supported"),
        ("aws_sts_header_overrides: {}", 0, r"aws_sts_header_overrides: this option is not supported"),
        ("proxy: http://a", 0, r"opensearch.proxy: this option is not supported: .*connections.opensearch"),
        ("script: {source: a}", 0, r"opensearch.script: this option is not supported: .*ingest pipeline"),
        ("ism_policy_file: a", 0, r"opensearch.ism_policy_file: this option is not supported: .*ism_template"),
        ("query_lookup: {}", 0, r"opensearch.query_lookup: this option is not supported: .*document_id"),
        ("pull_indexing: {}", 0, r"opensearch.pull_indexing: this option is not supported: .*remove it"),
        ("document_version: ${/v}", 0, r"opensearch.document_version: this option is not supported"),
        ("document_version_type: external", 0, r"opensearch.document_version_type: this option is not supported"),
        ("dlq_file: /a", 0, r"opensearch.dlq_file: this option is not supported: .*write dlq: "),
        (f"{DLQ}}}}}\ndlq_file: /a", 1, r"opensearch.dlq_file: this option is not supported"),
        ("dlq: {kafka: {}}", 0, r"opensearch.dlq.kafka: unknown dlq; known: s3"),
        ("dlq: {s3: {}}", 0, r"opensearch.dlq.s3: bucket is missing; write bucket: \"my-bucket\""),
        ("dlq: {s3: {bucket: abc, key_path_prefix: 'a/%{mm}'}}", 0, r"dlq.s3.key_path_prefix: .* must not contain m"),
        (
            "dlq: {s3: {bucket: abc, key_path_prefix: 'a/%{yyyy:MM}'}}",
            0,
            r"dlq.s3.key_path_prefix: .* must not contain :",
        ),
        ("dlq: {s3: {bucket: abc, bucket_owner: 1}}", 0, r"dlq.s3.bucket_owner: an AWS account id has 12 digits"),
        ("dlq: {s3: {bucket: abc, sts_header_overrides: {}}}", 0, r"s3.sts_header_overrides: this option is not suppo"),
        ("authentication: {client_certificate: a}", 0, r"authentication.client_certificate: this option is not suppor"),
        ("authentication: {client_key: a}", 0, r"authentication.client_key: this option is not supported"),
        ("api_token: hidden", 0, r"opensearch.api_token: this option is not supported: .*connections.opensearch"),
        (
            "authentication: {api_token: hidden}",
            0,
            r"authentication.api_token: this option is not supported: .*connections.opensearch",
        ),
        (
            "username: a\nauthentication: {password: b}",
            1,
            r"opensearch.authentication: cannot be combined with username and password; keep one",
        ),
        ("password: {a: hidden}", 0, r"opensearch.password: Expected `str`"),
        ("password: ${{aws_secrets:hidden:b}}", 0, r"opensearch.password: secret stores are not supported; write ext"),
        (
            "authentication: {username: '${{env:A}}'}",
            0,
            r"opensearch.authentication.username: secret stores are not supported",
        ),
        ("cert: ${{env:A}}", 0, r"opensearch.cert: variables like .* are not resolved here"),
        ("forward_to: {pipelines: [a]}", 0, r"opensearch.forward_to: this option is not supported"),
        ("include_keys: [a/b]", 0, r"opensearch.include_keys\[0\]: 'a/b' contains a /"),
        ("exclude_keys: [a, b/]", 0, r"opensearch.exclude_keys\[1\]: 'b/' contains a /"),
        ("include_keys: [a]\nexclude_keys: [b]", 1, r"opensearch.exclude_keys: cannot be combined with include_keys"),
        ("tags_target_key: '#'", 0, r"opensearch.tags_target_key: '#' is not a valid key"),
        ("routes: [a]", 0, r"opensearch.routes\[0\]: unknown route; known: _default"),
    ],
)
def test_a_mistake_in_opensearch_is_named_with_its_line(tmp_path: Path, options: str, below: int, message: str) -> None:
    """And no secret is shown."""
    with pytest.raises(ConfigError, match=message) as found:
        read(tmp_path, with_options("opensearch", options))
    line = line_of("opensearch") + below
    assert str(found.value).startswith(f"{tmp_path}/books.yaml:{line} books.sink[0].opensearch")
    assert "hidden" not in str(found.value)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("flush_timeout: 1", ["flush_timeout"]),
        ("estimate_bulk_size_using_compression: true", ["estimate_bulk_size_using_compression"]),
        ("max_local_compressions_for_estimation: 1", ["max_local_compressions_for_estimation"]),
        ("socket_timeout: '1000'", ["socket_timeout"]),
        ("connect_timeout: 500", ["connect_timeout"]),
        ("enable_request_compression: false", ["enable_request_compression"]),
        ("max_retries: 3", ["max_retries"]),
        ("hosts: [a]", []),
        ("hosts: [a, b, 'c:1']", []),
        ("aws: {resource_name: a}", ["aws.resource_name"]),
        ("template_file: a\ntemplate_content: '{}'", ["template_file"]),
        ("cert: a\ninsecure: true", ["cert"]),
        ("action: create\nactions: [{type: index}]", ["action"]),
        ("aws: {}\nusername: a\npassword: b", ["username", "password"]),
        ("aws_region: eu-west-1", ["aws_region"]),
        (f"aws_sts_role_arn: {ROLE}", ["aws_sts_role_arn"]),
        (f"{DLQ}, force_path_style: true, legacy_md5_checksum: true}}}}",
         ["dlq.s3.force_path_style", "dlq.s3.legacy_md5_checksum"]),
        ("username: a", []),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_told(tmp_path: Path, options: str, names: list[str]) -> None:
    """With its line and why."""
    told = read(tmp_path, with_options("opensearch", options)).remarks
    prefix = "books.sink[0].opensearch."
    mine = [(line, text.removeprefix(prefix)) for line, text in told if text.startswith(prefix)]
    assert sorted(text.partition(": has no effect")[0] for _, text in mine) == sorted(names)
    assert all(line_of("opensearch") <= line <= line_of("opensearch") + 2 for line, _ in mine)


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    """Whoever prints the file's options."""
    text = with_options("opensearch", "username: hidden\npassword: hidden")
    sink = read(tmp_path, text).pipelines[0].sinks[0][1]
    assert isinstance(sink, OpenSearchSink)
    assert sink.password is not None
    assert (sink.password.value, "hidden" in repr(sink), "hidden" in f"{sink.credentials}") == ("hidden", False, False)


def test_a_connection_takes_the_place_of_a_secret_store(tmp_path: Path) -> None:
    """The variable is then not needed."""
    text = with_options("opensearch", "password: ${{aws_secrets:a:b}}").replace(
        "# file\n", "extension: {opensearch_batch: {connections: {opensearch: opensearch_default}}}\n"
    )
    assert read(tmp_path, text).settings.connections.opensearch == "opensearch_default"


@pytest.mark.parametrize(
    ("options", "path", "value"),
    [
        ("bucket: s3://archive-${/tenant}", "bucket", "archive-${/tenant}"),
        ("default_bucket: s3://other", "default_bucket", "other"),
        ("codec: {ndjson: {extension: jsonl}}", "codec.extension", "jsonl"),
        ("codec: {json: {key_name: rows}}", "codec", JsonEncoding(key_name="rows")),
        ("codec: {csv: {delimiter: ;, header: [a]}}", "codec", CsvEncoding(delimiter=";", header=("a",))),
        ("codec: {parquet: {auto_schema: true}}", "codec", ParquetEncoding(auto_schema=True)),
        (f"codec: {{parquet: {{schema: '{AVRO}'}}}}", "codec", ParquetEncoding(schema=AVRO)),
        ("object_key: {path_prefix: 'a/%{yyyy}/${/b}'}", "object_key.path_prefix", "a/%{yyyy}/${/b}"),
        ("object_key: {name_pattern_prefix: rows}", "object_key.name_pattern_prefix", "rows"),
        ("compression: gzip", "compression", "gzip"),
        ("threshold: {event_collect_timeout: 1s, event_count: '9'}", "threshold.event_count", 9),
        ("threshold: {event_collect_timeout: 1s}", "threshold.event_collect_timeout", 1.0),
        ("threshold: {event_collect_timeout: 1s}", "threshold.maximum_size", 50 << 20),
        ("threshold: {event_collect_timeout: 1s, maximum_size: 1.5kb}", "threshold.maximum_size", 1536),
        ("default_bucket_owner: 012345678901", "default_bucket_owner", "012345678901"),
        ("bucket_owners: {a: 012345678901}", "bucket_owners.a", "012345678901"),
        ("aws: {region: eu-west-1}", "aws.region", "eu-west-1"),
        ("exclude_keys: [a]", "exclude_keys", ("a",)),
    ],
)
def test_an_option_of_s3_is_read(tmp_path: Path, options: str, path: str, value: Any) -> None:
    """With the value it means."""
    assert option(tmp_path, "archive", options, path) == value


@pytest.mark.parametrize(
    ("options", "below", "message"),
    [
        ("bucket:", -1, r"sink\[1\].s3: bucket is missing; write bucket: \"my-bucket\""),
        ("bucket: a", 0, r"s3.bucket: Expected `str` of length >= 3"),
        ("bucket: abc${", 0, r"s3.bucket: .*is not closed"),
        (
            "bucket_selector: {securitylake: {}}",
            0,
            r"s3.bucket_selector: this option is not supported: .*use the option bucket",
        ),
        ("server_side_encryption: {type: kms}", 0, r"server_side_encryption: this option is not supported: .*bucket"),
        ("object_metadata: {number_of_events_key: n}", 0, r"object_metadata: this option is not supported: .*report"),
        ("predefined_object_metadata: {}", 0, r"predefined_object_metadata: this option is not supported: .*report"),
        (
            "aggregate_threshold: {}",
            0,
            r"s3.aggregate_threshold: this option is not supported: .*threshold.maximum_size",
        ),
        ("forward_to: {}", 0, r"s3.forward_to: this option is not supported"),
        ("codec: {avro: {}}", 0, r"s3.codec.avro: this codec is not supported"),
        ("codec: {event_json: {}}", 0, r"s3.codec.event_json: this codec is not supported"),
        ("codec: {newline: {}}", 0, r"s3.codec.newline: this codec is not supported"),
        ("codec: {ndjson: {extension: txt}}", 0, r"ndjson.extension: 'txt' is not one of ndjson, jsonl"),
        ("codec: {csv: {region: a}}", 0, r"csv.region: this option is not supported"),
        ("codec: {parquet: {schema: '{bad'}}", 0, r"s3.codec.parquet.schema: .*not an Avro schema \(DecodeError: "),
        ("codec: {parquet: {schema: '{}'}}", 0, r"s3.codec.parquet.schema: .*give an Avro schema of type record"),
        ("codec: {parquet: {schema: '" + "[" * 9999 + "'}}", 0, r"s3.codec.parquet.schema: .*not an Avro schema \(Rec"),
        ("codec: {parquet: {}}", 0, r"s3.codec.parquet: set exactly one of schema and auto_schema: true"),
        ("codec: {parquet: {schema: a, auto_schema: true}}", 0, r"s3.codec.parquet: set exactly one of schema"),
        ("object_key: {path_prefix: 'a%{Q}'}", 0, r"object_key.path_prefix: "),
        ("object_key: {path_prefix: 'a${'}", 0, r"object_key.path_prefix: .*is not closed"),
        ("object_key: {name_pattern_prefix: 'a%{yyyy}'}", 0, r"name_pattern_prefix: the sink always appends a time"),
        ("compression: zstd", 0, r"s3.compression: 'zstd' is not one of none, gzip, snappy"),
        (
            "threshold:",
            -1,
            r"sink\[1\].s3: threshold is missing; write threshold: {\"event_collect_timeout\": \"60s\"}",
        ),
        ("threshold: {}", 0, r"s3.threshold: event_collect_timeout is missing; write event_collect_timeout: \"60s\""),
        ("threshold: {event_collect_timeout: 2h}", 0, r"event_collect_timeout: '2h' is not a duration"),
        (
            "threshold: {event_collect_timeout: PT2H}",
            0,
            r"event_collect_timeout: 2 hours is out of range; write 1 second to 1 hour",
        ),
        (
            "threshold: {event_collect_timeout: 1s, maximum_size: 50}",
            0,
            r"maximum_size: '50' is not a size; write a number with",
        ),
        ("threshold: {event_collect_timeout: 1s, maximum_size: 0.5b}", 0, r"'0.5b' is not a whole number of bytes"),
        ("threshold: {event_collect_timeout: 1s, event_count: -1}", 0, r"event_count: Expected `int` >= 0"),
        ("default_bucket_owner: 1", 0, r"default_bucket_owner: an AWS account id has 12 digits"),
        ("aws:", -1, r"sink\[1\].s3: aws is missing"),
    ],
)
def test_a_mistake_in_s3_is_named_with_its_line(tmp_path: Path, options: str, below: int, message: str) -> None:
    """The message says what to write."""
    with pytest.raises(ConfigError, match=message) as found:
        read(tmp_path, with_options("archive", options))
    line = line_of("archive") + below
    assert str(found.value).startswith(f"{tmp_path}/books.yaml:{line} books.sink[1].s3")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("buffer_type: multipart", "buffer_type"),
        ("client: {max_connections: 5}", "client"),
        ("max_retries: 5", "max_retries"),
        ("max_connection_retries: 5", "max_connection_retries"),
        ("object_key: {name_pattern: a}", "object_key.name_pattern"),
        ("threshold: {event_collect_timeout: 1s}", "threshold.event_collect_timeout"),
    ],
)
def test_what_has_no_effect_in_s3_is_told(tmp_path: Path, options: str, name: str) -> None:
    """With its line and why."""
    told = read(tmp_path, with_options("archive", options)).remarks
    start = f"books.sink[1].s3.{name}: has no effect: "
    assert [line for line, text in told if text.startswith(start)] == [line_of("archive")]
