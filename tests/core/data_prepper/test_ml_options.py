"""Each option of ml_inference and s3_enrich is read as what it means, or refused in its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.file.ml_inference import BUILT_IN
from opensearch_batch.core.data_prepper.options.codecs import RECORD_OBJECT_CODECS
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.types.object_info import ObjectInfo
from tests.core.data_prepper.data_prepper_files import line_of, option, read, with_options

ROLE = "arn:aws:iam::123456789012:role/r"
OTHER = "arn:aws:iam::210987654321:role/letters"


@pytest.mark.parametrize(
    ("place", "options", "path", "value"),
    [
        ("ml", "host: https://a", "host", "https://a"),
        ("ml", "model_id: 0123", "model_id", "0123"),
        ("ml", "output_path: s3://a/b", "output_path", "s3://a/b"),
        ("ml", "action_type: batch_predict", "action_type", "batch_predict"),
        ("ml", "action_type: predict", "action_type", "predict"),
        ("ml", "service_name: bedrock", "service_name", "bedrock"),
        ("ml", "input_key: a/b", "input_key", "a/b"),
        ("ml", 'ml_when: /bucket == "a"', "ml_when", '/bucket == "a"'),
        ("ml", "max_batch_size: '7'", "max_batch_size", 7),
        ("ml", "retry_time_window: PT9M", "retry_time_window", 540.0),
        ("ml", "retry_interval: 3s", "retry_interval", 3.0),
        ("ml", "aws: {region: eu-west-1}", "aws.region", "eu-west-1"),
        ("ml", f"aws: {{sts_role_arn: '{ROLE}'}}", "aws.sts_role_arn", ROLE),
        ("ml", "aws: {sts_external_id: ab}", "aws.sts_external_id", "ab"),
        ("ml", "dlq: {s3: {bucket: s3://letters}}", "dlq.bucket", "letters"),
        ("ml", "dlq: {s3: {bucket: letters}}", "dlq.region", "us-east-1"),
        ("ml", f"dlq: {{s3: {{bucket: letters}}}}\naws: {{sts_role_arn: '{ROLE}'}}", "dlq.sts_role_arn", ROLE),
        ("ml", f"dlq: {{s3: {{bucket: letters, sts_role_arn: '{OTHER}'}}}}", "dlq.sts_role_arn", OTHER),
        ("ml", "dlq: {s3: {bucket: letters, region: eu-west-1}}", "dlq.region", "eu-west-1"),
        ("enrich", "bucket: {name: s3://documents}", "bucket.name", "documents"),
        ("enrich", "bucket: {name: abc, filter: {include_prefix: a/}}", "bucket.filter.include_prefix", "a/"),
        ("enrich", "codec: {parquet: {}}", "codec", RECORD_OBJECT_CODECS["parquet"]()),
        ("enrich", "compression: zstd", "compression", "zstd"),
        ("enrich", "s3_key_path: a", "s3_key_path", "a"),
        ("enrich", "s3_object_name_pattern: ^(a)$", "s3_object_name_pattern", "^(a)$"),
        ("enrich", "correlation_keys: [recordId]", "correlation_keys", ("recordId",)),
        ("enrich", "keys_to_merge: [a, b/c]", "keys_to_merge", ("a", "b/c")),
        ("enrich", "enrich_when: /a == 1", "enrich_when", "/a == 1"),
        ("enrich", "tags_on_failure: [a]", "tags_on_failure", ("a",)),
        ("enrich", "default_bucket_owner: 012345678901", "default_bucket_owner", "012345678901"),
        ("enrich", "bucket_owners: {a: 012345678901}", "bucket_owners.a", "012345678901"),
        ("enrich", "disable_bucket_ownership_validation: true", "disable_bucket_ownership_validation", True),
        ("enrich", "aws: {region: eu-west-1}", "aws.region", "eu-west-1"),
    ],
)
def test_an_option_is_read(tmp_path: Path, place: str, options: str, path: str, value: Any) -> None:
    """With the value it means."""
    assert option(tmp_path, place, options, path) == value


@pytest.mark.parametrize(
    ("place", "options", "below", "message"),
    [
        ("ml", "hots: a", 0, r"ml_inference.hots: unknown key. Did you mean 'host'\?"),
        ("ml", "host:", -1, r"ml_inference: host is missing; write host: \"https://"),
        ("ml", "model_id:", -1, r"ml_inference: model_id is missing; write model_id: "),
        ("ml", "output_path:", -1, r"ml_inference: output_path is missing; write output_path: \"s3://"),
        ("ml", "output_path: /tmp", 0, r"ml_inference.output_path: '/tmp' is not an S3 location"),
        ("ml", "aws:", -1, r"ml_inference: aws is missing; write aws: "),
        ("ml", "action_type: batch", 0, r"ml_inference.action_type: 'batch' is not one of batch_predict, predict"),
        ("ml", "service_name: openai", 0, r"ml_inference.service_name: 'openai' is not one of sagemaker, bedrock"),
        *(("ml", f"model_id: {name}", 0, r"ml_inference.model_id: built-in models .* register a") for name in BUILT_IN),
        ("ml", "ml_when: /bucket =", 0, r"ml_inference.ml_when: "),
        ("ml", "input_key: '#'", 0, r"ml_inference.input_key: '#' is not a valid key"),
        ("ml", "max_batch_size: 0", 0, r"ml_inference.max_batch_size: Expected `int` >= 1"),
        ("ml", "retry_interval: 2s", 0, r"retry_interval: 2 seconds is out of range; write 3 seconds to 5 minutes"),
        ("ml", "retry_time_window: soon", 0, r"ml_inference.retry_time_window: 'soon' is not a duration"),
        ("ml", "dlq: {sqs: {}}", 0, r"ml_inference.dlq.sqs: unknown dlq; known: s3"),
        ("ml", "dlq: {s3: {bucket: ab}}", 0, r"dlq.s3.bucket: Expected `str` of length >= 3"),
        ("ml", "aws: {sts_header_overrides: {}}", 0, r"aws.sts_header_overrides: this option is not supported"),
        ("enrich", "correlation_key: a", 0, r"s3_enrich.correlation_key: .* Did you mean 'correlation_keys'\?"),
        ("enrich", "correlation_keys: [a, b]", 0, r"s3_enrich.correlation_keys: Expected `array` of length <= 1"),
        ("enrich", "correlation_keys: ['#']", 0, r"s3_enrich.correlation_keys\[0\]: '#' is not a valid key"),
        ("enrich", "keys_to_merge: []", 0, r"s3_enrich.keys_to_merge: Expected `array` of length >= 1"),
        ("enrich", "keys_to_merge: [a, '#']", 0, r"s3_enrich.keys_to_merge\[1\]: '#' is not a valid key"),
        ("enrich", "s3_object_name_pattern: abc", 0, r"s3_object_name_pattern: the pattern has no capturing group"),
        ("enrich", "s3_object_name_pattern: (", 0, r"s3_object_name_pattern: '\(' is not a valid regular expression"),
        ("enrich", "s3_key_path: '#'", 0, r"s3_enrich.s3_key_path: '#' is not a valid key"),
        ("enrich", "enrich_when: a ==", 0, r"s3_enrich.enrich_when: "),
        ("enrich", "bucket: {}", 0, r"s3_enrich.bucket: name is missing"),
        ("enrich", "codec: {avro: {}}", 0, r"s3_enrich.codec.avro: this codec is not supported"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, place: str, options: str, below: int, message: str) -> None:
    """The message says what to write."""
    with pytest.raises(ConfigError, match=message) as found:
        read(tmp_path, with_options(place, options))
    assert str(found.value).startswith(f"{tmp_path}/books.yaml:{line_of(place) + below} books.processor[")


@pytest.mark.parametrize(
    ("place", "options", "name"),
    [
        ("ml", "aws_sigv4: true", "ml_inference.aws_sigv4"),
        ("ml", "tags_on_failure: [a]", "ml_inference.tags_on_failure"),
        ("ml", f"aws: {{job_sts_role_arn: '{ROLE}'}}", "ml_inference.aws.job_sts_role_arn"),
        ("enrich", "s3_object_size_limit: 200mb", "s3_enrich.s3_object_size_limit"),
        ("enrich", "cache_max_count: 1", "s3_enrich.cache_max_count"),
        ("enrich", "cache_max_size: 1", "s3_enrich.cache_max_size"),
        ("enrich", "cache_ttl: PT1M", "s3_enrich.cache_ttl"),
    ],
)
def test_what_has_no_effect_is_told(tmp_path: Path, place: str, options: str, name: str) -> None:
    """With its line and why."""
    told = read(tmp_path, with_options(place, options)).remarks
    assert [line for line, text in told if f"].{name}: has no effect: " in text] == [line_of(place)]


@pytest.mark.parametrize("codec", ["ndjson", "newline", "json", "csv", "parquet"])
@pytest.mark.parametrize(
    ("options", "key"),
    [("{extension: json.gz}", "in/a.json.gz"), ("{}", "in/a.jsonl"), ("{extension: ' '}", "in/a.jsonl")],
)
def test_the_extension_of_s3_enrich_leads_to_the_records(tmp_path: Path, codec: str, options: str, key: str) -> None:
    """Whatever codec reads them."""
    said = f"codec: {{{codec}: {options}}}\nbucket: {{name: documents, filter: {{include_prefix: in/}}}}"
    file = read(tmp_path, with_options("enrich", said))
    enrich = CompiledPipeline(file, file.pipelines[0]).enrich_options
    assert enrich is not None
    assert enrich.record_object_of(ObjectInfo("s3://documents/output/a.out", 1, "")) == f"s3://documents/{key}"
    assert [text for _, text in file.remarks if "extension" in text] == []


def test_the_extension_of_the_source_has_no_effect(tmp_path: Path) -> None:
    """Its objects are listed."""
    told = read(tmp_path, with_options("source", "codec: {ndjson: {extension: json}}")).remarks
    place = "books.source.s3.codec.ndjson.extension: has no effect: "
    assert [line for line, text in told if text.startswith(place)] == [line_of("source")]
