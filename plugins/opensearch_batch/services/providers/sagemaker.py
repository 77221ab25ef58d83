"""SageMaker's own API: a transform job is known by its name, which an account and region give once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opensearch_batch.core.errors import NotFound
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.services.providers.aws import aws_errors, plain
from opensearch_batch.services.providers.stopping import stop_if_live
from opensearch_batch.services.sagemaker import SageMaker

LIVE = frozenset({"InProgress"})


class SageMakerProvider:
    """Transform jobs.

    Args:
        client: boto3's, for sagemaker.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - boto3 makes its clients at run time
        self._client = client

    def stage(self, uri: str, name: str) -> dict[str, str]:  # noqa: ARG002 - the protocol's
        """Do nothing: SageMaker reads from S3."""
        return {}

    def unstage(self, staged: Mapping[str, str]) -> None:
        """Do nothing."""

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the job of the record's name, None for none."""
        try:
            return self.look(record)
        except NotFound:
            return None

    def look(self, record: JobRecord) -> dict[str, Any]:
        """Return what DescribeTransformJob tells."""
        with aws_errors(f"SageMaker job {record.name}", SageMaker.errors.throttle):
            return plain(self._client.describe_transform_job(TransformJobName=record.name))

    def stop(self, record: JobRecord) -> None:
        """Stop the job, unless it has ended."""

        def stop() -> None:
            with aws_errors(f"SageMaker job {record.name}", SageMaker.errors.throttle):
                self._client.stop_transform_job(TransformJobName=record.name)

        stop_if_live(lambda: self.look(record).get("TransformJobStatus") in LIVE, stop)
