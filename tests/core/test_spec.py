"""A pipeline file is accepted whole, or refused with file, line, cause and the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline_file import load

GOOD = """\
source:
  uri: s3://documents/in/
work: s3://work
batch_predict:
  service: sagemaker
  model_id: abc
ingest:
  index: passages
  field_map:
    text: $.text
"""


def spec_file(folder: Path, text: str) -> Path:
    """Write a pipeline file."""
    path = folder / "books.yaml"
    path.write_text(text)
    return path


def test_the_shortest_pipeline_has_its_defaults(tmp_path: Path) -> None:
    """What is not said has a default."""
    spec = load(spec_file(tmp_path, GOOD))
    assert (spec.connections.opensearch, spec.shard.max_records, spec.batch_predict.poll_every_s) == (
        "opensearch_default",
        10_000,
        30.0,
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("service: s", "servce: s", r"books.yaml:5 batch_predict.servce: unknown key. Did you mean 'service'\?"),
        ("sagemaker", "sagemakr", r"books.yaml:5 batch_predict.service: no AI service 'sagemakr'.*'sagemaker'\?"),
        ("index: passages", "index: 5", r"books.yaml:8 ingest.index: Expected `str`, got `int`"),
        ("text: $.text", "text: source[1].$.text", r"books.yaml:9 ingest.field_map: field_map.text: no source\[1\]"),
        ("uri: s3://documents/in/", "uri: /documents", r"books.yaml:2 source.uri: '/documents' is no S3 location"),
        ("model_id: abc", "dimension: 4", "books.yaml:4 batch_predict: give one of model_id, stack and connector"),
        ("work: s3://work", "work s3://work", r"books.yaml:\d no YAML"),
        ("work: s3://work\n", "", r"books.yaml:1 pipeline: work is missing; write work: "s3://my-work-bucket""),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Each message says where and what to write instead."""
    with pytest.raises(ConfigError, match=message):
        load(spec_file(tmp_path, GOOD.replace(old, new)))
