"""When a pipeline runs by itself, in Airflow's terms."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetWatcher, CronDataIntervalTimetable, CronPartitionTimetable

from opensearch_batch.core.pipeline.spec import NewObjects, PipelineSpec
from opensearch_batch.triggers.new_objects import NewObjectsTrigger

# Partition and date of a run are those of the period that ended with its start: a nightly run reads yesterday.
PERIOD_BEFORE = -1
# Of a scheme of one's own Airflow asks no provider; it would load all of them to ask, boto3 included.
OWN = "x-"


def schedule_of(name: str, spec: PipelineSpec) -> Any:  # noqa: ANN401 - what a DAG takes: timetable, assets or None
    """Return what a DAG of this name takes as its schedule."""
    when = spec.when
    if when.cron:
        return CronDataIntervalTimetable(when.cron, timezone=when.timezone)
    if when.partitions:
        return CronPartitionTimetable(
            when.partitions, timezone=when.timezone, run_offset=PERIOD_BEFORE, key_format=when.key_format
        )
    if when.new_objects:
        return [_watched(name, spec, when.new_objects)]
    return [Asset(uri) for uri in when.assets] or None


def index_asset(opensearch_conn_id: str, index: str) -> Asset:
    """Return the asset that an index is to those who follow it."""
    return Asset(f"{OWN}opensearch://{opensearch_conn_id}/{index}")


def _watched(name: str, spec: PipelineSpec, new: NewObjects) -> Asset:
    """Return the source as an asset that has news when its objects change."""
    trigger = NewObjectsTrigger(
        uri=spec.source.uri,
        work=spec.work,
        pipeline=name,
        include=spec.source.include,
        exclude=spec.source.exclude,
        aws_conn_id=spec.connections.aws,
        poll_every_s=new.poll_every_s,
        sqs=new.sqs,
    )
    # Not by its URI alone: another pipeline may watch the same prefix with other globs.
    watcher = AssetWatcher(name=f"{name} objects", trigger=trigger)
    return Asset(name=f"{name} source", uri=f"{OWN}{spec.source.uri}", watchers=[watcher])
