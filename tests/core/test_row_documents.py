"""Processors of a pipeline of our own: read with the line of each mistake, run as in Data Prepper, all rows counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.row_documents import options_of, vector_fields_of
from opensearch_batch.core.ledger.verdicts import ShardReport
from opensearch_batch.core.pipeline.check import check_pipeline
from opensearch_batch.core.pipeline.file import PipelineFile
from opensearch_batch.services.registry import adapter_of
from tests.core.staged_runs import SOURCE, StagedRuns, vector_of
from tests.lab import Lab

GOOD = """\
source: {uri: s3://documents/in/, prepare: false}
work_prefix: s3://work
id: $.meta.id
batch_predict: {service: sagemaker, model_id: abc}
ingest:
  index: passages
  processors:
    - copy_values:
        entries:
          - {from_key: text, to_key: chapter}
          - {from_key: SageMakerOutput, to_key: v}
    - delete_entries: {with_keys: [text, SageMakerOutput]}
  when: /chapter != null and /title != null
tests:
  - name: a
    records: [{text: a, title: t, meta: {id: 5}}, {text: b}, {text: c, title: d}, {text: e, title: t}]
    outputs:
      - {text: a, title: t, meta: {id: 5}, SageMakerOutput: [1.5]}
      - {text: b, SageMakerOutput: [1.5]}
      - {text: c, title: d, SageMakerOutput: [2]}
      - {text: e, title: t, SageMakerInferenceError: too long}
    documents: [{_id: "5", chapter: a, title: t, meta: {id: 5}, v: [1.5]}, {chapter: c, title: d, v: [2]}]
    dead_letters: [too long]
"""


def spec_file(folder: Path, text: str) -> Path:
    """Write a pipeline file."""
    (folder / "pipelines").mkdir(exist_ok=True)
    path = folder / "pipelines" / "books.yaml"
    path.write_text(text)
    return path


def test_the_tests_of_a_file_go_through_its_processors(tmp_path: Path) -> None:
    """A row that `when` keeps out is neither document nor dead letter."""
    path = spec_file(tmp_path, GOOD)
    assert check_pipeline(path, adapter_of).mistakes == []
    path.write_text(GOOD.replace("title: d, v: [2]", "title: x, v: [2]"))
    (mistake,) = check_pipeline(path, adapter_of).mistakes
    assert mistake == f'{path}:15 tests[0]: a (sagemaker): documents[1].title: "d", expected "x"'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("copy_values:", "copy_value:", r"yaml:8 ingest.processors\[0\].copy_value: unknown .* 'copy_values'\?"),
        ("with_keys", "with_key", r"yaml:12 ingest.processors\[1\].delete_entries.with_key: .* 'with_keys'\?"),
        (
            "from_key: text",
            "from_key: 'a|b'",
            r"yaml:10 ingest.processors\[0\].copy_values.entries\[0\].from_key: .*key",
        ),
        ("from_key: text, ", "", r"yaml:10 ingest.processors\[0\].copy_values.entries\[0\]: from_key is missing"),
        (
            "copy_values:",
            "ml_inference:",
            r"yaml:8 .*ml_inference: this processor is not supported: remove this processor; batch_predict of",
        ),
        ("copy_values:", "grok:", r"yaml:8 ingest.processors\[0\].grok: this processor is not supported"),
        ("/chapter != null", "/chapter = null", r"yaml:13 ingest.when: .* use == for equality"),
        ("  when:", "  field_map: {a: $.a}\n  when:", r"yaml:13 ingest.field_map: cannot be combined with processors"),
        ("  when:", "  on_missing: omit\n  when:", r"yaml:13 ingest.on_missing: cannot be combined with processors"),
        (
            "  when:",
            "  on_unmatched: fail\n  when:",
            r"yaml:13 ingest.on_unmatched: with processors, a record without a prediction always becomes a dead letter",
        ),
        ("  when:", "  routing: $\n  when:", r"yaml:13 ingest.routing: routing '\$' does not name a member"),
        ("id: $.meta.id", "id: $.meta[-1]", r"yaml:3 id: id '\$.meta\[-1\]' does not name a member"),
        ("  processors:\n", "  processors: {}\n  xs:\n", r"yaml:7 ingest.processors: Expected `array"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    """As any other one of the file."""
    with pytest.raises(ConfigError, match=message):
        PipelineFile(spec_file(tmp_path, GOOD.replace(old, new)), adapter_of)


@pytest.mark.parametrize(
    ("ingest", "message"),
    [
        ("{index: passages}", r"yaml:4 ingest: field_map is missing; write field_map: .*, or processors"),
        (
            "{index: passages, field_map: {a: $.a}, when: /a == 1}",
            r"yaml:4 ingest.when: when works only with processors; replace field_map with processors, or remove when",
        ),
    ],
)
def test_one_of_map_and_processors_makes_the_documents(tmp_path: Path, ingest: str, message: str) -> None:
    """And a condition is asked of what processors leave."""
    head = (
        "source: {uri: s3://documents/in/}\nwork_prefix: s3://w\nbatch_predict: {service: sagemaker, model_id: abc}\n"
    )
    with pytest.raises(ConfigError, match=message):
        PipelineFile(spec_file(tmp_path, f"{head}ingest: {ingest}\n"), adapter_of)


def test_a_row_has_to_hold_its_record(tmp_path: Path) -> None:
    """Else no processor would find it; the check knows before anything is paid."""
    batch_predict = "batch_predict: {service: sagemaker, model_id: abc, parameters: {DataProcessing: {}}}"
    text = GOOD.replace("batch_predict: {service: sagemaker, model_id: abc}", batch_predict)
    (mistake,) = check_pipeline(spec_file(tmp_path, text.replace(", prepare: false", "")), adapter_of).mistakes
    assert (
        "books.yaml:4 batch_predict: ingest.processors: output rows of sagemaker do not contain their records"
        in mistake
    )


def test_options_are_read_as_data_prepper_reads_them(tmp_path: Path) -> None:
    """A text that YAML takes for a number stays one, and what a task gets means the same."""
    text = GOOD.replace("to_key: chapter", "to_key: 1.50, overwrite_if_to_key_exists: 'TRUE'")
    processors = PipelineFile(spec_file(tmp_path, text), adapter_of).spec.ingest.processors or []
    entry = processors[0]["copy_values"]["entries"][0]
    assert (entry["to_key"], entry["overwrite_if_to_key_exists"]) == ("1.50", True)
    kept = [{name: msgspec.to_builtins(options)} for name, options in options_of(processors)]
    assert kept == processors
    assert vector_fields_of(processors, ["SageMakerOutput"]) == ["v"]


@pytest.mark.parametrize("said", [{}, {"copy_values": {}, "drop_events": {}}, {"grok": {}}, {"copy_values": {"a": 1}}])
def test_a_task_that_is_given_no_processor_says_so(said: dict[str, Any]) -> None:
    """Of a DAG that somebody writes by hand."""
    with pytest.raises(ConfigError, match=r"^processors\[0\]"):
        options_of([said])


PROCESSORS: list[dict[str, Any]] = [
    {"copy_values": {"entries": [{"from_key": "SageMakerOutput", "to_key": "v"}]}},
    {"drop_events": {"drop_when": '/text == "no"'}},
    {"delete_entries": {"with_keys": ["SageMakerOutput"]}},
]
VECTOR = {"type": "knn_vector", "dimension": 2, "method": {"name": "hnsw", "engine": "lucene"}}
BODY = {
    "settings": {"index.knn": True, "number_of_replicas": 0},
    "mappings": {"properties": {"v": VECTOR, "n": {"type": "integer"}}},
}


class Run:
    """A run over one shard; repair makes dead letters of the records without a prediction."""

    def __init__(self, lab: Lab, index: str) -> None:
        self.lab, self.index = lab, index
        self.runs = StagedRuns(
            lab.objects,
            lab.cluster(),
            service="sagemaker",
            index=index,
            work_prefix=f"s3://{lab.new_bucket()}",
            field_map={},
            processors=PROCESSORS,
            when="/title != null",
        )
        self.runs.fails = {"d": "too long"}

    def ingest(self) -> list[ShardReport]:
        """Ingest the records, and those that repair returns."""
        records: list[dict[str, Any]] = [
            {"_id": "a", "text": "a", "title": "t"},
            {"_id": "b", "text": "b"},
            {"_id": "c", "text": "no", "title": "t"},
            {"_id": "d", "text": "d", "title": "t"},
            {"_id": "f", "text": "f", "title": "t", "n": "no number"},
            {"text": "g", "title": "t"},
        ]
        shard = self.runs.stage(records)
        return [self.runs.ingest(shard), self.runs.ingest(self.runs.repair(shard, job=False))]

    def documents(self) -> dict[str, Any]:
        """Return the documents of the index by their ids."""
        return self.lab.documents(self.index)


def test_every_record_of_a_shard_is_written_a_dead_letter_or_counted(lab: Lab, index: str) -> None:
    """What processors drop and what no condition takes is counted; the service's error is a dead letter."""
    lab.cluster().create_index(index, BODY)
    run = Run(lab, index)
    report, repaired = run.ingest()
    counts = report.counts
    assert (counts.read, counts.indexed, counts.dead_letters, counts.unrouted, counts.dropped) == (5, 2, 1, 1, 1)
    assert (repaired.counts.read, repaired.counts.dead_letters) == (1, 1)
    assert "1 of 5 rows unrouted: the condition `when` does not hold for them" in report.remarks[0]
    documents = run.documents()
    assert documents.pop("a") == {"text": "a", "title": "t", "v": vector_of("a")}
    (unnamed,) = documents.values()
    assert unnamed["text"] == "g"
    letters = [letter for each in (report, repaired) for letter in run.runs.letters(each)]
    assert [(letter.source, letter.line) for letter in letters] == [(SOURCE, 5), (SOURCE, 4)]


def test_a_replay_has_the_processors_and_takes_no_map_for_them(lab: Lab, index: str) -> None:
    """A letter whose cause is mended becomes its document; a field map would make another one."""
    loose = {**BODY, "mappings": {"properties": {"v": VECTOR, "n": {"type": "keyword"}}}}
    lab.cluster().create_index(index, BODY)
    run = Run(lab, index)
    # Its letters are not in the ledger.
    run.runs.prepare("trial", trial=True)
    report, repaired = run.ingest()
    with pytest.raises(ConfigError, match="went through processors, which a field map cannot replace"):
        run.runs.replay(report, IngestRequest(index, {"text": "$.text"}))
    lab.node("DELETE", index)
    lab.cluster().create_index(index, loose)
    found = [run.runs.replay(each) for each in (report, repaired)]
    assert [(each.read, each.indexed, each.dead_letters) for each in found] == [(1, 1, 0), (1, 0, 1)]
    assert run.documents() == {"f": {"text": "f", "title": "t", "n": "no number", "v": vector_of("f")}}
