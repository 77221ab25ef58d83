"""The schema of a pipeline's schedule."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from opensearch_batch.core.pipeline.spec_base import Seconds, about


class NewObjects(Struct, frozen=True, forbid_unknown_fields=True):
    """Starts a run when objects are added to the source or change."""

    poll_every_s: Annotated[
        Seconds, about("Interval between listings of the source, or between reads of the queue.", 60)
    ] = 60.0
    sqs: Annotated[
        str | None,
        about(
            "URL of the SQS queue that receives the bucket's event notifications; used instead of listings.",
            "https://sqs.us-east-1.amazonaws.com/123456789012/documents",
        ),
    ] = None


class Schedule(Struct, frozen=True, forbid_unknown_fields=True):
    """When runs are scheduled; exactly one of `cron`, `partitions`, `assets` and `new_objects`."""

    cron: Annotated[str | None, about("Cron expression or preset; each run has a date, `{{ ds }}`.", "@daily")] = None
    partitions: Annotated[
        str | None,
        about("Cron expression; each run has a partition, `{{ partition_key }}`.", "0 2 * * *"),
    ] = None
    key_format: Annotated[str, about("Format of the partition key (strftime).", "%Y-%m-%d")] = "%Y-%m-%d"
    timezone: Annotated[
        str, about("Time zone of `cron`, of `partitions` and of the date `{{ ds }}`.", "Europe/Vienna")
    ] = "UTC"
    assets: Annotated[
        list[str],
        about(
            "URIs of assets that other DAGs update; a run starts when all of them have been updated.",
            ["x-opensearch://opensearch_default/books"],
        ),
    ] = []
    new_objects: Annotated[
        NewObjects | None, about("Starts a run when objects are added to the source or change.", {"poll_every_s": 60})
    ] = None
