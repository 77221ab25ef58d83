"""What a file does in silence is named with its line, and nothing is named that it does not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from opensearch_batch.core.data_prepper.condition_analysis import missing_keys
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile
from opensearch_batch.core.data_prepper.lint import lint
from opensearch_batch.core.pipeline.check import Finding
from opensearch_batch.core.transform.expressions.expression import compile_expression
from tests.core.data_prepper.data_prepper_files import SHORT, read, with_options
from tests.core.data_prepper.samples import ARRAYS, NAME, PRINTED, changed, filled

ROUTE = "/chapter != null and /title != null"
OUTPUT = 'output_path: "s3://documents/sagemaker/output"'
COPY = "          - from_key: /text\n            to_key: chapter\n"
ML_WHEN = '/bucket == "documents"'
DELETE = "    - delete_entries:\n        with_keys:\n          - text\n"
RENAME = "    - rename_keys: {entries: [{from_key: _id, to_key: id}]}\n"
DATA_FILTER = "filter:\n                include_prefix:\n                  - sagemaker/output/\n"
INDEX = "        index: test-nlp-index\n"
SINK_ROUTES = "        routes:\n          - ml-ingest-route\n"
ML_ROLE = '          sts_role_arn: "arn:aws:iam::123456789012:role/Admin"\n'
DLQ_ROLE = "            sts_role_arn: arn:aws:iam::123456789012:role/OSI-invoke-ml\n"
HOST = 'hosts: ["https://search-AWStest-offlinebatch-123456789abcdef.us-west-2.es.amazonaws.com"]'
PLAIN_HOST = 'hosts: ["http://localhost:9200"]'


def line_in(text: str, part: str) -> int:
    """Return the line in which a part of a text starts."""
    return text[: text.index(part)].count("\n") + 1


def of_rule(folder: Path, text: str, rule: int | None) -> list[Finding]:
    """Return the findings of one kind."""
    return [each for each in lint(read(folder, text)) if each.rule == rule]


def test_the_printed_sample_has_all_but_two(tmp_path: Path) -> None:
    """Those of a file that says neither a dlq without a role nor a plain host."""
    found = lint(DataPrepperFile(PRINTED))
    assert [(each.rule, each.line, each.location.removeprefix(f"{NAME}.")) for each in found] == [
        (4, 13, "source.s3.scan.buckets[0].bucket"),
        (5, 20, "source.s3.scan.buckets[0].bucket.filter.exclude_suffix[0]"),
        (7, 21, "source.s3.scan.buckets[1].bucket"),
        (4, 33, "source.s3.codec.ndjson"),
        (8, 44, "processor[0].ml_inference.output_path"),
        (10, 47, "processor[0].ml_inference.aws.sts_role_arn"),
        (None, 48, "processor[0].ml_inference.ml_when"),
        (10, 54, "processor[0].ml_inference.dlq.s3.sts_role_arn"),
        (3, 66, "sink[0].opensearch"),
        (6, 66, "sink[0].opensearch"),
        (9, 66, "sink[0].opensearch"),
        (2, 71, "sink[0].opensearch.routes"),
        (1, 76, "routes[0].ml-ingest-route"),
    ]
    told = {each.rule for each in found}
    assert told == {None, *range(1, 11)}
    assert {each.rule for each in lint(read(tmp_path, filled()))} == told - {None, 8, 10}


def test_the_sample_with_arrays_makes_the_title_it_asks_for() -> None:
    """So rows match its route."""
    found = lint(DataPrepperFile(ARRAYS))
    assert {each.rule for each in found} == {None, *range(2, 11)}


def test_no_finding_names_its_number() -> None:
    """It is a text for people; and it ends like an error's."""
    for each in lint(DataPrepperFile(PRINTED)):
        assert "rule" not in each.text.lower()
        assert not each.text.endswith(".")


@pytest.mark.parametrize(
    ("rule", "changes", "part", "told"),
    [
        (1, [], "- ml-ingest-route: /ch", "no processor adds /title, and no codec or AI service is known to add it."),
        (1, [(ROUTE, "/text != null")], "- ml-ingest-route: /text", "a processor removes /text. A row"),
        (
            1,
            [(ROUTE, "/chapter != null"), (DELETE, f"{DELETE}          - chapter\n")],
            "- ml-ingest-route: /ch",
            "removes /ch",
        ),
        (1, [("  routes:\n    -", "  route:\n    -")], "- ml-ingest-route: /ch", "no processor adds /title"),
        (2, [], "        routes:\n          -", "in Data Prepper only the routes keep bucket, key, time and length"),
        (
            2,
            [(SINK_ROUTES, "")],
            "- opensearch:",
            "Data Prepper writes bucket, key, time and length of each input to this sink",
        ),
        (2, [(ROUTE, "/bucket != null")], "- opensearch:", "Here they are never written"),
        (3, [], "- opensearch:", "which OpenSearch rejects. Here it becomes the id of the document"),
        (3, [(INDEX, f"{INDEX}        include_keys: [_id, chapter]\n")], "- opensearch:", "which OpenSearch rejects"),
        (5, [], "- .manifest", "Here they are below s3://documents/opensearch-batch, so only existing"),
        (
            5,
            [("- .manifest", "- .tmp")],
            "- bucket:",
            "its next scan reads them as inputs. Here they are below s3://doc",
        ),
        (
            6,
            [],
            "- opensearch:",
            "duplicates rows that it reads again. Here the id is the row's _id, else derived from its location",
        ),
        (
            7,
            [],
            "- bucket:\n              name: documents\n              data_selection: data_only",
            "after its job has ended, also if",
        ),
        (
            8,
            [(OUTPUT, 'output_path: "s3://others/sagemaker/output"')],
            "output_path",
            "in s3://others/sagemaker/output",
        ),
        (8, [(OUTPUT, 'output_path: "s3://documents/elsewhere"')], "output_path", "let another pipeline read them"),
        (
            8,
            [("data_selection: data_only", "data_selection: metadata_only")],
            "output_path",
            "each output becomes the input of a new job",
        ),
        (
            9,
            [],
            "- opensearch:",
            "no vector search finds chapter_embedding. Here an absent index is created with knn_vector",
        ),
        (
            9,
            [("index: test", "index: ${/lang}-test")],
            "- opensearch:",
            "Here too, because the index name contains keys",
        ),
        (
            10,
            [("123456789012:role/Admin", "role/Admin-of-account")],
            "sts_role_arn",
            "is not the ARN of a role, so no role can be assumed",
        ),
        (
            11,
            [(ML_ROLE, ""), (DLQ_ROLE, "")],
            "s3:\n            region",
            "Here the credentials of the Airflow connection aws_default",
        ),
        (
            12,
            [(HOST, PLAIN_HOST)],
            "hosts:",
            "tries TLS with this host and retries forever. Here requests are signed and sent over http",
        ),
    ],
)
def test_each_is_found_in_its_line(
    tmp_path: Path, rule: int, changes: list[tuple[str, str]], part: str, told: str
) -> None:
    """With what happens there and here."""
    text = changed(*changes)
    (found,) = of_rule(tmp_path, text, rule)
    assert (found.line, told in found.text) == (line_in(text, part), True), found.text


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        (1, [(ROUTE, "/chapter != null")]),
        (1, [(ROUTE, "/chapter != null or /title != null")]),
        (1, [(ROUTE, "/chapter != null and /title == null")]),
        (1, [(ROUTE, "/chapter_embedding != null and /SageMakerOutput/0 == null")]),
        (1, [("- ml-ingest-route\n", "- ml-ingest-route\n          - _default\n")]),
        (1, [(SINK_ROUTES, "")]),
        (1, [(COPY, f"{COPY}          - from_key: /heading\n            to_key: title\n")]),
        (1, [(DELETE, f"    - parse_json: {{}}\n{DELETE}")]),
        (1, [(DELETE, f"    - rename_keys: {{transform_key: lowercase}}\n{DELETE}")]),
        (1, [(DELETE, f"    - add_entries: {{entries: [{{key: '${{/lang}}', value: 1}}]}}\n{DELETE}")]),
        (1, [("ndjson:\n          include_empty_objects: false", "csv:\n          header: [title, text]")]),
        (2, [("metadata_only", "data_only")]),
        (2, [(DELETE, f"    - drop_events: {{drop_when: /bucket != null}}\n{DELETE}")]),
        (3, [(DELETE, f"{DELETE}          - _id\n")]),
        (3, [(DELETE, f"    - delete_entries: {{with_keys_regex: ['_.*']}}\n{DELETE}")]),
        (3, [(DELETE, f"{RENAME}{DELETE}")]),
        (3, [(DELETE, f"{RENAME}    - convert_type: {{key: id, type: string}}\n{DELETE}")]),
        (3, [(DELETE, f"    - select_entries: {{include_keys: [chapter]}}\n{DELETE}")]),
        (3, [(INDEX, f"{INDEX}        document_id: ${{/id}}\n")]),
        (3, [(INDEX, f"{INDEX}        exclude_keys: [_id]\n")]),
        (3, [(INDEX, f"{INDEX}        include_keys: [chapter]\n")]),
        (3, [(INDEX, f"{INDEX}        document_root_key: chapter\n")]),
        (5, [("- .manifest", "- .tmp"), ('"sagemaker"', "bedrock")]),
        (6, [(INDEX, f"{INDEX}        document_id: ${{/id}}\n")]),
        (8, []),
        (9, [(INDEX, f"{INDEX}        template_content: '{{}}'\n")]),
        (9, [(INDEX, f"{INDEX}        template_file: s3://documents/template.json\n")]),
        (9, [(INDEX, f"{INDEX}        exclude_keys: [chapter_embedding]\n")]),
        (9, [("- from_key: /SageMakerOutput", "- from_key: /summary")]),
        (10, []),
        (10, [("arn:aws:", "arn:aws-us-gov:")]),
        (11, []),
        (11, [(DLQ_ROLE, "")]),
        (12, []),
        (12, [(HOST, PLAIN_HOST), ("        aws:\n          serverless: false\n          region: us-west-2\n", "")]),
    ],
)
def test_none_is_found_where_there_is_none(tmp_path: Path, rule: int, changes: list[tuple[str, str]]) -> None:
    """Each has a way out."""
    assert of_rule(tmp_path, changed(*changes), rule) == []


def test_rows_that_no_route_takes_are_told_only_where_no_other_route_takes_them(tmp_path: Path) -> None:
    """A route that no sink has counts for nothing."""
    routes = f"- ml-ingest-route: {ROUTE}"
    other = "- others: /title == null"
    with_other = (routes, f"{other}\n    {routes}")
    assert len(of_rule(tmp_path, changed(with_other), 1)) == 1
    used = ("- ml-ingest-route\n", "- ml-ingest-route\n          - others\n")
    assert of_rule(tmp_path, changed(with_other, used), 1) == []


@pytest.mark.parametrize(
    ("codec", "told"),
    [
        ("ndjson: {}", "Here the row is a dead letter, the rest is read"),
        ("csv: {}", "Here the row is a dead letter, the rest is read"),
        ("json: {}", "Here the task fails and names the row"),
        ("newline: {}", None),
        ("parquet: {}", None),
    ],
)
def test_a_row_that_cannot_be_read_is_told_of_codecs_that_it_breaks(
    tmp_path: Path, codec: str, told: str | None
) -> None:
    """At the codec; and of the inputs of a job of SageMaker's, whatever the codec."""
    text = changed(("ndjson:\n          include_empty_objects: false", codec))
    inputs, *rest = of_rule(tmp_path, text, 4)
    assert (inputs.line, "fails the whole SageMaker job" in inputs.text) == (13, True)
    assert [(each.line, str(told) in each.text) for each in rest] == ([(33, True)] if told else [])


def test_a_row_that_cannot_be_read_is_not_told_where_none_is_read(tmp_path: Path) -> None:
    """The inputs of Bedrock have errors of their own, row by row."""
    text = changed(('"sagemaker"', "bedrock"), ("data_selection: data_only", "data_selection: metadata_only"))
    assert of_rule(tmp_path, text, 4) == []


def test_outputs_that_wait_for_a_condition_are_not_read_early(tmp_path: Path) -> None:
    """Nor are rows that no job wrote."""
    waits = "processing_conditions: [{object_name: manifest.json.out, when: /done == true}]"
    assert of_rule(tmp_path, changed((DATA_FILTER, f"{DATA_FILTER}              {waits}\n")), 7) == []
    rows = SHORT.replace("s3://documents/output", "s3://elsewhere/output")
    assert of_rule(tmp_path, rows, 7) == []
    assert [each.line for each in of_rule(tmp_path, SHORT, 7)] == [line_in(SHORT, "- bucket:")]


def test_a_bucket_that_excludes_outputs_does_not_read_them(tmp_path: Path) -> None:
    """However it is called."""
    found = of_rule(tmp_path, with_options("bucket", "filter: {exclude_suffix: [.out]}"), 8)
    assert [each.location for each in found] == ["books.processor[0].ml_inference.output_path"]


def test_a_filter_of_the_whole_source_is_named_where_it_stands(tmp_path: Path) -> None:
    """Its bucket has none of its own."""
    text = with_options("source", "filters: {documents: {exclude_suffix: [.tmp, .manifest]}}")
    (found,) = of_rule(tmp_path, text, 5)
    assert (found.line, found.location) == (7, "books.source.s3.filters.documents.exclude_suffix[1]")


@pytest.mark.parametrize(
    ("place", "options", "where"),
    [
        ("source", "aws: {sts_role_arn: 'arn:aws:iam::account:role/r'}", "source.s3.aws.sts_role_arn"),
        ("ml", "aws: {sts_role_arn: 'arn:aws:iam::role/pipeline'}", "processor[0].ml_inference.aws.sts_role_arn"),
        (
            "ml",
            "dlq: {s3: {bucket: letters, sts_role_arn: 'arn:aws:sts::123456789012:role/r'}}",
            "processor[0].ml_inference.dlq.s3.sts_role_arn",
        ),
        ("enrich", "aws: {sts_role_arn: 'arn:aws:iam::12345678901:role/r'}", "processor[1].s3_enrich.aws.sts_role_arn"),
        (
            "opensearch",
            "aws: {sts_role_arn: 'arn:aws:iam::123456789012:user/r'}",
            "sink[0].opensearch.aws.sts_role_arn",
        ),
        (
            "opensearch",
            "aws_sigv4: true\naws_sts_role_arn: '<the role of the pipeline>'",
            "sink[0].opensearch.aws_sts_role_arn",
        ),
        (
            "opensearch",
            "dlq: {s3: {bucket: letters, sts_role_arn: 'arn:aws:iam::123456789012:role/'}}",
            "sink[0].opensearch.dlq.s3.sts_role_arn",
        ),
        ("archive", "aws: {sts_role_arn: 'arn:aws:iam::account:role/r'}", "sink[1].s3.aws.sts_role_arn"),
    ],
)
def test_a_role_that_is_none_is_named_where_it_stands(tmp_path: Path, place: str, options: str, where: str) -> None:
    """Once, also where another block inherits it."""
    text = with_options(place, options)
    (found,) = of_rule(tmp_path, text, 10)
    assert (found.location, found.line) == (f"books.{where}", line_in(text, "sts_role_arn"))


def test_a_role_that_the_dlq_inherits_is_named_once(tmp_path: Path) -> None:
    """Where it is written."""
    options = "aws: {sts_role_arn: 'arn:aws:iam::account:role/r'}\ndlq: {s3: {bucket: letters}}"
    (found,) = of_rule(tmp_path, with_options("ml", options), 10)
    assert found.location == "books.processor[0].ml_inference.aws.sts_role_arn"


def test_a_plain_host_of_a_named_connection_is_not_asked(tmp_path: Path) -> None:
    """The connection says where the cluster is."""
    own = "extension: {opensearch_batch: {connections: {opensearch: search}}}\n"
    text = own + changed((HOST, PLAIN_HOST), ("extension:\n", "pipeline_configurations:\n"))
    (found,) = of_rule(tmp_path, text, 12)
    assert "Here the Airflow connection search is used" in found.text


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (ML_WHEN, None),
        ("/bucket != null", None),
        ('/key =~ "in.*"', None),
        ('/bucket == "others" and /key != null', None),
        (
            '/bucket == "others"',
            "the condition holds for no bucket with data_selection: metadata_only (documents), so no job is",
        ),
        ('/bucket in {"a", "b"}', 'correct it, for example: /bucket == "documents"'),
        ("false", "the condition holds for no bucket"),
        ('/s3/bucket == "documents"', "/key, /time and /length, and no /s3/bucket, so the condition never holds and"),
        ('/s3/bucket == "documents" and /key != null', "and no /s3/bucket"),
        ('/bucket == "documents" and /text != null', "and no /text"),
        ('/bucket == "documents" or /text != null', None),
        ('/bucket == "others" or /s3/bucket == "documents"', "the condition holds for no bucket"),
        ("/text == null", None),
    ],
)
def test_a_condition_that_no_object_meets_is_told(tmp_path: Path, condition: str, told: str | None) -> None:
    """As far as it asks for buckets, whose names are known, or for keys that objects have not."""
    text = changed((ML_WHEN, condition))
    found = of_rule(tmp_path, text, None)
    assert [(each.line, str(told) in each.text) for each in found] == (
        [(line_in(text, "ml_when:"), True)] if told else []
    )


def test_any_bucket_of_inputs_is_enough(tmp_path: Path) -> None:
    """And a processor before may make what the condition asks for, or drop more."""
    others = (ML_WHEN, '/bucket == "others"')
    second = "          - bucket: {name: others, data_selection: metadata_only}\n"
    assert of_rule(tmp_path, changed(others, ("        buckets:\n", f"        buckets:\n{second}")), None) == []
    adds = "    - add_entries: {entries: [{key: bucket, value: others, overwrite_if_key_exists: true}]}\n"
    assert of_rule(tmp_path, changed(others, ("  processor:\n", f"  processor:\n{adds}")), None) == []
    drops = "    - drop_events: {drop_when: /length == 0}\n"
    assert len(of_rule(tmp_path, changed(others, ("  processor:\n", f"  processor:\n{drops}")), None)) == 1


def test_a_model_that_gets_no_object_is_told(tmp_path: Path) -> None:
    """All buckets are read for their rows."""
    text = changed(("metadata_only", "data_only"))
    (found,) = of_rule(tmp_path, text, None)
    assert (found.line, found.location) == (line_in(text, "- ml_inference:"), f"{NAME}.processor[0].ml_inference")
    assert "no bucket has data_selection: metadata_only, so no object is an input and no job is submitted" in found.text


@pytest.mark.parametrize(
    ("document_id", "told"),
    [
        ("id", "'id' is the same for each row, so all rows become one document, here as in Data Prepper; write ${/id}"),
        ("/book/id", "write ${/book/id}, with the key of a row's id"),
        ("'%{yyyy}'", "write ${/id}, with the key of a row's id"),
        ("a-${/id}", None),
        ("${length(/id)}", None),
    ],
)
def test_an_id_that_all_rows_share_is_told(tmp_path: Path, document_id: str, told: str | None) -> None:
    """Only one of them would be left."""
    text = changed((INDEX, f"{INDEX}        document_id: {document_id}\n"))
    found = of_rule(tmp_path, text, None)
    assert [(each.line, str(told) in each.text) for each in found] == (
        [(line_in(text, "document_id:"), True)] if told else []
    )


def test_findings_of_all_pipelines_are_in_order(tmp_path: Path) -> None:
    """By their lines."""
    second = SHORT.partition("# file\n")[2].replace("books:", "films:")
    found = lint(read(tmp_path, SHORT + second))
    assert [each.line for each in found] == sorted(each.line for each in found)
    assert {each.location.partition(".")[0] for each in found} == {"books", "films"}


@pytest.mark.parametrize(
    ("condition", "lacking"),
    [
        ("/a != null", ["a"]),
        ("null != /a", ["a"]),
        ("/a == null", []),
        ('/a == "x"', ["a"]),
        ('/a != "x"', []),
        ("/a > 1", ["a"]),
        ('/a =~ "x"', ["a"]),
        ('/a !~ "x"', ["a"]),
        ("/a in {1, 2}", ["a"]),
        ("/a not in {1, 2}", []),
        ("/a typeof string", ["a"]),
        ("/a", ["a"]),
        ("not /a", ["a"]),
        ("not (/a == null)", ["a"]),
        ("not (/a != null)", []),
        ("length(/a) > 2", ["a"]),
        ('contains(/a, "/b")', ["a"]),
        ("/a == /b", []),
        ("/a == /known", []),
        ("/a != null and /known != null", ["a"]),
        ("/a != null or /known != null", []),
        ("/a or /known != null", ["a"]),
        ("/a != null or /b != null", ["a", "b"]),
        ("/a != null and /b != null", ["a", "b"]),
        ("/b == null or /known == 1 and /a == 2", ["a"]),
        ("/known != null", []),
        ("/known/deep == 1 and /known/0 == 1", []),
        ('hasTags("x")', []),
        ("true", []),
    ],
)
def test_a_condition_is_asked_what_it_cannot_do_without(condition: str, lacking: list[str]) -> None:
    """As it would be evaluated."""
    compile_expression(condition)
    found = missing_keys(condition, lambda key: key[0] == "known")
    assert ["/".join(key) for key in found] == lacking
