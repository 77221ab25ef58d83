"""This package's settings in a Data Prepper file: ``extension.opensearch_batch``, which Data Prepper ignores."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from opensearch_batch.core.config.options import Options
from opensearch_batch.core.pipeline.spec_parts import S3_PREFIX, Alerts, Count, Percent, Seconds, about
from opensearch_batch.core.types.counts import MAX_DEAD_LETTERS
from opensearch_batch.core.types.job import DEADLINE_S


class ExtensionConnections(Options, frozen=True, kw_only=True):
    """Ids of Airflow connections. Without the id of a cluster's connection, tasks use hosts and roles in the file."""

    aws: Annotated[str, Meta(min_length=1), about("S3, SageMaker and Bedrock.", "aws_default")] = "aws_default"
    opensearch: Annotated[str, Meta(min_length=1), about("The cluster of the sink.", "opensearch_default")] | None = (
        None
    )
    model_opensearch: (
        Annotated[str, Meta(min_length=1), about("The cluster of the model.", "opensearch_default")] | None
    ) = None


class ExtensionSettings(Options, frozen=True, kw_only=True):
    """This package's settings; all are optional."""

    work_prefix: (
        Annotated[str, Meta(pattern=S3_PREFIX), about("The S3 prefix of this package's files.", "s3://my-work-bucket")]
        | None
    ) = None
    connections: ExtensionConnections = ExtensionConnections()
    alerts: Alerts = Alerts()
    max_jobs_in_flight: Annotated[Count, about("Maximum number of concurrent jobs of the model.", 10)] | None = None
    poll_every_s: Annotated[Seconds, about("Poll interval of a new job; it grows with the age of the job.", 30)] = 30.0
    deadline_s: Annotated[Seconds, about("Time after which an unfinished job is cancelled.", 86400)] = DEADLINE_S
    max_dead_letters: Annotated[Percent, about("Share of rows that may become dead letters.", "5%")] = MAX_DEAD_LETTERS
    task_timeout_s: Annotated[Seconds, about("Maximum run time of a task; Airflow then retries it.", 86400)] = 86_400.0
    owner: Annotated[str, about("Shown in Airflow's UI.", "search-team")] = "airflow"
    tags: Annotated[tuple[str, ...], about("Tags of the DAGs.", ["books"])] = ()
