"""A pipeline's own tests go its own flow offline, whatever its service; the command line tells what differs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from opensearch_batch.core.pipeline.check import check_pipeline
from opensearch_batch.services.registry import adapter_of
from tests.command_line import command

INCLUDE = Path(__file__).resolve().parents[3] / "include"
VALUES = {
    "sagemaker": {"region": "us-east-1", "model_name": "m", "endpoint_name": "m"},
    "bedrock": {"region": "us-east-1", "model_name": "amazon.titan-embed-text-v2:0", "job_role_arn": "r"},
    "openai": {"model_name": "m"},
    "cohere": {"model_name": "m"},
}
TEST: dict[str, Any] = {
    "name": "cats",
    "records": [{"id": 1, "text": "a cat"}, {"id": 2}, {"id": 3, "text": "two cats"}],
    "predictions": [[0.5, 1.5], [0, 0], [2.5, 0.25]],
    "documents": [
        {"_id": "1", "text": "a cat", "embedding": [0.5, 1.5]},
        {"_id": "3", "text": "two cats", "embedding": [2.5, 0.25]},
    ],
    "dead_letters": ["nothing at $.text"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folders."""
    for name in ("pipelines", "indexes"):
        (tmp_path / name).mkdir()
    return tmp_path


def write(folder: Path, service: str = "sagemaker", *tests: dict[str, Any], **parts: dict[str, Any]) -> Path:
    """Write a pipeline of a service."""
    spec: dict[str, Any] = {
        "source": {"uri": "s3://documents/in/"},
        "id": "$.id",
        "work_prefix": "s3://work",
        "batch_predict": {"service": service, "connector": service, "values": VALUES[service], "input": "$.text"},
        "ingest": {
            "index": "cats",
            "index_body": "passages",
            "field_map": {"text": "$.text", "embedding": "prediction"},
        },
        "tests": list(tests),
    }
    for name, part in parts.items():
        spec[name] = {**spec[name], **part}
    path = folder / "pipelines" / "cats.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


@pytest.mark.parametrize("service", VALUES)
def test_what_the_file_says_is_what_becomes_of_its_records(folder: Path, service: str) -> None:
    """Through the rows of each service."""
    checked = check_pipeline(write(folder, service, TEST), adapter_of)
    assert (checked.mistakes, checked.tests, checked.service) == ([], 1, service)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": TEST["documents"][:1]}, "2 documents, expected 1"),
        (
            {"documents": [TEST["documents"][0], {**TEST["documents"][1], "text": "no cats"}]},
            '"two cats", expected "no cats"',
        ),
        (
            {"documents": [TEST["documents"][0], {**TEST["documents"][1], "more": 1}]},
            "documents[1].more: absent, expected 1",
        ),
        (
            {"documents": [TEST["documents"][0], {"_id": "3", "text": "two cats"}]},
            "embedding: [2.5,0.25], expected absent",
        ),
        ({"documents": [{**TEST["documents"][0], "_id": "9"}, TEST["documents"][1]]}, '_id: "1", expected "9"'),
        ({"dead_letters": []}, "1 dead letters, expected 0: nothing at $.text"),
        ({"dead_letters": ["too long"]}, "expected 'too long'"),
        ({"predictions": [[1]]}, "3 records, but 1 predictions"),
    ],
)
def test_each_difference_is_reported_with_its_line(folder: Path, change: dict[str, Any], message: str) -> None:
    """File, line, test and what was found."""
    path = write(folder, "sagemaker", {**TEST, "name": "whole"}, {**TEST, **change})
    found = check_pipeline(path, adapter_of).mistakes
    line = path.read_text().splitlines().index("- name: cats") + 1
    assert found
    assert all(f"{path}:{line} tests[1]: cats (sagemaker): " in mistake for mistake in found)
    assert any(message in mistake for mistake in found), found


@pytest.mark.parametrize(
    ("service", "rows"),
    [
        ("sagemaker", [{"id": n, "text": "x", "SageMakerOutput": [n, 0.5]} for n in (1, 2)]),
        ("openai", [{"response": {"body": {"data": [{"embedding": [n, 0.5]}]}}} for n in (1, 2)]),
    ],
)
def test_outputs_may_be_given_as_the_service_writes_them(folder: Path, service: str, rows: list[Any]) -> None:
    """For paths in its own rows."""
    path = {"sagemaker": "$.SageMakerOutput", "openai": "$.response.body.data[0].embedding"}[service]
    test = {
        "name": "rows",
        "records": [{"id": n, "text": "x"} for n in (1, 2)],
        "outputs": rows,
        "documents": [{"_id": str(n), "v": [n, 0.5]} for n in (1, 2)],
    }
    ingest = {"field_map": {"v": path}, "index_body": None, "index": "cats"}
    assert check_pipeline(write(folder, service, test, ingest=ingest), adapter_of).mistakes == []


@pytest.mark.parametrize("service", ["sagemaker", "openai"])
def test_several_inputs_have_a_prediction_each(folder: Path, service: str) -> None:
    """A list for each record."""
    test = {
        "name": "two",
        "records": [{"id": 1, "title": "t", "text": "x"}],
        "predictions": [[[1, 2], [3, 4]]],
        "documents": [{"_id": "1", "a": [1, 2], "b": [3, 4]}],
    }
    parts: dict[str, dict[str, Any]] = {
        "batch_predict": {"input": ["$.title", "$.text"]},
        "ingest": {"index_body": None, "field_map": {"a": "prediction[0]", "b": "prediction[1]"}},
    }
    assert check_pipeline(write(folder, service, test, **parts), adapter_of).mistakes == []
    wrong = {**test, "predictions": [[[1, 2]]]}
    (mistake,) = check_pipeline(write(folder, service, wrong, **parts), adapter_of).mistakes
    assert "a record has 2 inputs; write a list of 2 predictions" in mistake


def test_a_document_without_an_id_of_its_own_is_compared_by_its_fields(folder: Path) -> None:
    """Nobody could write down the id it gets."""
    documents = [{"text": one["text"], "embedding": one["embedding"]} for one in TEST["documents"]]
    path = write(folder, "sagemaker", {**TEST, "documents": documents})
    path.write_text(path.read_text().replace("id: $.id\n", ""))
    assert check_pipeline(path, adapter_of).mistakes == []


def test_of_records_with_the_same_id_the_last_one_wins(folder: Path) -> None:
    """Also if it is rejected."""
    test = {
        "name": "twice",
        "records": [{"id": 1, "text": "old"}, {"id": 2, "text": "x"}, {"id": 1, "text": "new"}, {"id": 2}],
        "predictions": [[1, 2], [3, 4], [5, 6], [7, 8]],
        "documents": [{"_id": "1", "text": "new", "embedding": [5, 6]}],
        "dead_letters": ["nothing at $.text"],
    }
    assert check_pipeline(write(folder, "openai", test), adapter_of).mistakes == []


def test_a_model_that_only_the_cluster_knows_is_tried_with_an_example(folder: Path) -> None:
    """Its parameters are not to be had offline."""
    path = write(folder, "sagemaker", TEST, batch_predict={"connector": None, "model_id": "abc"})
    assert check_pipeline(path, adapter_of).mistakes == []


@pytest.mark.parametrize(("service", "mistakes"), [("sagemaker", 0), ("openai", 1), ("cohere", 1), ("bedrock", 1)])
def test_inputs_go_as_they_are_only_where_rows_hold_their_records(folder: Path, service: str, mistakes: int) -> None:
    """Elsewhere only prepare could join them."""
    found = check_pipeline(write(folder, service, source={"prepare": False}), adapter_of).mistakes
    assert len(found) == mistakes
    assert all("do not contain their records with these parameters; remove" in mistake for mistake in found)


def test_every_service_of_the_form_is_tried(folder: Path) -> None:
    """A mistake of one is told with its name."""
    instead = {"openai": {"connector": "openai", "values": {}}, "cohere": {"connector": "coher"}}
    found = check_pipeline(write(folder, "sagemaker", TEST, batch_predict={"instead": instead}), adapter_of).mistakes
    assert len(found) == 2
    assert "batch_predict.instead.openai: connector" in found[0]
    assert "no value for <model_name>" in found[0]
    assert "Did you mean 'cohere'?" in found[1]


def test_vectors_of_another_length_than_the_indexs_are_told(folder: Path) -> None:
    """Before anything is paid."""
    (mistake,) = check_pipeline(write(folder, "sagemaker", batch_predict={"dimension": 3}), adapter_of).mistakes
    assert "batch_predict.dimension: 3, but field embedding of passages has dimension 384" in mistake


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a project's folder."""
    return command("check", *arguments, cwd=folder)


def test_the_command_tells_of_all_files_and_of_their_jobs(folder: Path) -> None:
    """A listing says how many."""
    path = write(folder, "sagemaker", TEST)
    (folder / "listing.txt").write_text(
        "2026-11-01 02:00:00 1000000 in/a.jsonl\n2026-11-01 02:00:00 10 in/b.jsonl.gz\n"
    )
    done = check(folder, str(path), "--listing", "listing.txt")
    assert done.returncode == 0
    assert f"{path}: s3://documents/in/ -> sagemaker -> cats; 1 test; mode snapshot: each run" in done.stdout
    assert "2 objects, 1,000,010 bytes, about 50,000 records: 6 shards, one job each" in done.stdout
    assert "compressed objects: 1; expect more jobs" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 file, 1 test, 0 mistakes"


def test_the_command_fails_for_a_mistake_and_goes_on(folder: Path) -> None:
    """Exit code 2, as for any refusal; as JSON each mistake is a member."""
    write(folder, "sagemaker", {**TEST, "dead_letters": []})
    (folder / "pipelines" / "other.yaml").write_text("sourc: {}\n")
    done = check(folder, str(folder / "pipelines"))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (2, "2 files, 1 test, 3 mistakes")
    told = json.loads(check(folder, str(folder / "pipelines"), "--json").stdout)
    assert (told["state"], told["mistakes"]) == ("REFUSED", 3)
    assert "Did you mean 'source'?" in told["pipelines"][1]["mistakes"][0]


@pytest.mark.parametrize(
    ("argument", "told"), [("nowhere", "no such file or folder"), ("indexes", "no *.yaml or *.yml file")]
)
def test_where_there_is_nothing_to_check_is_told(folder: Path, argument: str, told: str) -> None:
    """It must not look like a check that passed."""
    done = check(folder, argument)
    assert (done.returncode, told in done.stderr) == (2, True)
