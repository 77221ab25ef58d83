"""What Data Prepper has beside what is done here, so that a file that asks for it learns what to do instead.

Source: the names of the DataPrepperPlugin annotations (2.17).
"""

from __future__ import annotations

_SOURCE = "rows are read from S3 in batches; write them there, and read them with source: {s3: {scan: ...}}"
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
