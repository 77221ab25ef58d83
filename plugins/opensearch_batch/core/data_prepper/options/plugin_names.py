"""Sources and sinks of Data Prepper that are not supported, and the alternative.

Source: the names of the DataPrepperPlugin annotations (2.17).
"""

from __future__ import annotations

_SOURCE = "write the rows to S3 and read them with source: {s3: {scan: ...}}"
_SINK = "use opensearch or s3"

OTHER_SOURCES = dict.fromkeys(
    (
        *("cloudwatch", "documentdb", "dynamodb", "file", "http", "iceberg", "kafka", "kinesis"),
        *("log_generator", "mongodb", "opensearch", "opensearch_api", "otel_logs_source"),
        *("otel_metrics_source", "otel_trace_source", "otlp", "pipeline", "prometheus", "random", "rds", "rss"),
        *("sqs", "stdin"),
    ),
    _SOURCE,
)
OTHER_SINKS = dict.fromkeys(
    (
        *("aws_lambda", "aws_personalize", "cloudwatch_logs", "file", "http", "kafka", "otlp", "pipeline"),
        *("prometheus", "sns", "sqs", "stdout"),
    ),
    _SINK,
)
