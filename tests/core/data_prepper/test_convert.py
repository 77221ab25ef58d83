"""A converted pipeline makes the same documents as the file it comes from, or the file is refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline, now
from opensearch_batch.core.data_prepper.convert import Converted, convert
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.sink_settings import index_item_factory
from opensearch_batch.core.data_prepper.work_item_ingest import Origins
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.documents import Reading
from opensearch_batch.core.ingest.event_documents import EventDocuments, EventOptions
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.ingest.row_documents import row_documents
from opensearch_batch.core.ingest.sinks.base import Item
from opensearch_batch.core.ingest.sinks.bulk_lines import fields_of
from opensearch_batch.core.pipeline.check import check_pipeline
from opensearch_batch.core.pipeline.file import PipelineFile
from opensearch_batch.core.pipeline.spec import PipelineSpec
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.rows import Filtered, Rejected, Row, Source
from opensearch_batch.services.registry import adapter_of, row_errors
from tests.command_line import account, command
from tests.core.data_prepper.samples import ARRAYS, NAME, changed, filled
from tests.examples import examples

GOLDEN = Path(__file__).with_name("converted")
SINK = "        index: test-nlp-index\n"
SINK_ROUTES = "        routes:\n          - ml-ingest-route\n"
ROUTES = "  routes:\n    - ml-ingest-route: /chapter != null and /title != null\n"
INPUTS = "                  - sagemaker/sagemaker_djl_batch_input\n"
DELETE = "    - delete_entries:\n        with_keys:\n          - text\n          - SageMakerOutput\n"
OUTPUTS = "                  - sagemaker/output/\n"
S3_SINK = "    - s3: {bucket: abc, codec: {ndjson: {}}, aws: {}, threshold: {event_collect_timeout: 60s}}\n"
ENRICH = (
    "    - s3_enrich: {bucket: {name: documents}, codec: {ndjson: {}}, s3_key_path: s3/key, "
    "s3_object_name_pattern: (.*), correlation_keys: [id], keys_to_merge: [a], aws: {}}\n"
)
OUTPUT_BUCKET = "              data_selection: data_only\n"
OTHER_SINK = (
    "    - opensearch:\n        hosts: [{host}]\n        aws: {{}}\n        index: others\n        routes: [{route}]\n"
)
HOST = "https://search-AWStest-offlinebatch-123456789abcdef.us-west-2.es.amazonaws.com"


def read(folder: Path, text: str) -> DataPrepperFile:
    """Write a Data Prepper file and read it."""
    path = folder / "sample.yaml"
    path.write_text(text)
    return DataPrepperFile(path)


def converted(folder: Path, text: str) -> list[Converted]:
    """Convert the one pipeline of a text."""
    file = read(folder, text)
    return convert(file, file.pipelines[0])


def spec_of(folder: Path, each: Converted) -> PipelineSpec:
    """Read a converted pipeline as it would be saved."""
    (folder / "pipelines").mkdir(exist_ok=True)
    path = folder / "pipelines" / f"{each.name}.yaml"
    path.write_text(each.text)
    assert check_pipeline(path, adapter_of).mistakes == []
    return PipelineFile(path, adapter_of).spec


@pytest.mark.parametrize(("name", "text"), [("texts", filled()), ("arrays", filled(ARRAYS))])
def test_the_printed_samples_are_said_as_our_own(tmp_path: Path, name: str, text: str) -> None:
    """Word for word, and without a mistake."""
    (each,) = converted(tmp_path, text)
    assert each.text == (GOLDEN / f"{name}.yaml").read_text()
    assert each.name == NAME
    spec = spec_of(tmp_path, each)
    assert (spec.source.uri, spec.source.prepare) == ("s3://documents/sagemaker/sagemaker_djl_batch_input**", False)
    assert (spec.when.new_objects and spec.when.new_objects.poll_every_s) == 360


class Both:
    """One pipeline of a file and what it is converted to, over the same rows."""

    def __init__(self, folder: Path, text: str) -> None:
        file = read(folder, text)
        self._compiled = CompiledPipeline(file, file.pipelines[0])
        (each,) = convert(file, file.pipelines[0])
        spec = spec_of(folder, each)
        ingest = spec.ingest
        self._request = IngestRequest(
            ingest.index,
            spec.field_map,
            op_type=ingest.op_type,
            routing=ingest.routing,
            processors=ingest.processors,
            when=ingest.when,
        )
        self._objects = LocalFiles(folder)
        self._rows: list[bytes] = []

    def _read(self, objects: Any, number: int, source: Source) -> Any:  # noqa: ARG002 - of `Read`
        for at, row in enumerate(self._rows):
            yield Row(0, "s3://documents/output.out", at + 1, 0, row)

    def of(self, rows: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return what becomes of rows by the file, and by the converted pipeline."""
        self._rows = [msgspec.json.encode(row) for row in rows]
        source = [Source("output", ())]
        sink = self._compiled.pipeline.sinks[0][1]
        assert isinstance(sink, OpenSearchSink)
        items = index_item_factory(sink, now(), lambda name: None, Origins().origin_of)  # noqa: ARG005 - one index
        reading = Reading(self._objects, self._read, row_errors())
        original = EventDocuments(self._compiled.flow(), EventOptions(items), source, reading)
        ours = row_documents(self._request, source, reading)
        return [_told(entry) for entry in original], [_told(entry) for entry in ours]


def _told(entry: Any) -> Any:
    if isinstance(entry, Item):
        return entry.id, b"".join(entry.pieces).partition(b"\n")[0], fields_of(entry)
    return entry.why if isinstance(entry, Filtered) else entry.reason if isinstance(entry, Rejected) else None


LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab/", max_size=3)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner))
NAMES = ("_id", "text", "title", "chapter", "content", "SageMakerOutput", "SageMakerInferenceError", "error", "more")
ROWS = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES), max_size=6)
# With an id and a routing of the row's, another action, and two routes of which one is the rest.
RICH = (
    (SINK, f"{SINK}        document_id: ${{/more/a}}\n        routing: ${{title}}\n        action: create\n"),
    (SINK_ROUTES, "        routes: [named, _default]\n"),
    (ROUTES, "  routes:\n    - named: /chapter != null\n    - other: /title == 3 or /more in {1, 2}\n"),
)


@pytest.mark.parametrize("text", [filled(), filled(ARRAYS), changed(*RICH)], ids=["texts", "arrays", "rich"])
def test_the_documents_are_equal_and_so_are_the_rows_that_are_none(tmp_path: Path, text: str) -> None:
    """Whatever is missing, null or nested."""
    both = Both(tmp_path, text)

    @settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
    @given(ROWS)
    def same(rows: list[Any]) -> None:
        original, ours = both.of(rows)
        # Data Prepper uses the text of an array or object as id or routing.
        assert [
            (one, other) for one, other in zip(original, ours, strict=True) if one != other and not _odd(other)
        ] == []

    same()
    whole = {"_id": 7, "text": "a", "title": "b", "content": ["a", "b"], "SageMakerOutput": [0.5, 1.5]}
    original, ours = both.of([whole, {**whole, "content": None, "title": None}, {"SageMakerInferenceError": "long"}])
    assert original == ours
    assert {type(told) for told in ours} == {tuple, str}


def _odd(told: Any) -> bool:
    return isinstance(told, str) and "is an array or object" in told


def test_each_sink_is_a_pipeline_and_the_job_is_theirs_together(tmp_path: Path) -> None:
    """Below the same work, with the same inputs; the rest is for whom no route is."""
    sink = OTHER_SINK.format(host=HOST, route="_default")
    first, second = converted(tmp_path, changed((f"{SINK}", f"{SINK}{sink}")))
    assert [first.name, second.name] == [f"{NAME}-test-nlp-index", f"{NAME}-others"]
    specs = [spec_of(tmp_path, each) for each in (first, second)]
    assert len({(spec.work_prefix, spec.source.uri, spec.batch_predict.model_id) for spec in specs}) == 1
    assert specs[1].ingest.when == "not (/chapter != null and /title != null)"
    assert "each job is paid for once" in " ".join(second.text.split("\n# "))


def test_names_that_airflow_refuses_are_not_advised(tmp_path: Path) -> None:
    """An index may be called what a DAG may not; then sinks have their numbers."""
    sink = OTHER_SINK.format(host=HOST, route="_default")
    text = changed((SINK, f"{SINK.replace('test-nlp-index', 'test+nlp')}{sink}"))
    assert [each.name for each in converted(tmp_path, text)] == [f"{NAME}-1", f"{NAME}-2"]
    long = "a" * 250
    names = [each.name for each in converted(tmp_path, text.replace(f"{NAME}:", f"{long}:"))]
    assert names == [f"{long[:248]}-1", f"{long[:248]}-2"]


SETTINGS = """\
extension:
  opensearch_batch:
    work_prefix: s3://kept/here
    connections: {aws: aws_books, opensearch: opensearch_books}
    alerts: {email: [a@example.com]}
    max_jobs_in_flight: 3
    poll_every_s: 5
    deadline_s: 60
    owner: books
    tags: [a]
"""


def test_what_the_file_says_to_us_alone_is_kept(tmp_path: Path) -> None:
    """Each in its own place."""
    text = changed(("extension:\n  osis_configuration_metadata:\n    builder_type: visual\n", SETTINGS))
    spec = spec_of(tmp_path, converted(tmp_path, text)[0])
    predict = spec.batch_predict
    assert (spec.work_prefix, spec.owner, spec.tags, spec.alerts.email) == (
        "s3://kept/here",
        "books",
        ["a"],
        ["a@example.com"],
    )
    assert (predict.max_jobs_in_flight, predict.poll_every_s, predict.deadline_s) == (3, 5, 60)
    assert (spec.connections.aws, spec.connections.opensearch) == ("aws_books", "opensearch_books")


def test_options_are_kept_or_told(tmp_path: Path) -> None:
    """Windows, sizes, dead letters and a template; no password is ever printed."""
    options = (
        "        dlq: {s3: {bucket: letters, key_path_prefix: books}}\n        bulk_size: 1\n"
        "        normalize_index: true\n        template_content: '{\"mappings\": {}}'\n        number_of_shards: 2\n"
    )
    credentials = "        username: reader\n        password: s3cr3t\n"
    text = changed(
        (SINK, f"        index: Books!\n{options}{credentials}".replace("Books!", "Books")),
        ("        aws:\n          serverless: false\n          region: us-west-2\n", ""),
        ('        action_type: "batch_predict"\n', "        retry_interval: 30s\n        retry_time_window: PT20M\n"),
        ("        scheduling:\n          interval: PT6M\n", ""),
    )
    (each,) = converted(tmp_path, text)
    spec = spec_of(tmp_path, each)
    assert (spec.ingest.index, spec.ingest.max_body_bytes) == ("books", 1 << 20)
    assert spec.ingest.dead_letters == "s3://letters/books/"
    assert (spec.batch_predict.retry_time_window_s, spec.batch_predict.retry_interval_s) == (1200, 30)
    assert spec.schedule is None
    assert "s3cr3t" not in each.text
    assert "--conn-login USER --conn-password PASSWORD" in each.text
    assert '#   {"mappings": {}}\n' in each.text
    assert "Put number_of_shards: 2 in that file" in each.text


def test_two_roles_become_one_connection_that_is_told_to_need_both(tmp_path: Path) -> None:
    """The model is asked and the index written by one connection here."""
    role = "arn:aws:iam::123456789012:role/writer"
    (each,) = converted(tmp_path, changed(("          serverless: false\n", f"          sts_role_arn: {role}\n")))
    notes = " ".join(each.text.split("\n# "))
    assert f"roles for model and index (arn:aws:iam::123456789012:role/Admin and {role})" in notes
    assert "its role needs the permissions of both" in notes
    assert each.text.count("airflow connections add aws_opensearch ") == 1


REFUSED = [
    ([(SINK, "        index: a-${kind}\n")], "index: a pipeline file writes to one index"),
    ([(SINK, "        index: a-%{yyyy}\n")], "index: a pipeline file writes to one index"),
    ([(SINK, f"{SINK}        action: delete\n")], "action: a pipeline file has no action 'delete'"),
    ([(SINK, f"{SINK}        actions: [{{type: index}}]\n")], "actions: a pipeline file has one action for all rows"),
    ([(SINK, f"{SINK}        include_keys: [a]\n")], "include_keys: the document is the row after"),
    ([(SINK, f"{SINK}        exclude_keys: [a]\n")], "exclude_keys: the document is the row after"),
    ([(SINK, f"{SINK}        document_root_key: a\n")], "document_root_key: the document is the row after"),
    ([(SINK, f"{SINK}        tags_target_key: a\n")], "tags_target_key: the document is the row after"),
    ([(SINK, f"{SINK}        document_id: a-${{id}}\n")], "document_id: 'a-${id}' is not a single key"),
    ([(SINK, f"{SINK}        routing: ${{length(/a)}}\n")], "routing: '${length(/a)}' is not a single key"),
    (
        [(SINK_ROUTES, "        routes: [one, two]\n"),
         (ROUTES, "  routes:\n    - one: /a == 1\n    - two: length(/b) == 1\n")],
        "routes: the condition of two can fail for a row",
    ),
    (
        [("  sink:\n", f"  sink:\n{S3_SINK}")],
        "sink[0].s3: a pipeline file writes to an index only",
    ),
    ([("serverless: false", "serverless: true")], "aws.serverless: a pipeline file sends an id with each document"),
    ([(f'hosts: ["{HOST}"]', 'hosts: ["https://other:443"]')], "hosts[0]: a pipeline file uses the model"),
    ([('service_name: "sagemaker"', 'service_name: "bedrock"')], "service_name: output rows of bedrock do not contain"),
    (
        [("        ml_when: /bucket", "        input_key: name\n        ml_when: /bucket")],
        "input_key: a pipeline file submits the listed objects themselves",
    ),
    ([("        ml_when: /bucket", "        retry_time_window: 0s\n        ml_when: /bucket")], "file retries while"),
    ([('/bucket == "documents"', "/key != null")], "ml_when: a pipeline file selects objects by prefix and name"),
    ([('/bucket == "documents"', '/bucket == "others"')], "ml_when: the condition does not hold for bucket documents"),
    (
        [("  processor:\n", "  processor:\n    - drop_events: {drop_when: /a == 1}\n")],
        "processor[0].drop_events: a pipeline file runs processors on the outputs",
    ),
    (
        [(DELETE, ENRICH)],
        "s3_enrich: the output rows of a job contain their records",
    ),
    ([("data_selection: metadata_only", "data_selection: data_only")], "buckets: no bucket has data_selection: meta"),
    ([(OUTPUT_BUCKET, "              data_selection: metadata_only\n")], "buckets[1].bucket: a pipeline file has one"),
    ([(INPUTS, f"{INPUTS}                  - more/\n")], "include_prefix[1]: a pipeline file has one source"),
    ([(OUTPUTS, "                  - rows/\n")], "no bucket reads the outputs of jobs"),
    (
        [(OUTPUTS, f"{OUTPUTS}                  - rows/\n")],
        "buckets[1].bucket: a pipeline file ingests the outputs of its own jobs only",
    ),
    ([(INPUTS, "                  - opensearch-batch\n")], "overlap; change include_prefix or work_prefix"),
    ([("                  - .manifest\n", "                  - a/b.txt\n")], "exclude_suffix[0]: a suffix becomes a"),
    ([("        scheduling:\n", "        range: P1D\n        scheduling:\n")], "bucket: a pipeline file selects"),
    ([("ndjson:\n          include_empty_objects: false", "json: {}")], "codec: a pipeline file reads the outputs"),
    ([("compression: none", "compression: gzip")], "compression: a pipeline file reads the outputs of jobs without"),
    (
        [("delete_s3_objects_on_read: false", "delete_s3_objects_on_read: true")],
        "delete_s3_objects_on_read: a pipeline file does not delete",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_what_ours_cannot_say_is_refused_by_its_name(tmp_path: Path, changes: list[tuple[str, str]], told: str) -> None:
    """With file, line, option, and what to do: leave the file as it is."""
    start, end = f"{tmp_path / 'sample.yaml'}:", "The file runs unchanged: leave it in include/pipelines/"
    with pytest.raises(ConfigError, match=f"(?s)^{re.escape(start)}.*{re.escape(told)}.*{re.escape(end)}$"):
        converted(tmp_path, changed(*changes))


ROWS_ONLY = """\
rows:
  source:
    s3:
      codec: {ndjson: {}}
      scan: {buckets: [{bucket: {name: documents}}]}
      aws: {region: us-east-1}
  sink:
    - opensearch: {hosts: [https://localhost:9200], index: passages}
"""


def test_the_command_prints_what_it_can_and_refuses_the_rest(tmp_path: Path) -> None:
    """One file, two pipelines, of which one makes no job."""
    file = read(tmp_path, filled() + ROWS_ONLY)
    path = file.path
    done = command("convert", str(path))
    assert done.returncode == 2
    assert done.stdout == convert(file, file.pipelines[0])[0].text
    assert done.stderr.startswith(f"refused: {path}:77 rows: there is no ml_inference")
    told = account(command("convert", str(path), "--json").stdout)
    assert (told["state"], [each["name"] for each in told["pipelines"]], len(told["refused"])) == ("REFUSED", [NAME], 1)


def test_the_command_prints_a_file_that_check_accepts(tmp_path: Path) -> None:
    """As a person would do it."""
    source, target = tmp_path / "sample.yaml", tmp_path / "pipelines" / f"{NAME}.yaml"
    source.write_text(filled())
    target.parent.mkdir()
    done = command("convert", str(source))
    assert (done.returncode, done.stderr) == (0, "")
    target.write_text(done.stdout)
    assert command("check", str(target)).stdout.endswith("1 file, 0 tests, 0 mistakes\n")


@pytest.mark.parametrize(
    ("text", "told"), [("work_prefix: s3://a\n", "not a Data Prepper file"), (None, "no such file")]
)
def test_what_is_no_data_prepper_file_is_refused(tmp_path: Path, text: str | None, told: str) -> None:
    """Before anything is read of it."""
    path = tmp_path / "ours.yaml"
    if text is not None:
        path.write_text(text)
    done = command("convert", str(path), "--json")
    assert done.returncode == 2
    assert told in json.loads(done.stdout)["error"]
