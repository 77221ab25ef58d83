"""batch_predict of a Data Prepper pipeline: the shared stage, and a note of who writes into the job's output folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opensearch_batch.core.data_prepper.scan_state import ScanStateFile
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.operators.base import errors_end_the_task, work_of
from opensearch_batch.operators.batch_predict import OpenSearchBatchPredictOperator
from opensearch_batch.services.registry import adapter_of


class OpenSearchScanBatchPredictOperator(OpenSearchBatchPredictOperator):
    """Submit one job of a scan, as `OpenSearchBatchPredictOperator` does.

    Scans of this and other pipelines know from then on whose the outputs are: they lie where the user said, perhaps
    below a prefix that a scan looks at.
    """

    def execute_complete(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - Airflow's context
        """Submit or reattach, then note it."""
        submitted = super().execute_complete(context, event)
        with errors_end_the_task():
            store = object_storage(self.aws_conn_id)
            found = JobRecords(store, submitted["job"]).load()
            if found is not None:
                record = found[0]
                for output in adapter_of(self.service).outputs(record, record.remote_job):
                    folder = output if output.endswith("/") else output.rpartition("/")[0]
                    ScanStateFile(store, work_of(self.work, context)).note_writer(folder, submitted["job"])
        return submitted
