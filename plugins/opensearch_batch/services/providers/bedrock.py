"""Bedrock's own API: an invocation job is found by its name and known by its ARN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opensearch_batch.core.errors import NotFound
from opensearch_batch.core.types.job import JobRecord
from opensearch_batch.services.bedrock import Bedrock
from opensearch_batch.services.providers.aws import aws_errors, plain
from opensearch_batch.services.providers.stopping import stop_if_live

LIVE = frozenset({"Submitted", "Validating", "Scheduled", "InProgress"})


class BedrockProvider:
    """Model invocation jobs.

    Args:
        client: boto3's, for bedrock.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - boto3 makes its clients at run time
        self._client = client

    def stage(self, uri: str, name: str) -> dict[str, str]:  # noqa: ARG002 - the protocol's
        """Do nothing: Bedrock reads from S3."""
        return {}

    def unstage(self, staged: Mapping[str, str]) -> None:
        """Do nothing."""

    def find(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the newest job of the record's name, None for none."""
        with aws_errors(f"Bedrock job {record.name}", Bedrock.errors.throttle):
            pages = self._client.get_paginator("list_model_invocation_jobs").paginate(
                nameContains=record.name, sortBy="CreationTime", sortOrder="Descending"
            )
            for page in pages:
                for job in page["invocationJobSummaries"]:
                    if job["jobName"] == record.name:
                        return plain(job)
        return None

    def look(self, record: JobRecord) -> dict[str, Any]:
        """Return what GetModelInvocationJob tells."""
        with aws_errors(f"Bedrock job {record.name}", Bedrock.errors.throttle):
            return plain(self._client.get_model_invocation_job(jobIdentifier=self._arn(record)))

    def stop(self, record: JobRecord) -> None:
        """Stop the job, unless it has ended."""

        def stop() -> None:
            with aws_errors(f"Bedrock job {record.name}", Bedrock.errors.throttle):
                self._client.stop_model_invocation_job(jobIdentifier=self._arn(record))

        stop_if_live(lambda: self.look(record).get("status") in LIVE, stop)

    def _arn(self, record: JobRecord) -> str:
        known = record.remote_job.get("jobArn") or (self.find(record) or {}).get("jobArn")
        if known is None:
            raise NotFound(f"Bedrock knows no job {record.name}")
        return str(known)
