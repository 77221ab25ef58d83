"""Each option of the s3 source and of its codecs is read as what it means, or refused in its line."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from opensearch_batch.core.data_prepper.file.source import S3Source
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.formats.csv import Csv
from opensearch_batch.core.formats.json import Json
from opensearch_batch.core.formats.newline import Newline
from opensearch_batch.core.formats.parquet import Parquet
from tests.core.data_prepper.data_prepper_files import line_of, option, read, with_options

CSV = Csv(delimiter=";", quote_character="'", header=("a", "b"), detect_header=False)
CONDITION = "processing_conditions:\n  - {object_name: manifest.json.out, when: /a == /b"
BEGIN, END = datetime(2026, 1, 31, 8), datetime(2026, 1, 31, 9, 30, 1)  # noqa: DTZ001 - a time of no zone is meant


@pytest.mark.parametrize(
    ("place", "options", "path", "value"),
    [
        ("source", "compression: GZIP", "compression", "gzip"),
        ("source", "acknowledgments: 'true'", "acknowledgments", True),
        ("source", "acknowledgments: yes", "acknowledgments", True),
        ("source", "acknowledgments: no", "acknowledgments", False),
        ("source", "acknowledgments: OFF", "acknowledgments", False),
        (
            "source",
            "delete_s3_objects_on_read: true\nacknowledgments: true",
            "delete_s3_objects_on_read",
            True,
        ),
        ("source", "disable_s3_metadata_in_event: true", "disable_s3_metadata_in_event", True),
        ("source", "metadata_root_key: from/", "metadata_root_key", "from/"),
        ("source", "metadata_root_key:", "metadata_root_key", "s3/"),
        ("source", "default_bucket_owner: 012345678901", "default_bucket_owner", "012345678901"),
        ("source", "bucket_owners: {a: 012345678901}", "bucket_owners.a", "012345678901"),
        ("source", "disable_bucket_ownership_validation: true", "disable_bucket_ownership_validation", True),
        ("source", "filters: {documents: {exclude_suffix: [.tmp]}}", "filters.documents.exclude_suffix", (".tmp",)),
        ("source", "codec: {csv: {delimiter: ;, quote_character: '''', header: [a, b], detect_header: false}}",
         "codec", CSV),
        ("source", "codec: {newline: {skip_lines: '2', header_destination: h}}",
         "codec", Newline(skip_lines=2, header_destination="h")),
        ("source", "codec: {json: {key_name: k, include_keys: [a]}}",
         "codec", Json(key_name="k", include_keys=("a",))),
        ("source", "codec: {parquet: }", "codec", Parquet()),
        ("source", "codec: {ndjson: {include_empty_objects: true}}", "codec.include_empty_objects", True),
        ("source", "aws: {sts_role_arn: 'arn:aws:iam::012345678901:role/r'}", "aws.account", "012345678901"),
        ("source", "aws: {sts_external_id: abc}", "aws.sts_external_id", "abc"),
        ("scan", "start_time: 2026-01-31T08:00", "start_time", BEGIN),
        ("scan", "end_time: '2026-01-31T09:30:01Z'", "end_time", END),
        ("scan", "range: P1DT1H", "range", 90_000.0),
        ("scan", "scheduling: {interval: 60s, count: 2}", "scheduling.interval", 60.0),
        ("scan", "scheduling: {interval: PT6M, count: '2'}", "scheduling.count", 2),
        ("scan", "scheduling: {interval: PT6M}", "scheduling.count", None),
        ("bucket", "name: s3://documents", "name", "documents"),
        ("bucket", "data_selection: metadata_only", "data_selection", "metadata_only"),
        ("bucket", "filter: {include_prefix: [a/, 01]}", "filter.include_prefix", ("a/", "01")),
        ("bucket", "start_time: 2026-01-31T08:00:00", "start_time", BEGIN),
        ("bucket", "end_time: 2026-01-31T09:30:01", "end_time", END),
        ("bucket", "range: PT2H", "range", 7200.0),
        ("bucket", f"{CONDITION}}}", "processing_conditions.0.when", "/a == /b"),
        ("bucket", f"{CONDITION}}}", "processing_conditions.0.object_name", "manifest.json.out"),
        ("bucket", f"{CONDITION}}}", "processing_conditions.0.retry_delay", 300.0),
        ("bucket", f"{CONDITION}, retry_delay: PT1M}}", "processing_conditions.0.retry_delay", 60.0),
        ("bucket", f"{CONDITION}, max_retry: 0}}", "processing_conditions.0.max_retry", 0),
        ("bucket", f"{CONDITION}, applicable_prefix: [a]}}", "processing_conditions.0.applicable_prefix", ("a",)),
        ("bucket", f"{CONDITION}, codec: {{parquet: {{}}}}}}", "processing_conditions.0.codec", Parquet()),
    ],
)  # fmt: skip
def test_an_option_is_read(tmp_path: Path, place: str, options: str, path: str, value: Any) -> None:
    """With the type it has, whatever way it is written."""
    found = option(tmp_path, place, options, path)
    assert (found, type(found) is type(value) or isinstance(found, float)) == (value, True)


@pytest.mark.parametrize(
    ("place", "options", "below", "message"),
    [
        ("source", "compresion: gzip", 0, r"s3.compresion: unknown key. Did you mean 'compression'\?"),
        ("source", "compression: brotli", 0, r"s3.compression: 'brotli' is not one of none, gzip, snappy, zstd"),
        ("source", "compression: {}", 0, r"s3.compression: Expected `str`"),
        ("source", "acknowledgments: perhaps", 0, r"acknowledgments: Expected `bool`.*'perhaps'"),
        ("source", "delete_s3_objects_on_read: true", 0, r"delete_s3_.*_on_read: .*; write acknowledgments: true"),
        ("source", "default_bucket_owner: 88303208821", 0, r"default_bucket_owner: an AWS account id has 12 digits"),
        ("source", "bucket_owners: {a: 1}", 0, r"s3.bucket_owners.a: an AWS account id has 12 digits"),
        ("source", "metadata_root_key: '#'", 0, r"s3.metadata_root_key: '#' is not a valid key"),
        ("source", "metadata_root_key: ''", 0, r"s3.metadata_root_key: the key is empty"),
        ("source", "filters: {other: {}}", 0, r"s3.filters.other: no bucket of the scan has this name"),
        ("source", "s3_select: {expression: a}", 0, r"s3_select: this option is not supported: .*; remove it"),
        ("source", "sqs: {queue_url: a}", 0, r"s3.sqs: this option is not supported: .*write scan"),
        ("source", "notification_type: sqs", 0, r"s3.notification_type: this option is not supported"),
        ("source", "notification_source: s3", 0, r"s3.notification_source: this option is not supported"),
        ("source", "codec: ndjson", 0, r"s3.codec: expected one codec with its options, like ndjson: \{\}"),
        ("source", "codec: {ndjson: {}, csv: {}}", 0, r"s3.codec: expected one codec with its options"),
        ("source", "codec: {json: {include_keys_metadata: [a]}}", 0, r"include_keys_metadata: this option is not sup"),
        ("source", "codec: {avro: {}}", 0, r"codec.avro: this codec is not supported: .*ndjson, newline, json, csv"),
        ("source", "codec: {multiline: {}}", 0, r"codec.multiline: this codec is not supported"),
        ("source", "codec: {event_json: {}}", 0, r"codec.event_json: this codec is not supported"),
        ("source", "codec: {ndjsn: {}}", 0, r"codec.ndjsn: unknown codec; .* Did you mean 'ndjson'\?"),
        ("source", "codec: {csv: {delimiter: ab}}", 0, r"csv.delimiter: Expected `str` of length <= 1"),
        ("source", "codec: {csv: {delimiter: ';', quote_character: ';'}}", 0, r"quote_character: the delimiter"),
        ("source", "codec: {csv: {header: []}}", 0, r"csv.header: Expected `array` of length >= 1"),
        ("source", "codec: {newline: {skip_lines: -1}}", 0, r"newline.skip_lines: Expected `int` >= 0"),
        ("source", "codec: {newline: {header_destination: ''}}", 0, r"header_destination: Expected `str` of length"),
        ("source", "codec: {parquet: {x: 1}}", 0, r"codec.parquet.x: unknown key. No key is allowed here."),
        ("source", "codec:", -1, r"books.source.s3: codec is missing; write codec: {\"ndjson\": {}}"),
        ("source", "aws:", -1, r"books.source.s3: aws is missing; write aws: {\"region\": \"us-east-1\"}"),
        ("source", "aws: {region: ''}", 0, r"s3.aws.region: .*; write region: \"us-east-1\""),
        ("source", "aws: {sts_role_arn: arn}", 0, r"aws.sts_role_arn: Expected `str` of length >= 20; write"),
        ("source", "aws: {sts_header_overrides: {a: b}}", 0, r"aws.sts_header_overrides: this option is not supported"),
        ("source", "scan: {buckets: []}", 0, r"s3.scan.buckets: Expected `array` of length >= 1"),
        ("source", "scan: {buckets: [{bucket: }]}", 0, r"s3.scan.buckets\[0\]: bucket is missing; write bucket: with"),
        ("source", "scan: {buckets: {}}", 0, r"s3.scan.buckets: expected a YAML list"),
        ("source", "scan: 1", 0, r"s3.scan: expected a YAML mapping"),
        ("scan", "folder_partitions: {depth: 1}", 0, r"scan.folder_partitions: this option is not supported"),
        ("scan", "scheduling: {}", 0, r"scan.scheduling: interval is missing; write interval: \"PT6M\""),
        ("scan", "scheduling:\n  interval: 0s", 1, r"interval: 0 seconds is out of range; write 1 second to 365 days"),
        ("scan", "scheduling:\n  interval: 10ms", 1, r"interval: 0.01 seconds is out of range; write 1 second to"),
        ("scan", "scheduling:\n  interval: P400D", 1, r"interval: 400 days is out of range; write 1 second to"),
        ("scan", "scheduling:\n  interval: PT9000H", 1, r"interval: 375 days is out of range; write 1 second to"),
        ("scan", "scheduling:\n  interval: PT9001H", 1, r"interval: 9,001 hours is out of range; write 1 second to"),
        ("scan", "scheduling:\n  interval: P400DT0.001S", 1, r"interval: 34,560,000.001 seconds is out of range"),
        ("scan", "scheduling:\n  interval: 6 minutes", 1, r"scheduling.interval: '6 minutes' is not a duration"),
        ("scan", "scheduling: {interval: PT6M, count: 1}", 0, r"scheduling.count: Expected `int` >= 2"),
        ("scan", "scheduling: {interval: PT6M}\nend_time: 2026-01-31T08:00:00", 1, r"end_time: cannot be combined"),
        ("scan", "range: PT1H\nstart_time: 2026-01-31T08:00:00", 0, r"scan.range: cannot be combined with start_time"),
        ("scan", "start_time: 2026-01-31T08:00:00+01:00", 0, r"start_time: Expected `datetime` with no timezone"),
        ("scan", "start_time: yesterday", 0, r"scan.start_time: .*; write start_time: \"2026-01-31T00:00:00\""),
        ("bucket", "name: s3", 0, r"bucket.name: Expected `str` of length >= 3; write name: \"my-bucket\""),
        ("bucket", "name: ${{aws_secrets:a:b}}", 0, r"bucket.name: variables like .* are not resolved here"),
        ("bucket", "filter: {include_prefix: ['${{env:A}}']}", 0, r"include_prefix: variables .* are not resolved"),
        ("bucket", "end_time: 2026-01-31T08:00:00\nrange: PT1H", 1, r"bucket.range: cannot be combined with start"),
        ("bucket", "data_selection: metadata", 0, r"data_selection: 'metadata' is not one of .*mean 'metadata_only'\?"),
        ("bucket", "filter: {include_prefix: a}", 0, r"filter.include_prefix: Expected `array`, got `str`"),
        ("bucket", "filter: {include_suffix: [a]}", 0, r"filter.include_suffix: .*Did you mean 'exclude_suffix'\?"),
        ("bucket", f"{CONDITION} =}}", 1, r"processing_conditions\[0\].when: "),
        ("bucket", f"{CONDITION}, max_retry: 101}}", 1, r"conditions\[0\].max_retry: Expected `int` <= 100: '101'"),
        ("bucket", f"{CONDITION}, retry_delay: 2s}}", 1, r"2 seconds is out of range; write 1 minute to 1 hour"),
        ("bucket", "processing_conditions: [{when: a}]", 0, r"conditions\[0\]: object_name is missing; write obje"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, place: str, options: str, below: int, message: str) -> None:
    """The message says what to write; a missing option is told where it is missing."""
    with pytest.raises(ConfigError, match=message) as found:
        read(tmp_path, with_options(place, options))
    line = line_of(place) + below
    assert str(found.value).startswith(f"{tmp_path}/books.yaml:{line} books.source.s3")


def test_a_filter_stands_in_one_place(tmp_path: Path) -> None:
    """The bucket's, or the one at the top."""
    text = with_options("bucket", "filter: {include_prefix: [a]}")
    text = text.replace("      # source", "      filters: {documents: {include_prefix: [b]}}")
    with pytest.raises(
        ConfigError, match=r"yaml:13 books.source.s3.scan.buckets\[0\].bucket.filter: cannot be combined with filters"
    ):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "name", ["workers", "records_to_accumulate", "buffer_timeout", "backoff_time", "data_selection", "on_error"]
)
def test_an_option_without_effect_is_told(tmp_path: Path, name: str) -> None:
    """With its line and why."""
    file = read(tmp_path, with_options("source", f"{name}: '1'"))
    assert [line for line, text in file.remarks if text.startswith(f"books.source.s3.{name}: has no effect: ")] == [7]


def test_a_placeholder_for_an_account_is_told(tmp_path: Path) -> None:
    """The printed sample has one; somebody has to fill it in."""
    file = read(tmp_path, with_options("source", "default_bucket_owner: account_ID\nbucket_owners: {a: me}"))
    assert [line for line, text in file.remarks if "is not an AWS account id (12 digits)" in text] == [7, 8]


@pytest.mark.parametrize(
    ("options", "owner"),
    [
        ("default_bucket_owner: 1" + "0" * 11, "1" + "0" * 11),
        ("default_bucket_owner: 1" + "0" * 11 + "\nbucket_owners: {documents: 2" + "0" * 11 + "}", "2" + "0" * 11),
        ("aws: {sts_role_arn: 'arn:aws:iam::300000000000:role/r'}", "3" + "0" * 11),
        ("default_bucket_owner: 1" + "0" * 11 + "\ndisable_bucket_ownership_validation: true", None),
        ("acknowledgments: true", None),
    ],
)
def test_a_bucket_has_one_owner(tmp_path: Path, options: str, owner: str | None) -> None:
    """Its own, the one of all, the role's account; none where nobody is to be asked."""
    source = read(tmp_path, with_options("source", options)).pipelines[0].source
    assert source.owner_of("documents") == owner


def source_of(folder: Path, place: str, options: str, top: str = "") -> S3Source:
    """Return the source with options in two places."""
    text = with_options(place, options).replace("      # source\n", f"      {top}\n" if top else "")
    return read(folder, text).pipelines[0].source


def test_a_bucket_s_times_come_before_the_scan_s(tmp_path: Path) -> None:
    """All of them: a bucket with a start has no end, though the scan has one."""
    scan = "end_time: 2026-01-31T09:30:01\nbuckets:\n  - bucket: {name: one, start_time: 2026-01-31T08:00:00}"
    source = source_of(tmp_path, "scan", f"{scan}\n  - bucket: {{name: two}}\n  - bucket: {{name: six, range: PT1H}}")
    assert [(each.name, each.start_time, each.end_time, each.range) for each in source.buckets[:3]] == [
        ("one", BEGIN, None, None),
        ("two", None, END, None),
        ("six", None, None, 3600.0),
    ]


def test_a_bucket_has_the_filter_of_the_top(tmp_path: Path) -> None:
    """By its name, written as a URI or not."""
    top = "filters: {documents: {include_prefix: [a/], exclude_suffix: [.b]}}"
    bucket = source_of(tmp_path, "bucket", "name: s3://documents\ndata_selection: data_only", top).buckets[0]
    assert (bucket.name, bucket.selection, bucket.include_prefix, bucket.exclude_suffix) == (
        "documents",
        "data_only",
        ("a/",),
        (".b",),
    )


def test_a_bucket_has_its_conditions(tmp_path: Path) -> None:
    """And no others."""
    source = source_of(tmp_path, "bucket", f"{CONDITION}}}")
    assert [each.object_name for each in source.buckets[0].processing_conditions] == ["manifest.json.out"]
