"""Ingests the dead letters of a run again, after a fix; those that fail again remain, with their new reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from airflow.sdk import BaseOperator, Context

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.ingest.replay import replay
from opensearch_batch.core.storage.dead_letters import PART_SUFFIX, most_common_reasons, write_summary
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID, refuse_unlisted_conn_ids
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.operators.base import refuse_unknown_conf, translate_errors
from opensearch_batch.operators.log_tables import log_counts
from opensearch_batch.services.registry import row_errors


class OpenSearchReplayOperator(BaseOperator):
    """Ingest the dead letters of a queue again.

    Returns ``{queue, index, read, indexed, unchanged, filtered, superseded, dead_letters}``; `dead_letters` is the
    number of dead letters that remain.

    Args:
        dead_letters: location of the queue, from `dead_letters` of a report.
        field_map: a corrected field map; the run's param `field_map` if None.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage of the queue.

    Raises:
        AirflowFailException: the queue does not exist, the field map or the index is wrong, or no dead letter could be
            written.
        RetriableError: a server did not respond, or a run works with the records of the queue; the retry writes the
            same ids.
    """

    template_fields = ("dead_letters", "field_map", "opensearch_conn_id", "aws_conn_id")
    ui_color = "#fef7e0"

    def __init__(
        self,
        *,
        dead_letters: str,
        field_map: Mapping[str, Any] | None = None,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.dead_letters = dead_letters
        self.field_map = field_map
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id

    @translate_errors()
    def execute(self, context: Context) -> dict[str, Any]:
        refuse_unknown_conf(self, context)
        refuse_unlisted_conn_ids(self.opensearch_conn_id, self.aws_conn_id)
        store = object_storage(self.aws_conn_id)
        report = replay(
            self.dead_letters,
            store,
            OpenSearchMLHook(self.opensearch_conn_id).cluster,
            field_map=self.field_map or context["params"].get("field_map"),
            row_errors=row_errors(),
            on_progress=lambda report: self.log.info(
                "%d read, %d indexed, %d dead letters", report.read, report.indexed, report.dead_letters
            ),
        )
        remaining = report.queue if report.dead_letters else None
        log_counts(self.log, f"replay of {report.queue} into {report.index}", report, store, remaining)
        if not report.queue.endswith(PART_SUFFIX):
            write_summary(store, report.queue)
        if report.read and report.dead_letters == report.read:
            (first, *_) = most_common_reasons(store, [self.dead_letters])
            raise FatalError(
                f"{self.dead_letters}: the replay wrote none of {report.read:,} dead letters: {first[0].reason}; "
                "correct the index, the field map or the dead letters, and replay again"
            )
        xcom: dict[str, Any] = msgspec.to_builtins(report)
        return xcom
