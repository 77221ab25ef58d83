"""A pipeline that says only what it must; more is put where a comment names the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile

SHORT = """\
version: '2'
# file
books:
  # pipeline
  source:
    s3:
      # source
      codec: {ndjson: {}}
      scan:
        # scan
        buckets:
          - bucket:
              # bucket
              name: documents
      aws: {region: us-east-1}
  processor:
    - ml_inference:
        # ml
        host: https://localhost:9200
        model_id: abc
        output_path: s3://documents/output
        aws: {region: us-east-1}
    - s3_enrich:
        # enrich
        bucket: {name: documents}
        codec: {ndjson: {}}
        s3_key_path: s3/key
        s3_object_name_pattern: (.*)[.]out
        correlation_keys: [id]
        keys_to_merge: [title]
        aws: {region: us-east-1}
  sink:
    - opensearch:
        # opensearch
        hosts: [https://localhost:9200]
        index: passages
    - s3:
        # archive
        bucket: archive
        codec: {ndjson: {}}
        threshold: {event_collect_timeout: 60s}
        aws: {region: us-east-1}
"""
PARTS = {
    "source": "source",
    "scan": "source.scan",
    "bucket": "source.scan.buckets.0.bucket",
    "ml": "processors.0.2",
    "enrich": "processors.1.2",
    "opensearch": "sinks.0.1",
    "archive": "sinks.1.1",
}


def with_options(place: str, options: str) -> str:
    """Return the pipeline with options where a comment names the place; a required one is replaced where it stands."""
    text = SHORT
    lines = text.splitlines()
    at = next(at for at, line in enumerate(lines) if line.strip() == f"# {place}")
    indent = lines[at].partition("#")[0]
    replaced = {f"{indent}{line.partition(':')[0]}:" for line in options.splitlines() if line[:1] not in (" ", "-")}
    rest, inside, dropped = [], True, False
    for line in lines[at + 1 :]:
        inside = inside and line.startswith(indent)
        dropped = inside and (line.partition(":")[0] + ":" in replaced or (dropped and line.startswith(f"{indent} ")))
        if not dropped:
            rest.append(line)
    return "\n".join([*lines[:at], *(indent + line for line in options.splitlines()), *rest]) + "\n"


def line_of(place: str) -> int:
    """Return the line in which the first of the options stands."""
    return next(at for at, line in enumerate(SHORT.splitlines(), 1) if line.strip() == f"# {place}")


def read(folder: Path, text: str) -> DataPrepperFile:
    """Read a text as a file."""
    path = folder / "books.yaml"
    path.write_text(text, encoding="utf-8")
    return DataPrepperFile(path)


def value_at(part: Any, path: str) -> Any:
    """Return what stands at a path of attributes, elements and members."""
    for name in path.split("."):
        if isinstance(part, dict):
            part = part[name]
        elif isinstance(part, (tuple, list)):
            part = part[int(name)]
        else:
            part = getattr(part, name)
    return part


def option(folder: Path, place: str, options: str, path: str) -> Any:
    """Return what an option is read as."""
    pipeline = read(folder, with_options(place, options)).pipelines[0]
    return value_at(pipeline, f"{PARTS[place]}.{path}")
