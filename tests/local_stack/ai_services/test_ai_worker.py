"""The worker: what a job reads and stores, and what stopping, failing and dying leave behind."""

import gzip
import json
import time
from typing import Any

import pytest

from tests.local_stack.ai_services.stand import BUCKET, Stand, new_name, request
from tests.waiting import eventually

LONG_JOB_LINES = 600
PLAIN = {"InputFilter": "$", "JoinSource": "None", "OutputFilter": "$"}


def run_job(stand: Stand, source: str, output: str, **changes: object) -> dict[str, Any]:
    """Run a job to its end and give its description."""
    name = new_name()
    stand.client("sagemaker").create_transform_job(**request(name, source, output, **changes))
    return stand.wait(name)


def transform_input(uri: str, *, kind: str = "S3Prefix", **changes: str) -> dict[str, Any]:
    """A TransformInput over another source, or read in another way."""
    source = {"S3DataSource": {"S3DataType": kind, "S3Uri": uri}}
    return {"ContentType": "application/json", "SplitType": "Line", "DataSource": source, **changes}


def test_a_prefix_keeps_subfolders(ai_stand: Stand) -> None:
    """Each object below a prefix gets its own output, in the same subfolder, under its own name."""
    folder = new_name("in")
    ai_stand.put_lines(f"{folder}/a.jsonl", ['{"text":"one"}'])
    ai_stand.put_lines(f"{folder}/sub/b.jsonl", ['{"text":"two"}', '{"text":"three"}'])
    ai_stand.s3.put_object(Bucket=BUCKET, Key=f"{folder}/empty-folder/", Body=b"")
    assert run_job(ai_stand, f"{folder}/", f"{folder}-out/")["TransformJobStatus"] == "Completed"
    assert ai_stand.keys(f"{folder}-out/") == [f"{folder}-out/a.jsonl.out", f"{folder}-out/sub/b.jsonl.out"]
    assert len(ai_stand.read(f"{folder}-out/sub/b.jsonl.out").splitlines()) == 2


def test_a_manifest_names_its_objects(ai_stand: Stand) -> None:
    """Only the objects of a manifest are computed, each under its relative key."""
    folder = new_name("in")
    for name in ("x/a.jsonl", "x/b.jsonl", "c.jsonl"):
        ai_stand.put_lines(f"{folder}/{name}", ['{"text":"one"}'])
    manifest = [{"prefix": f"s3://{BUCKET}/{folder}/"}, "x/a.jsonl", "c.jsonl"]
    ai_stand.put_lines(f"{folder}.manifest", [json.dumps(manifest)])
    changed = transform_input(f"s3://{BUCKET}/{folder}.manifest", kind="ManifestFile")
    described = run_job(ai_stand, "unused", f"{folder}-out", TransformInput=changed)
    assert described["TransformJobStatus"] == "Completed"
    assert ai_stand.keys(f"{folder}-out/") == [f"{folder}-out/c.jsonl.out", f"{folder}-out/x/a.jsonl.out"]


def test_an_unsplit_object_is_one_record(ai_stand: Stand) -> None:
    """With SplitType None the whole object is one payload, and a list of texts gives a list of vectors."""
    folder = new_name("in")
    ai_stand.put_lines(f"{folder}/a.json", ['["one",', ' "two"]'])
    changed = transform_input(f"s3://{BUCKET}/{folder}/a.json", SplitType="None")
    described = run_job(ai_stand, "unused", folder, TransformInput=changed, DataProcessing=PLAIN)
    assert described["TransformJobStatus"] == "Completed"
    vectors = json.loads(ai_stand.read(f"{folder}/a.json.out"))
    assert [len(vector) for vector in vectors] == [384, 384]


def test_a_gzipped_object(ai_stand: Stand) -> None:
    """CompressionType Gzip is read line by line like any other."""
    folder = new_name("in")
    ai_stand.s3.put_object(Bucket=BUCKET, Key=f"{folder}/a.gz", Body=gzip.compress(b'"one"\n"two"\n'))
    changed = transform_input(f"s3://{BUCKET}/{folder}/a.gz", CompressionType="Gzip")
    run_job(ai_stand, "unused", folder, TransformInput=changed, DataProcessing=PLAIN)
    assert len(ai_stand.read(f"{folder}/a.gz.out").splitlines()) == 2


def test_one_bad_record_fails_the_job(ai_stand: Stand) -> None:
    """The reason names object and line; the bad object has no output, the good one has."""
    folder = new_name("in")
    ai_stand.put_lines(f"{folder}/bad.jsonl", ['{"text":"one"}', '{"text":7}'])
    ai_stand.put_lines(f"{folder}/good.jsonl", ['{"text":"one"}'])
    described = run_job(ai_stand, f"{folder}/", f"{folder}-out")
    assert described["TransformJobStatus"] == "Failed"
    reason = described["FailureReason"]
    assert reason.startswith(f"ClientError: s3://{BUCKET}/{folder}/bad.jsonl line 2: the model takes a JSON string")
    assert ai_stand.keys(f"{folder}-out/") == [f"{folder}-out/good.jsonl.out"]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        (f"s3://{BUCKET}/nothing-here/", "ClientError: No S3 objects found under S3 URL"),
        ("s3://no-such-bucket-anywhere/a/", 'ClientError: The S3 input "s3://no-such-bucket-anywhere/a/" cannot'),
    ],
)
def test_no_input_fails_the_job(ai_stand: Stand, uri: str, reason: str) -> None:
    """A missing bucket or an empty prefix is a failed job with its reason, not a refused request."""
    described = run_job(ai_stand, "unused", "out", TransformInput=transform_input(uri))
    assert described["TransformJobStatus"] == "Failed"
    assert described["FailureReason"].startswith(reason)


def test_an_output_bucket_that_is_missing(ai_stand: Stand) -> None:
    """A job that cannot store its output is Failed with S3's reason."""
    folder = new_name("in")
    ai_stand.put_lines(f"{folder}/a.jsonl", ['{"text":"one"}'])
    output = {"S3OutputPath": "s3://no-such-bucket-anywhere/out", "AssembleWith": "Line"}
    described = run_job(ai_stand, f"{folder}/", "unused", TransformOutput=output)
    assert described["TransformJobStatus"] == "Failed"
    assert "NoSuchBucket" in described["FailureReason"]


def test_a_record_larger_than_the_payload_limit(ai_stand: Stand) -> None:
    """MaxPayloadInMB bounds a record; the reason names the line."""
    folder = new_name("in")
    ai_stand.put_lines(f"{folder}/a.jsonl", ['{"text":"one"}', json.dumps({"text": "x" * 1_100_000})])
    described = run_job(ai_stand, f"{folder}/", f"{folder}-out", MaxPayloadInMB=1)
    assert "a.jsonl line 2: 1100013 bytes are more than MaxPayloadInMB" in described["FailureReason"]


def test_an_injected_failure(ai_stand: Stand) -> None:
    """A job that is told to fail ends as Failed with a reason and without output."""
    folder = new_name("in")
    ai_stand.put_lines(f"{folder}/a.jsonl", ['{"text":"one"}'])
    ai_stand.fault("fail")
    described = run_job(ai_stand, f"{folder}/", f"{folder}-out")
    assert (described["TransformJobStatus"], described["FailureReason"][:14]) == ("Failed", "AlgorithmError")
    assert ai_stand.keys(f"{folder}-out/") == []


def test_a_delayed_job_does_not_hold_up_others(ai_stand: Stand) -> None:
    """A delayed job is InProgress without a start, while a later one completes; stopped, it never starts."""
    folder, name = new_name("in"), new_name()
    ai_stand.put_lines(f"{folder}/a.jsonl", ['{"text":"one"}'])
    client = ai_stand.client("sagemaker")
    ai_stand.fault("delay", seconds=3600)
    client.create_transform_job(**request(name, f"{folder}/", f"{folder}-out"))
    assert run_job(ai_stand, f"{folder}/", f"{folder}-other")["TransformJobStatus"] == "Completed"
    waiting = client.describe_transform_job(TransformJobName=name)
    assert (waiting["TransformJobStatus"], "TransformStartTime" in waiting) == ("InProgress", False)
    client.stop_transform_job(TransformJobName=name)
    assert ai_stand.wait(name)["TransformJobStatus"] == "Stopped"
    assert ai_stand.keys(f"{folder}-out/") == []


def test_a_delay_ends(ai_stand: Stand) -> None:
    """A job delayed by a second starts a second later and completes."""
    folder = new_name("in")
    ai_stand.put_lines(f"{folder}/a.jsonl", ['{"text":"one"}'])
    ai_stand.fault("delay", seconds=1)
    described = run_job(ai_stand, f"{folder}/", f"{folder}-out")
    assert described["TransformJobStatus"] == "Completed"
    assert (described["TransformStartTime"] - described["CreationTime"]).total_seconds() >= 1


def long_job(stand: Stand) -> tuple[str, str]:
    """Start a job of several seconds and wait until it is being computed: its name and output folder."""
    folder, name = new_name("in"), new_name()
    stand.put_lines(
        f"{folder}/a.jsonl", [json.dumps({"text": f"{i} " + "the sea is wide " * 8}) for i in range(LONG_JOB_LINES)]
    )
    client = stand.client("sagemaker")
    client.create_transform_job(**request(name, f"{folder}/", f"{folder}-out"))
    eventually(lambda: "TransformStartTime" in client.describe_transform_job(TransformJobName=name), "job starts")
    return name, f"{folder}-out/"


def test_stopping_a_running_job(ai_stand: Stand) -> None:
    """A stopped job is Stopping, then Stopped, stores nothing, and cannot be stopped again."""
    name, output = long_job(ai_stand)
    answer = ai_stand.post_signed("/StopTransformJob", f'{{ "TransformJobName" : "{name}"}}')
    assert (answer.status_code, answer.content) == (200, b"")
    client = ai_stand.client("sagemaker")
    assert client.describe_transform_job(TransformJobName=name)["TransformJobStatus"] in {"Stopping", "Stopped"}
    assert ai_stand.wait(name, leaves=("Stopping",))["TransformJobStatus"] == "Stopped"
    assert ai_stand.keys(output) == []
    with pytest.raises(client.exceptions.ClientError, match="the transform job is in status Stopped"):
        client.stop_transform_job(TransformJobName=name)


def test_a_job_outlives_its_worker(ai_stand: Stand) -> None:
    """A job whose worker was killed stays InProgress, and the next worker computes it from its start."""
    name, output = long_job(ai_stand)
    ai_stand.kill_worker()
    client = ai_stand.client("sagemaker")
    left = client.describe_transform_job(TransformJobName=name)
    assert left["TransformJobStatus"] == "InProgress"
    time.sleep(0.01)  # start times are told in milliseconds
    ai_stand.start_worker()
    ended = ai_stand.wait(name)
    assert ended["TransformJobStatus"] == "Completed"
    assert ended["TransformStartTime"] > left["TransformStartTime"]
    assert len(ai_stand.read(f"{output}a.jsonl.out").splitlines()) == LONG_JOB_LINES
    assert list((ai_stand.state_dir / "work").iterdir()) == []
