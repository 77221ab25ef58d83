"""Data Prepper's processors that are not supported, each with what to do instead.

Source: the names of the DataPrepperPlugin annotations (2.17).
"""

from __future__ import annotations

_ALTERNATIVE = "transform the rows before they are written to S3, or in an ingest pipeline of the index"

UNSUPPORTED_PROCESSORS = dict.fromkeys(
    (
        *("aggregate", "anomaly_detector", "aws_lambda", "csv", "date", "decompress", "delay", "detect_format"),
        *("dissect", "filter_list", "flatten", "geoip", "grok", "key_value", "list_to_map", "lowercase_string"),
        *("map_to_list", "no-op", "obfuscate", "otel_apm_service_map", "otel_metrics"),
        *("otel_metrics_raw_processor", "otel_trace_group", "otel_trace_raw", "otel_traces", "parse_ion"),
        *("parse_xml", "rate_limiter", "replace_string", "service_map", "service_map_stateful", "split_event"),
        *("split_string", "string_converter", "substitute_string", "trace_peer_forwarder", "translate"),
        *("trim_string", "truncate", "uppercase_string", "user_agent", "wrap_entries", "write_json"),
    ),
    _ALTERNATIVE,
)
