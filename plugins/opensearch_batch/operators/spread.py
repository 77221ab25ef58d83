"""The stages split, read, compare, stage and reserve: they prepare a run whose source is too large for one task.

They are skipped if `prepare` has done all of it. What they exchange is in files (`core.runs.spread`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from airflow.sdk import BaseOperator, Context

from opensearch_batch.core.runs.shard_groups import with_empty_groups
from opensearch_batch.core.runs.spread import SplitSize, Spread
from opensearch_batch.core.sharding.listing import record_source_state
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.manifest import ShardGroup
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.operators.base import layout_of, run_key_of, translate_errors
from opensearch_batch.operators.run_start import StartsRun, set_groups, set_xcom
from opensearch_batch.services.registry import adapter_of

SPLIT_TASK_NAME = "split {{ task.split['number'] }}, {{ task.split['bytes'] }} bytes"


class SpreadOperator(BaseOperator):
    """Base of the stages that prepare a run together.

    Args:
        work_prefix, aws_conn_id, opensearch_conn_id, index_body: those of the stage prepare.
        split: for a mapped stage, a value that the stage before it returned.
        prepare: the task id of the stage prepare.
    """

    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        work_prefix: str,
        aws_conn_id: str = AWS_CONN_ID,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        index_body: Mapping[str, Any] | None = None,
        split: Mapping[str, Any] | None = None,
        prepare: str = "prepare",
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.work_prefix = work_prefix
        self.aws_conn_id, self.opensearch_conn_id = aws_conn_id, opensearch_conn_id
        self.index_body = index_body
        self.split = dict(split or {})
        self.prepare = prepare

    @translate_errors()
    def execute(self, context: Context) -> list[dict[str, Any]] | None:
        store, layout = object_storage(self.aws_conn_id), layout_of(self.work_prefix, context)
        splits = self._run(Spread(store, layout, run_key_of(context), adapter_of), store, context)
        if splits is None:
            return None
        self.log.info("%d splits, %d bytes", len(splits), sum(split.bytes for split in splits))
        return [msgspec.to_builtins(split) for split in splits]

    def _run(self, spread: Spread, store: S3Objects, context: Context) -> list[SplitSize] | None:
        """Implement in a subclass: return the splits over which the next stage is mapped."""
        raise NotImplementedError


class OpenSearchSplitOperator(SpreadOperator):
    """Cut the objects that changed into splits: groups of objects, or byte ranges of a large one."""

    def _run(self, spread: Spread, store: S3Objects, context: Context) -> list[SplitSize]:  # noqa: ARG002 - the base's
        return spread.split()


class OpenSearchReadOperator(SpreadOperator):
    """Read the records of one split."""

    def _run(self, spread: Spread, store: S3Objects, context: Context) -> None:  # noqa: ARG002 - the base's
        spread.read(self.split["number"])


class OpenSearchCompareOperator(SpreadOperator):
    """Compare what was read with the record ledger, claim the scope, and cut what changed into shards."""

    def _run(self, spread: Spread, store: S3Objects, context: Context) -> list[SplitSize]:  # noqa: ARG002 - the base's
        return spread.compare()


class OpenSearchStageOperator(SpreadOperator):
    """Stage the records of one split that changed, and write the inputs of their jobs."""

    def _run(self, spread: Spread, store: S3Objects, context: Context) -> None:  # noqa: ARG002 - the base's
        spread.stage(self.split["number"])


class OpenSearchReserveOperator(SpreadOperator, StartsRun):
    """Reserve the predictions to pay for, and write the manifest; `prepare` then has the groups of shards as value."""

    def _run(self, spread: Spread, store: S3Objects, context: Context) -> None:
        layout, groups, before = layout_of(self.work_prefix, context), list[ShardGroup](), spread.settings.groups_before
        listing, prepared = spread.plan.listing, spread.finish()
        if prepared is None:
            self.log.info("nothing changed: %d objects of %s", len(listing.objects), listing.source)
        else:
            groups, run = self.start(store, layout, prepared, groups_before=before)
            set_xcom(context, self.prepare, "run", run)
        set_groups(context, self.prepare, [msgspec.to_builtins(each) for each in with_empty_groups(groups, before)])
        if spread.settings.is_watched:
            record_source_state(store, layout, listing, done=True)
