"""The schedule of a pipeline as Airflow timetables and assets."""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher, CronDataIntervalTimetable, CronPartitionTimetable

from opensearch_batch.core.pipeline.spec import PipelineSpec
from opensearch_batch.core.pipeline.spec_parts import NewObjects
from opensearch_batch.triggers.new_objects import NewObjectsTrigger

# A run has the partition and date of the period that ends when the run starts: a nightly run reads yesterday.
PERIOD_BEFORE = -1
# Prefix of asset schemes: for a scheme such as s3, Airflow would import all providers to find its normalizer.
SCHEME_PREFIX = "x-"


def schedule_of(
    name: str, spec: PipelineSpec
) -> CronDataIntervalTimetable | CronPartitionTimetable | list[Asset] | None:
    """Return the schedule of the DAG of this name."""
    when = spec.when
    if when.cron:
        return CronDataIntervalTimetable(when.cron, timezone=when.timezone)
    if when.partitions:
        return CronPartitionTimetable(
            when.partitions, timezone=when.timezone, run_offset=PERIOD_BEFORE, key_format=when.key_format
        )
    if when.new_objects:
        return [_watched_source(name, spec, when.new_objects)]
    return [Asset(uri) for uri in when.assets] or None


def index_asset(opensearch_conn_id: str, index: str) -> Asset:
    """Return the asset of an index, which can schedule other DAGs."""
    return Asset(f"{SCHEME_PREFIX}opensearch://{opensearch_conn_id}/{index}")


def _watched_source(name: str, spec: PipelineSpec, settings: NewObjects) -> Asset:
    """Return the source as an asset; its watcher emits an event when objects of the source change."""
    trigger = NewObjectsTrigger(
        uri=spec.source.uri,
        work_prefix=spec.work_prefix,
        pipeline=name,
        include=spec.source.include,
        exclude=spec.source.exclude,
        aws_conn_id=spec.connections.aws,
        poll_every_s=settings.poll_every_s,
        sqs=settings.sqs,
    )
    # The asset has a name, because another pipeline may watch the same prefix with other globs.
    watcher = AssetWatcher(name=f"{name} objects", trigger=trigger)
    return Asset(name=f"{name} source", uri=f"{SCHEME_PREFIX}{spec.source.uri}", watchers=[watcher])
