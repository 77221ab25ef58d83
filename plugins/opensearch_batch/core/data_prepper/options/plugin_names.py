"""What Data Prepper has beside what is done here, so that a file that asks for it learns what to do instead.

Source: the names of the DataPrepperPlugin annotations (2.17).
"""

from __future__ import annotations

_SOURCE = "rows are read from S3 in batches; write them there, and read them with source: {s3: {scan: ...}}"
_PROCESSOR = "do this before the rows are written to S3, or in an ingest pipeline of the cluster"
_SINK = "documents are written to opensearch or s3; write one of them"

OTHER_SOURCES = dict.fromkeys(
    (
        "cloudwatch",
        "documentdb",
        "dynamodb",
        "file",
        "http",
        "iceberg",
        "kafka",
        "kinesis",
        "log_generator",
        "mongodb",
        "opensearch",
        "opensearch_api",
        "otel_logs_source",
        "otel_metrics_source",
        "otel_trace_source",
        "otlp",
        "pipeline",
        "prometheus",
        "random",
        "rds",
        "rss",
        "sqs",
        "stdin",
    ),
    _SOURCE,
)
OTHER_PROCESSORS = dict.fromkeys(
    (
        "aggregate",
        "anomaly_detector",
        "aws_lambda",
        "csv",
        "date",
        "decompress",
        "delay",
        "detect_format",
        "dissect",
        "filter_list",
        "flatten",
        "geoip",
        "grok",
        "key_value",
        "list_to_map",
        "lowercase_string",
        "map_to_list",
        "no-op",
        "obfuscate",
        "otel_apm_service_map",
        "otel_metrics",
        "otel_metrics_raw_processor",
        "otel_trace_group",
        "otel_trace_raw",
        "otel_traces",
        "parse_ion",
        "parse_xml",
        "rate_limiter",
        "replace_string",
        "service_map",
        "service_map_stateful",
        "split_event",
        "split_string",
        "string_converter",
        "substitute_string",
        "trace_peer_forwarder",
        "translate",
        "trim_string",
        "truncate",
        "uppercase_string",
        "user_agent",
        "wrap_entries",
        "write_json",
    ),
    _PROCESSOR,
)
OTHER_SINKS = dict.fromkeys(
    (
        "aws_lambda",
        "aws_personalize",
        "cloudwatch_logs",
        "file",
        "http",
        "kafka",
        "otlp",
        "pipeline",
        "prometheus",
        "sns",
        "sqs",
        "stdout",
    ),
    _SINK,
)
