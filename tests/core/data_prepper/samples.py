"""The samples as their documentation prints them, and with their placeholders filled in."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path(__file__).resolve().parents[3] / "include" / "samples" / "data_prepper"
PRINTED = SAMPLES / "sagemaker_batch_job.yaml"
ARRAYS = SAMPLES / "sagemaker_batch_job_arrays.yaml"
NAME = "sagemaker-batch-job-pipeline"


def filled(sample: Path = PRINTED) -> str:
    """Return a sample with its placeholders filled in."""
    text = sample.read_text()
    for placeholder, value in (
        ("name: name", "name: documents"),
        ("region: name", "region: us-west-2"),
        ("account_ID", "123456789012"),
        ('/bucket == "AWStest-offlinebatch"', '/bucket == "documents"'),
        ("s3://AWStest-offlinebatch", "s3://documents"),
    ):
        assert placeholder in text
        text = text.replace(placeholder, value)
    return text


def changed(*changes: tuple[str, str]) -> str:
    """Return the filled sample with other texts in it."""
    text = filled()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text
