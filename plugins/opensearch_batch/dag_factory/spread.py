"""Creates the stages that prepare a large source: split, read, compare, stage, reserve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import TaskGroup

from opensearch_batch.operators.prepare import OpenSearchPrepareOperator
from opensearch_batch.operators.spread import (
    SPLIT_TASK_NAME,
    OpenSearchCompareOperator,
    OpenSearchReadOperator,
    OpenSearchReserveOperator,
    OpenSearchSplitOperator,
    OpenSearchStageOperator,
)

# The task that `prepare` skips if it has done all the work.
SPLIT = "split"


def spread_stages(
    prepare: OpenSearchPrepareOperator, index_body: Mapping[str, Any] | None, shared: Mapping[str, Any]
) -> OpenSearchReserveOperator:
    """Create the stages after `prepare`, with `shared` arguments of `SpreadOperator`; return the last one."""
    # If nothing is to be read, or to be staged, the mapped task is skipped.
    after_mapped = {**shared, "trigger_rule": "none_failed_min_one_success"}
    mapped = {**shared, "map_index_template": SPLIT_TASK_NAME}
    with TaskGroup("spread", prefix_group_id=False):
        split = OpenSearchSplitOperator(task_id=SPLIT, **shared)
        read = OpenSearchReadOperator.partial(task_id="read", **mapped).expand(split=split.output)
        compare = OpenSearchCompareOperator(task_id="compare", **after_mapped)
        stage = OpenSearchStageOperator.partial(task_id="stage", **mapped).expand(split=compare.output)
        reserve = OpenSearchReserveOperator(task_id="reserve", index_body=index_body, **after_mapped)
    prepare >> split >> [read, compare]
    read >> compare >> [stage, reserve]
    stage >> reserve
    return reserve
