"""A Data Prepper file is checked like any other one; what a person should know of it is no mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from opensearch_batch.core.data_prepper.check import check_data_prepper, check_pipelines
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperFile
from opensearch_batch.core.data_prepper.lint import lint
from opensearch_batch.core.pipeline.check import PipelineSummary
from opensearch_batch.services.registry import adapter_of
from tests.command_line import account, command
from tests.core.data_prepper.data_prepper_files import SHORT

ROOT = Path(__file__).resolve().parents[3]
SAMPLE = ROOT / "include" / "samples" / "data_prepper" / "sagemaker_batch_job.yaml"
ROWS = """\
rows:
  source:
    s3:
      codec: {ndjson: {}}
      scan: {buckets: [{bucket: {name: documents, filter: {include_prefix: [a/, b/]}}}]}
      aws: {region: us-east-1}
  sink:
    - opensearch: {hosts: [https://localhost:9200], index: passages}
"""


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """A file with one pipeline."""
    path = tmp_path / "books.yaml"
    path.write_text(SHORT)
    return path


def test_the_command_shows_road_remarks_and_findings() -> None:
    """And all is well."""
    done = command("check", str(SAMPLE))
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0] == f"{SAMPLE}: s3://name/sagemaker/sagemaker_djl_batch_input -> sagemaker -> test-nlp-index"
    file = DataPrepperFile(SAMPLE)
    assert lines[1:-1] == [
        *(f"{SAMPLE}:{line} {remark}" for line, remark in file.remarks),
        *(f"{SAMPLE}:{each.line} {each.location}: {each.text}" for each in lint(file)),
    ]
    assert lines[-1] == "1 file, 0 tests, 0 mistakes"


def test_the_account_has_the_findings_of_each_file() -> None:
    """A program reads them by their numbers."""
    told = account(command("check", str(SAMPLE), "--json").stdout)
    (checked,) = told["pipelines"]
    assert (told["state"], told["mistakes"], checked["mistakes"]) == ("DONE", 0, [])
    assert {each["rule"] for each in checked["findings"]} == {None, *range(1, 11)}
    assert set(checked["findings"][0]) == {"line", "location", "rule", "text"}
    assert checked["pipelines"][0]["pipeline"] == "sagemaker-batch-job-pipeline"
    assert checked["remarks"][0].startswith(f"{SAMPLE}:4 extension.osis_configuration_metadata: has no effect")


def test_a_mistake_in_a_data_prepper_file_is_told_with_its_line(books: Path) -> None:
    """Alone, because nothing else is known of the file."""
    books.write_text(SHORT.replace("index: passages", "indx: passages"))
    done = command("check", str(books))
    assert done.returncode == 2
    assert done.stdout.splitlines()[0].startswith(
        f"{books}:36 books.sink[0].opensearch.indx: unknown key. Did you mean 'index'?"
    )
    assert done.stdout.splitlines()[-1] == "1 file, 0 tests, 1 mistake"
    assert len(done.stdout.splitlines()) == 2


def test_each_pipeline_of_a_file_has_its_road(tmp_path: Path) -> None:
    """One that makes no jobs has no service."""
    path = tmp_path / "both.yaml"
    path.write_text(SHORT + ROWS)
    assert check_data_prepper(path).pipelines == [
        PipelineSummary("books", 3, "s3://documents/", "sagemaker", "passages, s3://archive/"),
        PipelineSummary("rows", 43, "s3://documents/a/, s3://documents/b/", "", "passages"),
    ]
    assert f"{path}: s3://documents/a/, s3://documents/b/ -> passages" in command("check", str(path)).stdout


def test_two_files_with_a_pipeline_of_one_name_are_a_mistake_of_the_second(books: Path) -> None:
    """Each would be the same DAG."""
    second = books.with_name("films.yaml")
    second.write_text(ROWS + SHORT.partition("# file\n")[2])
    one, two = check_pipelines([books, second], adapter_of)
    assert one.mistakes == []
    assert two.mistakes == [f"{second}:9 books: {books} has a pipeline with this name; rename one"]
    assert command("check", str(books.parent)).returncode == 2


def test_a_pipeline_file_of_ours_has_the_name_of_its_file(books: Path) -> None:
    """So it may be taken too; two of ours lie in folders of their own."""
    ours = ROOT / "include" / "pipelines" / "passages.yaml"
    books.write_text(SHORT.replace("books:", "passages:"))
    assert [checked.mistakes for checked in check_pipelines([ours, books], adapter_of)] == [
        [],
        [f"{books}:3 passages: {ours} has a pipeline with this name; rename one"],
    ]
    assert check_pipelines([books, ours], adapter_of)[1].mistakes == [
        f"{ours}:1 passages: {books} has a pipeline with this name; rename one"
    ]
    assert [checked.mistakes for checked in check_pipelines([ours, ours], adapter_of)] == [[], []]
