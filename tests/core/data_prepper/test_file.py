"""A Data Prepper file is read unchanged and whole: what is not supported is named with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.definitions._internal.node import validate_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile, is_data_prepper
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline.dag_id import is_dag_id
from opensearch_batch.core.pipeline.file import PipelineFile
from opensearch_batch.core.pipeline.spec_parts import Alerts
from opensearch_batch.core.transform.processors.copy_values import CopyValues
from opensearch_batch.core.types.job import DEADLINE_S
from opensearch_batch.services.registry import adapter_of
from tests.core.data_prepper.data_prepper_files import PARTS, SHORT, option, read, with_options
from tests.core.data_prepper.samples import SAMPLES
from tests.examples import examples

ROOT = Path(__file__).resolve().parents[3]
ENRICH = """\
    - s3_enrich:
        bucket: {name: documents}
        codec: {ndjson: {}}
        s3_key_path: s3/key
        s3_object_name_pattern: (.*)[.]out
        correlation_keys: [id]
        keys_to_merge: [author]
        aws: {region: us-east-1}
"""
OWN = """\
extension:
  opensearch_batch:
    work_prefix: s3://work/books
    connections: {aws: aws_books, model_opensearch: model}
    alerts: {email: [a@b.c], webhook: hook}
    max_jobs_in_flight: '4'
    poll_every_s: '5'
    deadline_s: 3600
    owner: me
    tags: [books]
"""


@pytest.mark.parametrize(
    ("name", "copied", "deleted"),
    [
        (
            "sagemaker_batch_job",
            {"/text": "chapter", "/SageMakerOutput": "chapter_embedding"},
            ["text", "SageMakerOutput"],
        ),
        (
            "sagemaker_batch_job_arrays",
            {
                "/content/0": "chapter",
                "/content/1": "title",
                "/SageMakerOutput/0": "chapter_embedding",
                "/SageMakerOutput/1": "title_embedding",
            },
            ["content", "SageMakerOutput"],
        ),
    ],
)
def test_the_printed_sample_is_read(name: str, copied: dict[str, str], deleted: list[str]) -> None:
    """As it stands, in both forms."""
    file = DataPrepperFile(SAMPLES / f"{name}.yaml")
    (pipeline,) = file.pipelines
    assert (file.version, pipeline.name) == ("2", "sagemaker-batch-job-pipeline")
    assert [(each.selection, each.include_prefix, each.exclude_suffix) for each in pipeline.source.buckets] == [
        ("metadata_only", ("sagemaker/sagemaker_djl_batch_input",), (".manifest",)),
        ("data_only", ("sagemaker/output/",), ()),
    ]
    assert pipeline.source.scheduling is not None
    assert (pipeline.source.scheduling.interval, pipeline.source.acknowledgments) == (360.0, True)
    (_, first, model), (_, _, copies), (_, last, deletes) = pipeline.processors
    assert (first, model.model_id, model.dlq.bucket, last) == (
        "ml_inference",
        "model_ID",
        "batch-inference-dlq",
        "delete_entries",
    )
    assert isinstance(copies, CopyValues)
    assert {entry.from_key: entry.to_key for entry in copies.entries or ()} == copied
    assert list(deletes.with_keys) == deleted
    assert pipeline.routes == (("ml-ingest-route", "/chapter != null and /title != null"),)
    ((keys, sink),) = pipeline.sinks
    assert isinstance(sink, OpenSearchSink)
    assert (keys, sink.index, sink.routes) == (
        ("sagemaker-batch-job-pipeline", "sink", 0, "opensearch"),
        "test-nlp-index",
        ("ml-ingest-route",),
    )


def test_what_the_printed_sample_says_without_effect_is_told() -> None:
    """Nothing else."""
    told = DataPrepperFile(SAMPLES / "sagemaker_batch_job.yaml").remarks
    assert [(line, text.partition(": ")[0].rpartition(".")[2]) for line, text in told] == [
        (4, "osis_configuration_metadata"),
        (31, "default_bucket_owner"),
        (36, "workers"),
        (40, "aws_sigv4"),
    ]
    assert DataPrepperFile(SAMPLES / "sagemaker_batch_job_arrays.yaml").pipelines[0].source.default_bucket_owner == (
        "388303208821"
    )


def test_a_file_without_settings_of_ours_has_their_defaults(tmp_path: Path) -> None:
    """So it runs unchanged."""
    own = read(tmp_path, SHORT).settings
    assert (own.work_prefix, own.connections.aws, own.connections.opensearch, own.owner, own.tags) == (
        None,
        "aws_default",
        None,
        "airflow",
        (),
    )
    assert (own.max_jobs_in_flight, own.poll_every_s, own.deadline_s) == (None, 30.0, DEADLINE_S)


@pytest.mark.parametrize("key", ["extension", "pipeline_configurations"])
def test_our_settings_are_an_extension(tmp_path: Path, key: str) -> None:
    """By either name."""
    own = read(tmp_path, OWN.replace("extension:", f"{key}:") + SHORT).settings
    assert (own.work_prefix, own.connections.aws, own.connections.model_opensearch) == (
        "s3://work/books",
        "aws_books",
        "model",
    )
    assert (own.max_jobs_in_flight, own.poll_every_s, own.deadline_s) == (4, 5.0, 3600.0)
    assert (own.alerts, own.owner, own.tags) == (Alerts(email=["a@b.c"], webhook="hook"), "me", ("books",))


def test_several_pipelines_have_their_own_places(tmp_path: Path) -> None:
    """In the order of the file."""
    second = SHORT.partition("# file\n")[2].replace("books:", "films:").replace("https://localhost:9200", "https://a")
    file = read(tmp_path, SHORT + second)
    assert [(each.name, each.keys, each.processors[0][2].host) for each in file.pipelines] == [
        ("books", ("books",), "https://localhost:9200"),
        ("films", ("films",), "https://a"),
    ]
    assert file.line(file.pipelines[1].sinks[0][0]) == 73
    assert str(file.error(("films", "sink"), "why")) == f"{tmp_path}/books.yaml:72 films.sink: why"


def test_processors_keep_their_order_and_names(tmp_path: Path) -> None:
    """The old name of one too."""
    text = SHORT.replace(
        "  sink:\n",
        "    - convert_entry_type: {key: a, type: integer}\n    - drop_events: {drop_when: /a == 1}\n  sink:\n",
    )
    processors = read(tmp_path, text).pipelines[0].processors
    assert [(keys[-2:], name) for keys, name, _ in processors] == [
        ((0, "ml_inference"), "ml_inference"),
        ((1, "s3_enrich"), "s3_enrich"),
        ((2, "convert_entry_type"), "convert_entry_type"),
        ((3, "drop_events"), "drop_events"),
    ]


@pytest.mark.parametrize("end", ["---\n", "---", "---\n---\n# nothing\n", "...\n", "---\nnull\n"])
def test_a_document_that_ends_in_a_separator_is_one(tmp_path: Path, end: str) -> None:
    """Data Prepper reads the first, and nothing follows."""
    assert read(tmp_path, f"---\n{SHORT}{end}").pipelines == read(tmp_path, SHORT).pipelines


@pytest.mark.parametrize("version", ["1", "1.99", "2", "2.0", "2.17"])
def test_versions_up_to_the_present_one_are_taken(tmp_path: Path, version: str) -> None:
    """As Data Prepper does."""
    assert read(tmp_path, SHORT.replace("version: '2'", f"version: {version}")).version == version


@pytest.mark.parametrize("key", ["route", "routes"])
def test_routes_have_an_older_name(tmp_path: Path, key: str) -> None:
    """And `_default` is always there."""
    text = with_options("pipeline", f"{key}: [{{titled: /title != null}}, {{always: true}}]")
    text = text.replace("        # opensearch", "        routes: [titled, _default]")
    pipeline = read(tmp_path, text).pipelines[0]
    assert pipeline.routes == (("titled", "/title != null"), ("always", "true"))
    assert pipeline.sinks[0][1].routes == ("titled", "_default")


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ("entries: [{key: a, value: 12}]", 12),
        ("entries: [{key: a, value: 1.5}]", 1.5),
        ("entries: [{key: a, value: yes}]", True),
        ("entries: [{key: a, value: OFF}]", False),
        ("entries: [{key: a, value: 'yes'}]", "yes"),
        ("entries: [{key: a, value: True}]", True),
        ("entries: [{key: a, value: 'true'}]", "true"),
        ("entries: [{key: a, value: 2026-01-31}]", "2026-01-31"),
        ("entries: [{key: a, value: 1:30}]", "1:30"),
        ("entries: [{key: a, value: {b: [1, null]}}]", {"b": [1, None]}),
    ],
)
def test_a_value_of_any_kind_is_what_json_would_have(tmp_path: Path, options: str, value: Any) -> None:
    """Never a date."""
    text = SHORT.replace("  sink:\n", f"    - add_entries: {{{options}}}\n  sink:\n")
    found = read(tmp_path, text).pipelines[0].processors[2][2].entries[0].value
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("processor", "line", "message"),
    [
        (
            "add_entries:\n        entries:\n          - key: a\n            value_expression: /a +",
            4,
            "add_entries.entries[0].value_expression: '/a +' is not an expression",
        ),
        (
            "delete_entries:\n        entries:\n          - with_keys: []",
            3,
            "delete_entries.entries[0].with_keys: entries[0].with_keys is empty",
        ),
    ],
)
def test_an_option_is_told_once(tmp_path: Path, processor: str, line: int, message: str) -> None:
    """By its place alone, unless the sentence is about it."""
    text = SHORT.replace("  sink:\n", f"    - {processor}\n  sink:\n")
    at = SHORT.splitlines().index("  sink:") + line
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{tmp_path}/books.yaml:{at} books.processor[2].{message}')}"):
        read(tmp_path, text)


# What Jackson's YAMLParser (2.21.2) over SnakeYAML (2.5) was seen to make of them.
_NUMBERS: dict[str, int | float] = {
    ".5": 0.5,
    "+.5e-3": 0.0005,
    "._5": 0.5,
    "1.": 1.0,
    "1e3": 1000.0,
    "1.5E10": 15e9,
    "-2E+05": -200000.0,
    "012e3": 12000.0,
    "1_0.5_0": 10.5,
    "1._": 1.0,
    "1e-400": 0.0,
    "00.5": 0.5,
    "0x1F": 31,
    "-0x1f": -31,
    "0x_1_": 1,
    "0b101": 5,
    "-0b1_1": -3,
    "007": 7,
    "010": 8,
    "-0_17": -15,
    "00": 0,
    "1_000": 1000,
    "1_": 1,
    "+5": 5,
    "-0": 0,
    "! 5": 5,
    '!!int "5"': 5,
    "2147483648": 1 << 31,
    "0xFFFFFFFFFFFFFFFF": (1 << 64) - 1,
    "12345678901234567890123": 12345678901234567890123,
}
_NO_NUMBERS = ["08", "012345678901", "0_", "0o17", "0X1F", "0x", "0x_", "0b12", "_1", ".e3", "1e", "1e1_0", "0x1.8p1"]


@pytest.mark.parametrize("text", _NUMBERS)
def test_a_number_is_one_where_data_prepper_reads_one(tmp_path: Path, text: str) -> None:
    """A tag is obeyed, and what stands in quotes is a text."""
    found, quoted, tagged = _values(tmp_path, text, f"'{text}'", f"!!str '{text}'")
    assert (found, type(found)) == (_NUMBERS[text], type(_NUMBERS[text]))
    assert (quoted, tagged) == (text, text)


@pytest.mark.parametrize("text", [*_NO_NUMBERS, "!!str 1e3", "1:30.5", "1e400", ".inf", ".nan"])
def test_a_text_stays_one_that_looks_like_a_number(tmp_path: Path, text: str) -> None:
    """Also one that no JSON holds, for which Data Prepper does not start."""
    assert _values(tmp_path, text) == [text.removeprefix("!!str ")]


def test_an_account_keeps_its_zeros(tmp_path: Path) -> None:
    """Where a text is wanted, it is the one that stands there."""
    assert option(tmp_path, "archive", "default_bucket_owner: 000000000017", "default_bucket_owner") == "000000000017"


def _values(folder: Path, *texts: str) -> list[Any]:
    """Return what an option of any kind is read as, with these texts behind it."""
    lines = "".join(f"          - key: a\n            value: {text} # told\n" for text in texts)
    text = SHORT.replace("  sink:\n", f"    - add_entries:\n        entries:\n{lines}  sink:\n")
    return [entry.value for entry in read(folder, text).pipelines[0].processors[2][2].entries]


@pytest.mark.parametrize("name", ["workers", "delay", "buffer"])
def test_a_pipeline_s_engine_has_no_effect(tmp_path: Path, name: str) -> None:
    """There is another one here."""
    remarks = read(tmp_path, with_options("pipeline", f"{name}: '1'")).remarks
    assert (4, True) in [(line, text.startswith(f"books.{name}: has no effect: ")) for line, text in remarks]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("books:", "my books:", r":3 my books: the pipeline name is the DAG id, .* 250 .*; write my-books$"),
        ("books:", "'b/o: k!':", r":3 b/o: k!: the pipeline name is the DAG id, .*; write b-o-k$"),
        ("books:", "book~s:", r":3 book~s: the pipeline name is the DAG id, .*; write book-s$"),
        ("books:", "a" * 251 + ":", r":3 a*: the pipeline name is the DAG id, .*; choose a shorter name"),
        (
            "    - s3_enrich:",
            "    - ml_inference: {host: a, model_id: b, output_path: s3://a/b, aws: {region: c}}\n    - s3_enrich:",
            r":23 books.processor\[1\].ml_inference: a .* at most one ml_inference; the first is on line 17; write",
        ),
        (
            "  sink:\n",
            f"{ENRICH}  sink:\n",
            r":32 books.processor\[2\].s3_enrich: a .* at most one s3_enrich; the first is on line 23; write all",
        ),
        ("version: '2'", "version: two", r":1 version: not a version of Data Prepper; write version: '2'"),
        ("version: '2'", "version: '3'", r":1 version: 3 is later than 2.17, the latest .*; write version: '2'"),
        ("version: '2'", "version: 2.18", r":1 version: 2.18 is later than 2.17"),
        ("version: '2'", "version: 2.99", r":1 version: 2.99 is later than 2.17"),
        ("version: '2'", "version: '9" + "9" * 5000 + "'", r":1 version: not a version of Data Prepper"),
        ("version: '2'", "version: 2.17.0", r":1 version: not a version of Data Prepper"),
        ("version: '2'", "extension: {opensearch_batch: {work: a}}", r"opensearch_batch.work: .*'work_prefix'"),
        (
            "version: '2'", "extension: {opensearch_batch: {work_prefix: /a}}",
            r"batch.work_prefix: .*write work_prefix: \"s3://m",
        ),
        ("version: '2'", "extension: {opensearch_batch: {retention_days: 30}}", r"retention_days: unknown key"),
        ("version: '2'", "extension: {opensearch_batch: {poll_every_s: 0}}", r"poll_every_s: Expected `float` > 0"),
        ("version: '2'", "extension: {opensearch_batch: {deadline_s: -1}}", r"deadline_s: Expected `float` > 0"),
        ("version: '2'", "extension: {opensearch_batch: {max_jobs_in_flight: 0}}", r"in_flight: Expected `int` >= 1"),
        ("version: '2'", "extension: {opensearch_batch: {alerts: {mail: a}}}", r"alerts.mail: .*mean 'email'\?"),
        ("version: '2'", "extension: []", r":1 extension: expected a YAML mapping"),
        (SHORT, "", r":1 file: the file has no pipeline; write one, with source and sink below its name"),
        (SHORT, "[]", r":1 file: expected a YAML mapping"),
        (SHORT, "a", r":1 file: expected a YAML mapping"),
        (SHORT, "version: '2'\nbooks: 1", r":2 books: not a pipeline; write source and sink below its name"),
        (SHORT, "version: '2'\nbooks:", r":2 books: the pipeline is empty; write source and sink below its name"),
        (SHORT, "version: '2'\nbooks: {}", r":2 books: the pipeline is empty; write source and sink below its name"),
        (SHORT, "version: '2'\nbooks: {processor: []}", r":2 books: source is missing; a pipeline has source and sink"),
        (SHORT, "version: '2'\nbooks:\n  sorce: {}\n  snk: []", r":3 books.sorce: .* Did you mean 'source'\?"),
        (SHORT, "version: '2'", r":1 file: the file has no pipeline; write one, with source and sink below its name"),
        (SHORT, "version: '2'\nsource: {s3: {}}\nsink: []", r":2 source: expected the name of a pipeline; write one"),
        (SHORT, "sink: []", r":1 sink: expected the name of a pipeline; write one, like books:, and indent"),
        (
            "version: '2'", "work_prefix: s3://a",
            r":1 work_prefix: not a pipeline; write this setting below extension.op",
        ),
        ("version: '2'", "connections: {aws: a}", r":1 connections: not a pipeline; write this setting"),
        (SHORT, "books: [", r":\d not valid YAML: "),
        (SHORT, f"{SHORT}---\n{SHORT}", r":44 a second YAML document starts here; move it to its own file"),
        (SHORT, f"---\n---\n{SHORT}", r":3 a second YAML document starts here; move it to its own file"),
        (SHORT, f"{SHORT}---\n---\nbooks: [", r":\d+ not valid YAML: "),
        (SHORT, "books: \x01", r":1 not valid YAML: .*character"),
        (SHORT, "books: &a\n  source: *a", r":1 an alias \(\*name\) refers to this value; aliases are not"),
        (SHORT, "books: {? [a] : b}", r":1 books: a key must be a scalar, not a list or a mapping"),
        ("  source:", "  sink: []\n  source:", r":33 books.sink: duplicate key, first defined on line 5; remove one"),
        ("  # pipeline", "  procesor: []", r":4 books.procesor: unknown key. Did you mean 'processor'\?"),
        ("  # pipeline", "  route: []\n  routes: []", r":5 books.routes: route sets the same option; keep one of them"),
        ("  # pipeline", "  routes: {a: b}", r":4 books.routes: expected a YAML list"),
        ("  # pipeline", "  routes: [{a: /b, c: /d}]", r":4 books.routes\[0\]: expected one route"),
        ("  # pipeline", "  routes:\n    - a: /b =\n", r":5 books.routes\[0\].a: "),
        ("  # pipeline", "  routes: [{a: /b == 1}, {a: /c == 1}]", r"routes\[1\].a: duplicate route"),
        ("  # pipeline", "  routes: [{_default: /b == 1}]", r"routes\[0\]._default: duplicate route"),
        ("  # pipeline", "  routes: [{a: [b]}]", r":4 books.routes\[0\].a: Expected `str`, got `array`"),
        ("    s3:\n      #", "    s3: {}\n    kafka: {}\n    sqs:\n      #", r":5 books.source: expected one source"),
        ("    s3:\n      #", "    kafka:\n      #", r":6 books.source.kafka: this source is not supported"),
        ("    s3:\n      #", "    sqs:\n      #", r":6 books.source.sqs: this source is not supported"),
        ("    s3:\n      #", "    pipeline:\n      #", r":6 books.source.pipeline: this source is not supported"),
        ("    s3:\n      #", "    s33:\n      #", r":6 books.source.s33: unknown source; .* Did you mean 's3'\?"),
        ("    - ml_inference:", "    - grok:", r":17 books.processor\[0\].grok: this processor is not supported: tr"),
        ("    - ml_inference:", "    - ml_infer:", r":17 .*ml_infer: unknown processor; .* Did you mean 'ml_infere"),
        ("    - ml_inference:", "    ml_inference:", r"yaml:\d+ "),
        ("    - opensearch:", "    - stdout:", r":33 books.sink\[0\].stdout: this sink is not supported:"),
        ("    - opensearch:", "    - opensearh:", r":33 .*opensearh: unknown sink; .* Did you mean 'opensearch'\?"),
        ("  sink:\n", "    - copy_values: {entries: [{from_key: a}]}\n  sink:\n", r"values.entries\[0\]: to_key is m"),
        (
            "  sink:\n",
            "    - copy_values:\n        entries:\n          - {from_key: a, to_key: b, copy_when: a ==}\n  sink:\n",
            r":34 books.processor\[2\].copy_values.entries\[0\].copy_when: ",
        ),
        ("  sink:\n", "    - delete_entries: {with_key: [a]}\n  sink:\n", r":32 .*with_key: .*mean 'with_keys'\?"),
        ("  sink:\n", "    - delete_entries: {}\n  sink:\n", r":32 books.processor\[2\].delete_entries: "),
        ("  sink:\n", "    - 5\n  sink:\n", r":32 books.processor\[2\]: expected one processor with its options"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    """The message says where, what, and what to write instead."""
    assert old in SHORT
    with pytest.raises(ConfigError, match=message) as found:
        read(tmp_path, SHORT.replace(old, new))
    assert re.match(rf"{tmp_path}/books.yaml:\d+ ", str(found.value))


@pytest.mark.parametrize("name", ["a" * 250, "Books_1.2-é", "."])
def test_a_name_that_airflow_takes_is_taken(tmp_path: Path, name: str) -> None:
    """And only such."""
    validate_key(name)
    assert read(tmp_path, SHORT.replace("books:", f"{name}:")).pipelines[0].name == name


@pytest.mark.parametrize("name", ["a" * 251, "my books", "a:b", "a~b", "a/b"])
def test_a_name_that_airflow_refuses_is_none(name: str) -> None:
    """The rule is read there, because it is asked without Airflow too."""
    with pytest.raises(ValueError, match=r"The key .*has to be"):
        validate_key(name)
    assert not is_dag_id(name)


def test_what_the_yaml_reader_says_has_nothing_of_the_file(tmp_path: Path) -> None:
    """A password may stand there."""
    with pytest.raises(ConfigError, match=r"yaml:\d not valid YAML") as found:
        read(tmp_path, "a:\n  password: 'hidden\n  b: c\n")
    assert "hidden" not in str(found.value)
    assert found.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (SHORT, True),
        ("books: {source: {}}", True),
        ("books: {sink: []}", True),
        ("books: {source: &a {b: *a}, sink: []}", False),
        ("books: {source: &a {b: 1}, sink: [*a]}", True),
        ("version: '2'", True),
        ("extension: {}", True),
        ("pipeline_configurations: {}", True),
        ("version: '2'\nwork_prefix: s3://a\nbatch_predict: {}\ningest: {}", True),
        *((SHORT.replace("books:", f"{name}:"), True) for name in ("work_prefix", "ingest", "batch_predict", "source")),
        *(
            (f"{name}: {{source: {{}}, sink: []}}", True)
            for name in ("work_prefix", "ingest", "batch_predict", "source")
        ),
        ("source: {s3: {}}\nsink: []", True),
        ("books:", True),
        ("books: {sorce: {}, snk: []}", True),
        ("books: 1", False),
        ("source: {}", False),
        ("source: {}\nbooks: {}", False),
        ("work_prefix: s3://a\nbatch_predict: {}\nsink: {}", False),
        ("{}", False),
        ("source: {uri: s3://a}\nwork_prefix: s3://b\nbatch_predict: {}\ningest: {}", False),
        ("books: {source: {}, sink: []}\nwork_prefix: s3://a", True),
        ("[a", False),
        ("- a", False),
        ("", False),
    ],
)
def test_a_data_prepper_file_is_told_from_one_of_ours(tmp_path: Path, text: str, *, is_one: bool) -> None:
    """By what stands at its top."""
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert is_data_prepper(path) is is_one


def test_our_own_pipelines_are_none() -> None:
    """Those in the repository, beside which a demo may have left one that is."""
    assert not [path for path in (ROOT / "include" / "pipelines").glob("passages*.yaml") if is_data_prepper(path)]
    assert is_data_prepper(SAMPLES / "sagemaker_batch_job.yaml")


def test_a_file_that_contains_itself_is_refused(tmp_path: Path) -> None:
    """Also where aliases may stand."""
    path = tmp_path / "a.yaml"
    path.write_text("a: &a [*a]")
    with pytest.raises(ConfigError, match=r"a.yaml:1 more than .* or an alias that contains itself"):
        PipelineFile(path, adapter_of)
    with pytest.raises(ConfigError, match=r"a.yaml:1 an alias"):
        DataPrepperFile(path)


def mistake_in(path: Path) -> ConfigError | None:
    """Return what is wrong in a file, None for nothing; any other error is a test's failure."""
    try:
        DataPrepperFile(path)
    except ConfigError as error:
        return error
    return None


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates())
NAMES = st.sampled_from(
    sorted(set(re.findall(r"[a-z_0-9]+", SHORT)) | {"routes", "dlq", "entries", "extension", "opensearch_batch", "s3"})
)
VALUES = st.recursive(
    SCALARS | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
def test_any_file_is_read_or_refused(tmp_path: Path, value: Any) -> None:
    """Nothing else is raised."""
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    assert mistake_in(path) is None or re.match(rf"{path}:\d+ ", str(mistake_in(path)))


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.sampled_from([*PARTS, "pipeline", "file"]),
    name=st.sampled_from(sorted(set(re.findall(r"([a-z_0-9]+):", SHORT)) | {"routes", "dlq", "entries", "range"})),
    value=VALUES,
)
def test_any_value_of_an_option_is_read_or_refused(tmp_path: Path, place: str, name: str, value: Any) -> None:
    """Wherever it stands."""
    option = yaml.safe_dump({name: value}, default_flow_style=True, width=10_000, allow_unicode=False).strip()
    said = option.removeprefix("{").removesuffix("}").partition(": ")[2]
    path = tmp_path / "any.yaml"
    path.write_text(with_options(place, f"{name}: {said}"), encoding="utf-8")
    assert mistake_in(path) is None or re.match(rf"{path}:\d+ ", str(mistake_in(path)))
