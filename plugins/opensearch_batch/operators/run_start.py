"""Starts the stages of a prepared run: creates a missing index, announces the run, and returns the groups of shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from airflow.sdk import BaseOperator, Context

from opensearch_batch.core.ledger.commit import announce
from opensearch_batch.core.runs.index_check import create_missing_index
from opensearch_batch.core.runs.preparation import PreparedRun
from opensearch_batch.core.runs.run_summary import record_start
from opensearch_batch.core.runs.shard_groups import grouped
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.manifest import ShardGroup
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.links.opensearch import DeadLettersLink
from opensearch_batch.operators.base import max_groups
from opensearch_batch.operators.log_tables import dead_letters_url, log_counts


class StartsRun(BaseOperator):
    """Base of the operators that know the shards of a run."""

    operator_extra_links = (DeadLettersLink(),)
    opensearch_conn_id: str
    index_body: Mapping[str, Any] | None

    def start(
        self, store: S3Objects, layout: Layout, prepared: PreparedRun, *, groups_before: int
    ) -> tuple[list[ShardGroup], dict[str, str]]:
        """Create the index if it is missing, and store the manifest; return the groups, and the XCom ``run``.

        Raises:
            ClaimLost: another run has claimed the scope.
        """
        manifest = prepared.manifest
        if manifest.dead_letters:
            self.dead_letters_url = dead_letters_url(store, manifest.dead_letters)
        log_counts(self.log, manifest.source, manifest.counts, store, manifest.dead_letters)
        for remark in manifest.remarks:
            self.log.warning("%s", remark)
        if not manifest.index_uuid and self.index_body is not None:
            cluster = OpenSearchMLHook(self.opensearch_conn_id).cluster
            uuid = create_missing_index(cluster, manifest.index, self.index_body)
            manifest = msgspec.structs.replace(manifest, index_uuid=uuid)
        groups = grouped(manifest.shards, at_most=max_groups())
        manifest = msgspec.structs.replace(manifest, mapped=max(len(groups), groups_before))
        announce(store, layout, manifest, prepared.ledger)
        record_start(store, layout, manifest)
        uri = layout.manifest(manifest.run_key)
        self.log.info("%d shards in %d tasks; manifest %s", len(manifest.shards), len(groups), uri)
        return groups, {"manifest": uri, "model_id": manifest.model_id}


def set_groups(context: Context, prepare: str, groups: Sequence[dict[str, Any]]) -> None:
    """Make groups the value that the task `prepare` returned.

    Airflow skips a task that maps over the value of a skipped one. So the stages of shards map over `prepare`, which
    ends with success also if other tasks find the groups.
    """
    set_xcom(context, prepare, "return_value", list(groups), length=len(groups))


def set_xcom(context: Context, task_id: str, key: str, value: object, *, length: int | None = None) -> None:
    """Store an XCom of another task of the run; `length` is the number of values if tasks map over it."""
    from airflow.sdk.execution_time.xcom import XCom

    ti = context["ti"]
    XCom.set(key=key, value=value, dag_id=ti.dag_id, task_id=task_id, run_id=ti.run_id, _mapped_length=length)
