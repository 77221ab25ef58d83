"""The samples of the documents, with their placeholders filled in for a running stack, as a user fills them in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from include.local_stack.settings import REPOSITORY
from opensearch_batch.core.opensearch.ml_commons import MLCommons, fill
from opensearch_batch.core.pipeline.bodies import packaged_body
from tests.end_to_end.own_pipelines import OwnPipelines, Run
from tests.lab import MODEL

SAMPLES = REPOSITORY / "include" / "samples" / "data_prepper"
PRINTED, ARRAYS = SAMPLES / "sagemaker_batch_job.yaml", SAMPLES / "sagemaker_batch_job_arrays.yaml"
NAME = "sagemaker-batch-job-pipeline"
ACCOUNT = "123456789012"
TITAN = "amazon.titan-embed-text-v2:0"
INPUT = "sagemaker/sagemaker_djl_batch_input/"


class DataPrepperFiles:
    """Data Prepper pipelines of a user: their files, and a bucket for their documents and the jobs' outputs."""

    def __init__(self, own: OwnPipelines, *, input_filter: str = "$.text", service: str = "sagemaker") -> None:
        self.own, self.lab, self.airflow = own, own.lab, own.airflow
        self.bucket = own.lab.new_bucket()
        self.model_id = self._model(input_filter) if service == "sagemaker" else self._bedrock_model()

    def add(self, sample: Path, name: str, *, index: str, changes: Iterable[tuple[str, str]] = ()) -> str:
        """Write a sample under a name of its own, its placeholders filled in, and wait until Airflow has it."""
        return self.write(name, self.filled(sample, name, index, changes))

    def write(self, name: str, text: str) -> str:
        """Write a file and wait until Airflow has its pipeline."""
        self.own.write_text(name, text)
        self.airflow.wait_for_dag(name)
        return name

    def filled(self, sample: Path, name: str, index: str, changes: Iterable[tuple[str, str]] = ()) -> str:
        """Return a sample with its placeholders filled in."""
        host = self.lab.stack.addresses.opensearch
        text = sample.read_text()
        for placeholder, value in (
            (NAME, name),
            ("test-nlp-index", index),
            ("name: name", f"name: {self.bucket}"),
            ("region: name", "region: us-east-1"),
            ("us-west-2", "us-east-1"),
            ("account_ID", ACCOUNT),
            ('AWStest-offlinebatch"', f'{self.bucket}"'),
            ("s3://AWStest-offlinebatch", f"s3://{self.bucket}"),
            ('"model_ID"', f'"{self.model_id}"'),
            ("batch-inference-dlq", self.bucket),
            *changes,
        ):
            text = text.replace(placeholder, value)
        return re.sub(r"https://search-AWStest[^\"]*", host, text)

    def put(self, key: str, rows: Iterable[Any]) -> None:
        """Write an object of rows; a text is written as it is."""
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        self.lab.s3.put_object(Bucket=self.bucket, Key=key, Body="".join(f"{line}\n" for line in lines).encode())

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix."""
        found = self.lab.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        return [item["Key"] for item in found]

    def run(self, name: str, **conf: Any) -> Run:
        """Start a run and wait for its end."""
        run = self.own.run(name, conf)
        run.wait()
        return run

    def documents(self, index: str) -> dict[str, Any]:
        """Return the documents of an index by their ids."""
        self.lab.node("POST", f"{index}/_refresh")
        return self.lab.documents(index)

    def _model(self, input_filter: str) -> str:
        body = self._connector("sagemaker", region="us-east-1", model_name=MODEL, endpoint_name=MODEL)
        body["parameters"]["DataProcessing"]["InputFilter"] = input_filter
        return self._registered(f"data prepper {'texts' if input_filter == '$.text' else 'arrays'}", body)

    def _bedrock_model(self) -> str:
        role = f"arn:aws:iam::{ACCOUNT}:role/batch"
        body = self._connector("bedrock", region="us-east-1", model_name=TITAN, job_role_arn=role)
        return self._registered("data prepper bedrock", body)

    def _connector(self, name: str, **values: str) -> dict[str, Any]:
        body = packaged_body("connector", name)
        del body["credential"]
        return fill(body, values, "connector")

    def _registered(self, name: str, body: dict[str, Any]) -> str:
        keys = self.lab.stack.credentials
        credential = {"access_key": keys.access_key, "secret_key": keys.secret_key}
        return MLCommons(self.lab.cluster()).ensure_model(name, {**body, "credential": credential}).id
