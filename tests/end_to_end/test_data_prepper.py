"""A Data Prepper file runs as it is: from documents in S3 to the answer of a neural query."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from opensearch_batch.core.runs.run_account import RunCounts
from tests.end_to_end.data_prepper_files import ARRAYS, INPUT, PRINTED, DataPrepperFiles
from tests.end_to_end.own_pipelines import OwnPipelines
from tests.lab import Lab


@pytest.fixture(scope="module")
def files(lab: Lab) -> Iterator[DataPrepperFiles]:
    """The files of one user."""
    own = OwnPipelines(lab)
    yield DataPrepperFiles(own)
    own.pause()


BEDROCK = """
dp-bedrock:
  source:
    s3:
      codec: {{ndjson: {{}}}}
      aws: {{region: us-east-1}}
      scan:
        buckets:
          - bucket: {{name: {bucket}, data_selection: metadata_only, filter: {{include_prefix: [in/]}}}}
          - bucket: {{name: {bucket}, data_selection: data_only, filter: {{include_prefix: [out/]}}}}
  processor:
    - ml_inference:
        host: {host}
        service_name: bedrock
        model_id: {model_id}
        output_path: s3://{bucket}/out/
        ml_when: /bucket == "{bucket}"
        aws: {{region: us-east-1}}
    - s3_enrich:
        bucket: {{name: {bucket}, filter: {{include_prefix: in/}}}}
        codec: {{ndjson: {{extension: jsonl}}}}
        aws: {{region: us-east-1}}
        s3_key_path: s3/key
        s3_object_name_pattern: '^(.*)\\.jsonl\\.out$'
        correlation_keys: [recordId]
        keys_to_merge: [title]
    - copy_values: {{entries: [{{from_key: modelOutput/embedding, to_key: vector}}]}}
    - delete_entries: {{with_keys: [modelInput, modelOutput]}}
  sink:
    - opensearch: {{hosts: ["{host}"], index: dp-bedrock, document_id: "${{recordId}}"}}
"""


def passages(first: int, count: int, **more: str) -> list[dict[str, str]]:
    """Make rows like those of the document."""
    return [{"_id": f"{n}", "text": f"what is amber number {n}", **more} for n in range(first, first + count)]


@pytest.mark.slow
@pytest.mark.each_version
def test_the_sample_with_its_placeholders_filled_in_answers_a_neural_query(files: DataPrepperFiles) -> None:
    """One run takes rows with titles from S3 into an index that a neural query finds them in."""
    files.put(f"{INPUT}one.json", passages(0, 20, title="amber"))
    files.put(f"{INPUT}two.json", passages(20, 10, title="amber"))
    jobs = files.lab.jobs()
    name = files.add(PRINTED, "dp-printed", index="dp-printed")
    (run,) = files.own.wait_for_runs(name, 1)
    assert run.wait() == "success"
    assert files.lab.jobs() == jobs + 1
    assert run.counts() == dict.fromkeys(RunCounts.__struct_fields__, 0) | {"read": 30, "indexed": 30}
    found = files.documents("dp-printed")
    assert len(found) == 30
    assert found["3"].keys() == {"title", "chapter", "chapter_embedding"}
    question = {"query_text": "what is amber number 7", "model_id": files.model_id, "k": 3}
    answer = files.lab.node(
        "POST",
        "dp-printed/_search",
        {"_source": {"excludes": ["chapter_embedding"]}, "query": {"neural": {"chapter_embedding": question}}},
    )
    assert answer["hits"]["hits"][0]["_id"] == "7"


@pytest.mark.slow
def test_rows_without_a_title_are_counted_as_unrouted_and_the_run_says_so(files: DataPrepperFiles) -> None:
    """The document's own rows have none: the original drops them without a word."""
    files = DataPrepperFiles(files.own)
    files.put(f"{INPUT}one.json", passages(0, 7))
    name = files.add(PRINTED, "dp-untitled", index="dp-untitled")
    (run,) = files.own.wait_for_runs(name, 1)
    assert run.wait() == "success"
    counts = run.counts()
    assert (counts["read"], counts["indexed"], counts["unrouted"]) == (7, 0, 7)
    assert "7 rows unrouted, all of them, so the pipeline writes nothing" in run.log("reconcile")


@pytest.mark.slow
def test_a_scan_takes_what_is_new_and_pays_for_nothing_else(files: DataPrepperFiles) -> None:
    """New objects are a job of their own; a changed one is done again; the metadata of objects is no document."""
    files = DataPrepperFiles(files.own)
    files.put(f"{INPUT}one.json", passages(0, 5, title="amber"))
    name = files.add(PRINTED, "dp-again", index="dp-again")
    (run,) = files.own.wait_for_runs(name, 1)
    assert run.wait() == "success"
    jobs = files.lab.jobs()
    assert files.run(name).task("batch_predict")["state"] == "skipped"
    assert files.lab.jobs() == jobs
    files.put(f"{INPUT}two.json", passages(5, 3, title="amber"))
    files.put(f"{INPUT}one.json", passages(0, 6, title="other"))
    assert files.run(name).counts()["indexed"] == 9
    assert files.lab.jobs() == jobs + 1
    found = files.documents("dp-again")
    assert {document["title"] for document in found.values()} == {"amber", "other"}
    assert len(found) == 8
    # The original writes manifests among the inputs, where its next scan finds them.
    assert [key.rpartition("/")[2] for key in files.keys(INPUT)] == ["one.json", "two.json"]


@pytest.mark.slow
def test_the_older_form_of_the_sample_maps_elements_of_arrays(files: DataPrepperFiles) -> None:
    """Two texts a row give two vectors a row, each copied by its number."""
    files = DataPrepperFiles(files.own, input_filter="$.content")
    rows = [{"_id": f"{n}", "content": [f"chapter {n}", f"title {n}"]} for n in range(4)]
    files.put(f"{INPUT}one.json", rows)
    name = files.add(ARRAYS, "dp-arrays", index="dp-arrays")
    (run,) = files.own.wait_for_runs(name, 1)
    assert run.wait() == "success"
    found = files.documents("dp-arrays")
    assert found["2"].keys() == {"chapter", "title", "chapter_embedding", "title_embedding"}
    assert (found["2"]["chapter"], found["2"]["title"]) == ("chapter 2", "title 2")
    mappings = files.lab.node("GET", "dp-arrays/_mapping")["dp-arrays"]["mappings"]["properties"]
    assert {mappings[field]["dimension"] for field in ("chapter_embedding", "title_embedding")} == {384}


@pytest.mark.slow
def test_a_job_that_fails_is_told_and_its_inputs_are_dead_letters_of_the_originals_form(
    files: DataPrepperFiles,
) -> None:
    """The document's broken rows fail SageMaker's job; the run fails, and a later scan does not pay again by itself."""
    files = DataPrepperFiles(files.own)
    broken = '{"_id": "1", "text": "what is amber", "metadata": {"world war 2"}}'
    files.put(f"{INPUT}one.json", [*passages(0, 2, title="amber"), broken])
    name = files.add(PRINTED, "dp-broken", index="dp-broken")
    (run,) = files.own.wait_for_runs(name, 1)
    assert run.wait() == "failed"
    assert "its job" in run.log("reconcile")
    (key,) = files.keys("bedrock-dlq/")
    told = json.loads(files.lab.s3.get_object(Bucket=files.bucket, Key=key)["Body"].read())["dlqObjects"][0]
    assert (told["pluginId"], told["failedData"]["s3Key"]) == ("s3", f"{INPUT}one.json")
    jobs = files.lab.jobs()
    again = files.run(name)
    assert again.wait() == "success"
    assert again.task("batch_predict")["state"] == "skipped"
    assert files.lab.jobs() == jobs


@pytest.mark.slow
def test_outputs_of_another_pipelines_job_are_read_after_its_end(files: DataPrepperFiles) -> None:
    """One pipeline submits, another one ingests: the second leaves alone what the first still writes."""
    files = DataPrepperFiles(files.own)
    files.put(f"{INPUT}one.json", passages(0, 4, title="amber"))
    submits = files.add(PRINTED, "dp-submits", index="dp-none", changes=[("sagemaker/output/", "elsewhere/")])
    (first,) = files.own.wait_for_runs(submits, 1)
    assert first.wait() == "success"
    assert first.task("ingest")["state"] == "skipped"
    ingests = files.add(
        PRINTED, "dp-ingests", index="dp-ingests", changes=[("sagemaker/sagemaker_djl_batch_input", "nothing/")]
    )
    (second,) = files.own.wait_for_runs(ingests, 1)
    assert second.wait() == "success"
    assert second.counts()["indexed"] == 4
    assert len(files.documents("dp-ingests")) == 4


@pytest.mark.slow
def test_rows_of_bedrock_are_joined_with_their_records(files: DataPrepperFiles) -> None:
    """A job an object; the join is by the job's own input, and the manifest that Bedrock writes is no data."""
    files = DataPrepperFiles(files.own, service="bedrock")
    for number in range(2):
        rows = [
            {"recordId": f"{number}-{n:03}", "title": f"title {n}", "modelInput": {"inputText": f"amber {n}"}}
            for n in range(100)
        ]
        files.put(f"in/{number}.jsonl", rows)
    host = files.lab.stack.addresses.opensearch
    name = files.write("dp-bedrock", BEDROCK.format(bucket=files.bucket, host=host, model_id=files.model_id))
    (run,) = files.own.wait_for_runs(name, 1)
    assert run.wait() == "success"
    assert run.counts()["indexed"] == 200
    found = files.documents("dp-bedrock")
    assert found["1-042"].keys() == {"recordId", "title", "vector"}
    assert found["1-042"]["title"] == "title 42"
    assert files.run(name).task("ingest_rows")["state"] == "skipped"
