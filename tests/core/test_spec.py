"""A pipeline file is accepted whole, or refused with file, line, cause and the nearest right name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline.file import PipelineFile
from opensearch_batch.core.pipeline.rules import mode_of
from opensearch_batch.core.pipeline.spec_reference import page, schema
from opensearch_batch.services.registry import adapter_of, names

GOOD = """\
source:
  uri: s3://documents/in/
work_prefix: s3://work
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
    spec = PipelineFile(spec_file(tmp_path, GOOD), adapter_of).spec
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
        ("documents/in/", "documents/in", r"books.yaml:2 source.uri: .* must end with a slash: write s3://documents/in/;"),
        ("documents/in/", "documents/dt={{ ds }}", r"books.yaml:2 source.uri: .* a prefix must end with a slash"),
        ("s3://documents/in/", "s3://documents", r"yaml:2 source.uri: .* write s3://documents/ to read all"),
        ("s3://documents/in/", "s3://work/in/", r"yaml:2 source.uri: source s3://work/in/ and work prefix s3://work"),
        ("uri: s3://documents/in/", "uri: /documents", r"books.yaml:2 source.uri: '/documents' is not an S3 location"),
        (
            "model_id: abc", "dimension: 4",
            "books.yaml:4 batch_predict: set exactly one of model_id, stack and connector",
        ),
        ("work_prefix: s3://work", "work s3://work", r"books.yaml:\d not valid YAML"),
        (
            "work_prefix: s3://work\n", "",
            "books.yaml:1 pipeline: work_prefix is missing; write work_prefix: .s3://my-work-bucket",
        ),
        ("text: $.text", "text: $.text\n    text: $.body", r"yaml:11 ingest.field_map.text: duplicate key, .* line 10"),
        ("    text: $.text\n", "    [1, 2]\n", r"books.yaml:9 ingest.field_map: Expected `object`.*write field_map"),
        (
            "work_prefix: s3://work", "work_prefix: s3://work\nid: $.a\nid: $.b",
            r"yaml:5 id: duplicate key, first defined on line 4",
        ),
        ("text: $.text", "text: $.text\n    _id: $.a\nid: $.b", r"books.yaml:12 id: ingest.field_map also maps _id"),
        ("index: passages", "index: Passages", r"books.yaml:8 ingest.index: .* Did you mean 'passages'\?"),
        ("index: passages", "index: p\n  on_missing: {body: omit}", r"yaml:9 ingest.on_missing: body: no such field"),
        ("index: passages", "index: p\n  load: {refresh_interval: x}", r"books.yaml:9 ingest.load.refresh_interval"),
        ("index: passages", "index: p\n  on_missing: {text: omitt}", r"ingest.on_missing: 'omitt' is .*'omit'\?"),
        ("index: passages", "index: p\n  op_type: upser", r"yaml:9 ingest.op_type: 'upser' .* Did you mean 'upsert'"),
        ("documents/in/", "documents/{{ dss }}/", r"books.yaml:2 source.uri: unknown variable \{\{ dss \}\}.*'ds'\?"),
        ("documents/in/", "documents/{{ partition_key }}/", r"books.yaml:1 schedule: source.uri contains"),
        ("model_id: abc", "model_id: abc\n  input: $.*", r"books.yaml:7 batch_predict.input: .* is not a plain path"),
        (
            "model_id: abc", "model_id: abc\n  instead: {openai: {}}",
            r"books.yaml:7 batch_predict.instead.openai: set exactly one of model_id",
        ),
        ("model_id: abc", "model_id: abc\n  instead: {gpt: {model_id: a}}", r"books.yaml:7 .*: no AI service 'gpt'"),
        (
            "work_prefix: s3", "schedule: 0 2 * *\nwork_prefix: s3",
            r"books.yaml:3 schedule: '0 2 \* \*' is not a cron expression",
        ),
        (
            "work_prefix: s3", "schedule: '@dayly'\nwork_prefix: s3",
            r"books.yaml:3 schedule: .* Did you mean '@daily'\?",
        ),
        (
            "work_prefix: s3", "schedule: {cron: '@daily', timezone: Mars/X}\nwork_prefix: s3",
            r"unknown time zone 'Mars/X'",
        ),
        (
            "work_prefix: s3", "schedule: {timezone: UTC}\nwork_prefix: s3",
            r"set exactly one of cron, partitions, .*; found none",
        ),
        (
            "work_prefix: s3", "schedule: {cron: '@daily', assets: [a]}\nwork_prefix: s3",
            r"set exactly one of cron, partitions, .*; found cron and assets",
        ),
        (
            "work_prefix: s3", "alerts: {email: a@b.c}\nwork_prefix: s3",
            r"yaml:3 alerts.email: Expected `array`.*write email: \[",
        ),
        (
            "work_prefix: s3", "tests: [{name: a, records: [], documents: []}]\nwork_prefix: s3",
            r"yaml:3 tests\[0\]: set exactly one of",
        ),
        (
            "work_prefix: s3", "tests:\n- name: 1\nwork_prefix: s3",
            r"books.yaml:4 tests\[0\].name: Expected `str`, got `int`",
        ),
        ("work_prefix: s3", "work_prefix: /tmp", r"books.yaml:3 work_prefix: .*write work_prefix: .s3://"),
        ("in/\n", "in/\n  mode: snapshots\n", r"yaml:3 source.mode: 'snapshots' is .* Did you mean 'snapshot'\?"),
        ("in/\n", "in/\n  on_removed: delete\n", r"yaml:3 source.on_removed: without _id, the documents to delete"),
        (
            "in/\n", "in/\n  mode: append\n  on_removed: delete\nid: $.id\n",
            r"yaml:4 source.on_removed: in mode append \(source.mode\) no record counts as removed; write mode: snap",
        ),
        ("in/\n", "in/\n  max_removed: 20\n", r"yaml:3 source.max_removed: Expected `str`, got `int`; write max_rem"),
        ("in/\n", "in/\n  deleted: {path: $.op}\n", r"yaml:3 source.deleted: equals is missing; write equals: .dele"),
        (
            "in/\n", "in/\n  deleted: {path: $.*, equals: x}\nid: $.id\n",
            r"yaml:3 source.deleted.path: '\$.\*' is not a plain path",
        ),
        (
            "in/\n", "in/\n  deleted: {path: $.op, equals: x}\n",
            r"yaml:3 source.deleted: without _id, the documents to delete",
        ),
        (
            "in/\n", "in/\n  prepare: false\n  deleted: {path: $.op, equals: x}\nid: $.id\n",
            r"yaml:4 source.deleted: prepare: false submits an object unchanged, with its tombstones",
        ),
        ("model_id: abc", "model_id: abc\n  repair_rounds: 2", r"repair_rounds: unknown key. Did you mean 'repair_at"),
        ("model_id: abc", "model_id: abc\n  predictions: share", r"'share' is .* Did you mean 'shared'\?"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Each message says where and what to write instead."""
    with pytest.raises(ConfigError, match=message):
        PipelineFile(spec_file(tmp_path, GOOD.replace(old, new)), adapter_of)


@pytest.mark.parametrize(
    ("schedule", "uri"),
    [
        ("{new_objects: {poll_every_s: 5}}", "s3://documents/{{ ds }}/"),
        ("{assets: [a]}", "s3://documents/{{ ds }}/"),
        ('{partitions: "@daily"}', "s3://documents/{{ ds }}/"),
        ("none", "s3://documents/{{ partition_key }}/"),
    ],
)
def test_a_template_needs_a_run_that_has_the_value(tmp_path: Path, schedule: str, uri: str) -> None:
    """Else every run would fail."""
    text = GOOD.replace("s3://documents/in/", f'"{uri}"') + f"schedule: {schedule}\n"
    with pytest.raises(ConfigError, match=r"books.yaml:11 schedule: "):
        PipelineFile(spec_file(tmp_path, text), adapter_of)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("", {}),
        ("on_missing: omit", {"*": "omit"}),
        ("on_missing: {text: null, '*': dead_letter}", {"text": "null", "*": "dead_letter"}),
    ],
)
def test_what_a_missing_value_does_is_said_for_all_or_by_field(
    tmp_path: Path, said: str, found: dict[str, str]
) -> None:
    """YAML reads the word null as nothing; here it is the word."""
    text = GOOD.replace("  field_map", f"  {said}\n  field_map")
    assert PipelineFile(spec_file(tmp_path, text), adapter_of).spec.on_missing == found


@pytest.mark.parametrize(("said", "cron"), [("none", None), ("'@daily'", "@daily"), ("0 2 * * *", "0 2 * * *")])
def test_a_schedule_may_be_short(tmp_path: Path, said: str, cron: str | None) -> None:
    """One text, or its parts."""
    assert PipelineFile(spec_file(tmp_path, f"{GOOD}schedule: {said}\n"), adapter_of).spec.when.cron == cron


@pytest.mark.parametrize(
    ("source", "schedule", "mode"),
    [
        ("", "", "snapshot: each run reads the whole source"),
        ("", "schedule: '@daily'", "snapshot: each run reads the whole source"),
        ("dt={{ ds }}/", "schedule: '@daily'", "append: each run reads a partition or date of its own"),
        ("{{ partition_key }}/", "schedule: {partitions: '@daily'}", "append: each run reads a partition or date of"),
        ("", "schedule: {new_objects: {}}", "append: runs are started by new objects"),
        ("\n  mode: snapshot", "schedule: {new_objects: {}}", "snapshot: source.mode"),
        ("\n  mode: append", "", "append: source.mode"),
        ("index", "schedule: '@daily'", "snapshot: each run lists the whole index"),
    ],
)
def test_absence_means_what_the_source_is(tmp_path: Path, source: str, schedule: str, mode: str) -> None:
    """Unless the file decides it."""
    text = GOOD.replace("/in/", f"/in/{source}") + schedule
    if source == "index":
        text = GOOD.replace("uri: s3://documents/in/", "index: products") + schedule
    assert "{}: {}".format(*mode_of(PipelineFile(spec_file(tmp_path, text), adapter_of).spec)).startswith(mode)


IN_PLACE = (
    GOOD.replace("uri: s3://documents/in/", "index: passages")
    .replace("text: $.text", "embedding: prediction")
    .replace("model_id: abc", "model_id: abc\n  input: $.text")
)


def test_a_pipeline_in_place_keeps_ids_and_routing(tmp_path: Path) -> None:
    """Without a word about them; with another name, or another cluster, it is not in place."""
    spec = PipelineFile(spec_file(tmp_path, IN_PLACE), adapter_of).spec
    assert (spec.in_place, spec.source_uri) == (True, "opensearch://opensearch_default/passages/")
    assert (spec.field_map, spec.routing) == ({"_id": "$._id", "embedding": "prediction"}, "$._routing")
    for old, new in (("index: passages\n  field", "index: other\n  field"), ("work", "  opensearch_conn_id: o\nwork")):
        other = PipelineFile(spec_file(tmp_path, IN_PLACE.replace(old, new, 1)), adapter_of).spec
        assert (other.in_place, other.routing) == (False, "$._routing")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  field_map", "  ingest_fields: [$.*]\n  field_map", r"ingest.ingest_fields: .* only predictions are"),
        ("  field_map", "  routing: $.shop\n  field_map", r"ingest.routing: .* keeps its routing"),
        ("  field_map", "  ingest_pipeline: dates\n  field_map", r"ingest.ingest_pipeline: "),
        ("  field_map", "  op_type: upsert\n  field_map", r"ingest.op_type: .* each document is updated"),
        ("  field_map", "  on_unmatched: index_partial\n  field_map", r"ingest.on_unmatched: "),
        ("  field_map", "  index_body: passages\n  field_map", r"ingest.index_body: .* the index exists"),
        ("embedding: prediction", "text: $.text", r"ingest.field_map.text: in place, only predictions"),
        ("work_prefix", "id: $.sku\nwork_prefix", r"id: in place, a document keeps its id"),
        ("work_prefix", "  on_removed: delete\nwork_prefix", r"source.on_removed: .* no document is deleted"),
        ("work_prefix", "  deleted: {path: $.op, equals: x}\nwork_prefix", r"source.deleted: .* is deleted"),
        ("\n  input: $.text", "", r"batch_predict: without input"),
        ("work_prefix", "  uri: s3://documents/in/\nwork_prefix", r"source: set exactly one of uri and index"),
        ("work_prefix", "  include: [a]\nwork_prefix", r"source.include: selects objects"),
        ("work_prefix", "  mode: append\nwork_prefix", r"source.mode: the listing of an index is complete"),
        ("work_prefix", "  prepare: false\nwork_prefix", r"source.prepare: documents of an index"),
        ("work_prefix", "schedule: {new_objects: {}}\nwork_prefix", r"schedule: an index has no partitions"),
        ("index: passages\nwork", "uri: s3://a/b/\n  query: {}\nwork", r"source.query: works only with source.index"),
        ("index: passages\nwork", "index: '*'\nwork", r"source.index: '\*' cannot be an index"),
    ],
)  # fmt: skip
def test_a_pipeline_on_an_index_refuses_what_could_harm_it(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Each option that would delete or replace documents, or means nothing there."""
    assert old in IN_PLACE
    with pytest.raises(ConfigError, match=message):
        PipelineFile(spec_file(tmp_path, IN_PLACE.replace(old, new, 1)), adapter_of)


def test_the_reference_and_the_schema_are_of_these_types() -> None:
    """`make reference` writes them."""
    docs = Path(__file__).resolve().parents[2] / "docs" / "reference"
    assert (docs / "pipeline_reference.md").read_text() == page(names())
    assert json.loads((docs / "pipeline.schema.json").read_text()) == schema(names())


def test_every_key_is_explained() -> None:
    """A row of the reference says what it means."""
    rows = [line for line in page(names()).splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert not [row for row in rows if row.endswith("|  |")]


def test_aliases_that_repeat_each_other_are_refused_at_once(tmp_path: Path) -> None:
    """Written out, this file of a few hundred bytes has a billion values: a walk through it would never end."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(ConfigError, match=r"books.yaml:1 more than 100000 values with aliases \(\*name\) expanded"):
        PipelineFile(spec_file(tmp_path, bomb + GOOD), adapter_of)
    with pytest.raises(ConfigError, match="an alias that contains itself"):
        PipelineFile(spec_file(tmp_path, "source: &s {uri: *s}\n"), adapter_of)
    with pytest.raises(ConfigError, match="the maximum is 1000000"):
        PipelineFile(spec_file(tmp_path, "#" * 1_000_001), adapter_of)


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 50_000, "- " * 50_000, "a:\n" + "".join(f"{' ' * n}- \n" for n in range(1, 400))]
)
def test_deep_nesting_is_refused(tmp_path: Path, text: str) -> None:
    """Libyaml ends the process that makes such nodes, and with it the DAGs of all other files."""
    with pytest.raises(ConfigError, match=r"books.yaml:\d+ nested too deeply; at most 100 levels"):
        PipelineFile(spec_file(tmp_path, text), adapter_of)


def test_aliases_may_nest_only_so_deep(tmp_path: Path) -> None:
    """Each alias adds the levels of what it repeats."""
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000))
    with pytest.raises(ConfigError, match=r"books.yaml:1 (nested too deeply|more than 100000 values)"):
        PipelineFile(spec_file(tmp_path, chain), adapter_of)


def test_an_alias_repeats_a_value(tmp_path: Path) -> None:
    """Few aliases are what YAML has them for."""
    text = GOOD.replace("text: $.text", "text: &path $.text\n    body: *path")
    assert PipelineFile(spec_file(tmp_path, text), adapter_of).spec.field_map == {"text": "$.text", "body": "$.text"}
