"""`check` finds what a new user gets wrong: each mistake with its line and remedy, all mistakes of a file at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from opensearch_batch.core.pipeline.check import CheckResult, check_pipeline
from opensearch_batch.services.registry import adapter_of

GOOD = """\
source:
  uri: s3://documents/books/
work_prefix: s3://opensearch-batch
batch_predict:
  service: openai
  connector: openai
  values: {model_name: text-embedding-3-small}
  input: $.text
  dimension: 4
ingest:
  index: books
  index_body: books
  field_map:
    _id: $.id
    text: $.text
    embedding: prediction
tests:
  - name: a book
    records: [{id: 1, text: a cat}]
    predictions: [[0.6, 0.8]]
    documents: [{_id: "1", text: a cat, embedding: [0.6, 0.8]}]
"""
METHOD = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
VECTOR = {"type": "knn_vector", "dimension": 4, "method": METHOD}
BODY: dict[str, Any] = {
    "settings": {"index.knn": True},
    "mappings": {"properties": {"text": {"type": "text"}, "embedding": VECTOR}},
}


def checked(folder: Path, text: str, body: Any = None) -> CheckResult:
    """Check a pipeline with a connector of the package."""
    for name in ("pipelines", "indexes"):
        (folder / name).mkdir()
    (folder / "indexes" / "books.json").write_text(json.dumps(body or BODY))
    path = folder / "pipelines" / "books.yaml"
    path.write_text(text)
    return check_pipeline(path, adapter_of)


def test_a_good_pipeline_has_no_mistake(tmp_path: Path) -> None:
    """Nor a remark."""
    found = checked(tmp_path, GOOD)
    assert (found.mistakes, found.remarks, found.tests) == ([], [], 1)
    assert found.mode == "mode snapshot: each run reads the whole source"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "    text: $.text\n", "    text: $.text\n    lemma: $.lema\n",
            "books.yaml:16 ingest.field_map.lemma: no sample record has $.lema, and the index body has no such field",
        ),
        ("embedding: prediction", "embedding: $.text", "16 ingest.field_map.embedding: a vector in the index body"),
        ("    embedding: prediction\n", "", "ingest.field_map: no field is a prediction, but each run pays"),
        ("documents/books/", "documents/{{ ds }}/", "2 source.uri: {{ ds }} is the date of a scheduled run, but the"),
        ("s3://documents/", "s3://My_Documents/", "2 source.uri: 'My_Documents' cannot be a bucket"),
        ("s3://opensearch-batch", "s3://ob", "3 work_prefix: 'ob' cannot be a bucket"),
        ("  values: {model_name: text-embedding-3-small}\n", "", "add values: {model_name: ...}"),
        (
            "  dimension: 4\n", "  dimension: 4\n  realtime_below: 5\n  parameters: {body: {dimensions: 4}}\n",
            "batch_predict.realtime_below is 5, but the connector's predict action sends",
        ),
        (
            "books/\n", "books/\n  on_removed: delete\nid: $.custom_id\n",
            "3 source.on_removed: needs the id of each document in its record, but _id is mapped to $.custom_id, which",
        ),
    ],
)  # fmt: skip
def test_a_mistake_of_the_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    """What is wrong in the pipeline file."""
    text = GOOD.replace(old, new)
    found = checked(tmp_path, text.replace("    _id: $.id\n", "") if "\nid: " in text else text)
    assert any(message in mistake for mistake in found.mistakes), found.mistakes


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"settings": BODY["settings"], "mapping": BODY["mappings"]}, "unknown member 'mapping'; known: settings"),
        ({**BODY, "mappings": {"properties": {"text": {"type": "txt"}}}}, "field text: unknown type 'txt'. Did"),
        ({"mappings": BODY["mappings"]}, 'vectors are searched only with settings: {"index.knn": true}'),
        (
            {**BODY, "mappings": {"properties": {"embedding": {**VECTOR, "method": {**METHOD, "engine": "lucen"}}}}},
            "field embedding: unknown engine 'lucen'; known: lucene, faiss, nmslib. Did you mean 'lucene'?",
        ),
        (
            {**BODY, "mappings": {"properties": {"embedding": {"type": "float"}}}},
            "ingest.field_map.embedding: mapped as float in the index body, so its vectors cannot be searched",
        ),
    ],
)  # fmt: skip
def test_a_mistake_of_the_index_body(tmp_path: Path, body: Any, message: str) -> None:
    """What OpenSearch would refuse, or what would make the vectors unsearchable."""
    found = checked(tmp_path, GOOD, body)
    assert any(message in mistake for mistake in found.mistakes), found.mistakes


def test_no_id_is_a_remark(tmp_path: Path) -> None:
    """Documents without an id are identified by their place, which may be what is wanted."""
    found = checked(tmp_path, GOOD.replace("    _id: $.id\n", "").replace('_id: "1", ', ""))
    assert len(found.remarks) == 1
    assert "13 ingest.field_map: no id" in found.remarks[0]


def test_a_field_beside_the_one_that_was_meant_is_a_remark(tmp_path: Path) -> None:
    """OpenSearch would map it dynamically, and the field of the body would stay empty."""
    found = checked(
        tmp_path, GOOD.replace("    text: $.text\n", "    txet: $.text\n").replace("text: a cat, e", "txet: a cat, e")
    )
    assert found.mistakes == []
    assert len(found.remarks) == 1
    assert "15 ingest.field_map.txet: not a field of the index body. Did you mean 'text'?" in found.remarks[0]


def test_all_mistakes_of_a_file_at_once(tmp_path: Path) -> None:
    """Of types and keys, and then of rules."""
    text = GOOD.replace("  dimension: 4", "  dimension: four\n  inptu: $.text").replace("retention", "")
    found = checked(tmp_path, f"{text}ownr: me\nretention_days: long\n")
    for part in ("batch_predict.dimension", "batch_predict.inptu", "ownr", "retention_days"):
        assert any(f" {part}: " in mistake for mistake in found.mistakes), found.mistakes


def test_all_broken_rules_at_once(tmp_path: Path) -> None:
    """A person does not correct one to be told of the next."""
    text = GOOD.replace("index: books", "index: Books", 1).replace("work_prefix", "schedule: 0 2 * *\nwork_prefix")
    found = checked(tmp_path, text)
    for part in ("schedule", "ingest.index"):
        assert any(f" {part}: " in mistake for mistake in found.mistakes), found.mistakes
