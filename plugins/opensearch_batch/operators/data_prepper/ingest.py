"""ingest of a Data Prepper pipeline: what a job answered, or rows that were there already, into every sink."""

from __future__ import annotations

from typing import Any

import msgspec
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.links.opensearch import DeadLettersLink, IndexLink
from opensearch_batch.operators.base import errors_end_the_task, forced, job_result, run_key_of, summary
from opensearch_batch.operators.data_prepper.base import DataPrepperOperator


class OpenSearchWorkItemIngestOperator(DataPrepperOperator):
    """Bring one work item of a scan into the sinks.

    Returns ``{sinks: [{index, counts, report, dead_letters}, …]}``. Skipped where there is nothing to read: of what
    its job wrote, this pipeline reads nothing, or it is gone, or outdated. Rows that are there already are counted as
    unchanged.

    Args:
        work item: the shard of a job that `prepare` returned, or the id of a work item without one.
        file: the pipeline's file.
        pipeline: its name there.
        poll: the task id of the stage whose XCom (of the same map index) names the outputs; None: there is no job.

    Raises:
        AirflowFailException: an index does not fit, an output is gone, an object changed since the scan.
        RetriableError: a server was away; the retry goes on where it was.
    """

    template_fields = ("work_item",)
    operator_extra_links = (IndexLink(), DeadLettersLink())
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        work_item: Any,  # noqa: ANN401 - a shard, an id, or the XComArg of one
        poll: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.work_item = work_item
        self.poll = poll

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ANN401 - Airflow's context
        """Ingest."""
        from opensearch_batch.core.data_prepper.scan_prepare import load_scan

        key = run_key_of(context)
        with errors_end_the_task():
            compiled, store = self.compiled(), self.store()
            manifest = load_scan(store, compiled.work.manifest(key))
            work_item = manifest.work_item(self.work_item if isinstance(self.work_item, str) else self.work_item["id"])
            brought = self.work_items(compiled, key, manifest.at).run(
                work_item, self._answered(compiled, context), force=forced(context)
            )
        for remark in brought.remarks:
            self.log.warning("work item %s: %s", work_item.id, remark)
        if not brought.reports:
            raise AirflowSkipException("; ".join(brought.remarks))
        self._show(store, brought.reports)
        sinks = []
        for number, report in enumerate(brought.reports):
            self.log.info("work item %s into %s: %s", work_item.id, report.index, report.counts)
            for remark in report.remarks:
                self.log.warning("%s", remark)
            sinks.append(summary(report, compiled.work.ingest_report(key, f"{work_item.id}-{number}")))
        return {"sinks": sinks}

    def _answered(self, compiled: Any, context: Any) -> Any:  # noqa: ANN401 - a road, Airflow's context
        if self.poll is None:
            return None
        shard = msgspec.convert(self.work_item, Shard)
        return job_result(context, self.poll).answered(compiled.work.job(shard.job))

    def _show(self, store: Any, reports: list[Any]) -> None:  # noqa: ANN401 - the store, the reports
        """Fill in the links: of several sinks the first that has something to show."""
        at = next((number for number, report in enumerate(reports) if report.index), None)
        if at is not None:
            self.index_url = self.cluster(at).search_url(reports[at].index)
        letters = next((report.dead_letters for report in reports if report.dead_letters), None)
        if letters:
            self.dead_letters_url = store.browse_url(letters)
