"""Emits measurements as metrics of Airflow, with its tags; Airflow's configuration selects the back end."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta

from airflow.sdk import Context
from airflow.sdk.observability import stats

from opensearch_batch.core.runs.metrics import NO_SERVICE, SHARED_TAGS, Measurement

log = logging.getLogger(__name__)


def emit(measurements: Iterable[Measurement], context: Context, service: str | None) -> None:
    """Emit measurements of the run's pipeline; an error in measuring or emitting is logged, and fails no task."""
    try:
        pipeline = stats.normalize_name_for_stats(context["dag_run"].dag_id, log_warning=False)
        shared = dict(zip(SHARED_TAGS, (pipeline, service or NO_SERVICE), strict=True))
        for metric, value, tags in measurements:
            if metric.kind == "timer":
                stats.timing(metric.name, timedelta(seconds=value), tags={**shared, **tags})
            else:
                stats.incr(metric.name, int(value), tags={**shared, **tags})
    except Exception as error:  # noqa: BLE001 - any error of a back end
        log.warning("metrics were not emitted: %s", error)
