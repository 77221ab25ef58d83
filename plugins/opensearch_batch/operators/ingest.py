"""Stage ingest: writes the predictions of jobs into the index; each record becomes a document or a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.sdk import Context, XComArg
from airflow.sdk.exceptions import AirflowSkipException

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.request import (
    MAX_BODY_BYTES,
    MAX_IN_FLIGHT,
    LoadSettings,
    OnUnmatched,
    OpType,
)
from opensearch_batch.core.ingest.staged_ingest import StagedIngest
from opensearch_batch.core.jobs.contract import output_uris
from opensearch_batch.core.jobs.job_records import JobRecords
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.runs.metrics import Measurement, ingest_measurements, wait_measurements
from opensearch_batch.core.runs.outbox import PendingEvent, add_event
from opensearch_batch.core.storage.json_document import load_manifest
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.transform.field_map import OnMissing
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.job import BAD_ENDS
from opensearch_batch.core.types.manifest import REPAIR, Manifest, Shard, ShardGroup
from opensearch_batch.hooks.ai_services import outputs_store
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.links.opensearch import DeadLettersLink, IndexLink
from opensearch_batch.operators.base import (
    DocumentsOperator,
    is_forced,
    layout_of,
    polled_output,
    report_xcom,
    run_key_of,
    translate_errors,
)
from opensearch_batch.operators.lineage import ReportsLineage
from opensearch_batch.operators.log_tables import dead_letters_url, log_counts
from opensearch_batch.operators.metrics import emit
from opensearch_batch.operators.scan import ScanOperator
from opensearch_batch.services.registry import adapter_of

if TYPE_CHECKING:
    from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline


class IngestOperator(ReportsLineage):
    """Base of the `ingest` stages: logs and measures the reports of an ingest, and sets the links."""

    operator_extra_links = (IndexLink(), DeadLettersLink())
    ui_color = "#e6f4ea"

    def _log_reports(
        self,
        what: str,
        reports: Sequence[IngestReport],
        cluster: Callable[[int], Cluster],
        store: Callable[[], S3Objects],
    ) -> None:
        """Log the reports, one for each sink; set the links to the first index and the first dead letters."""
        indexes = (number for number, report in enumerate(reports) if report.index and "://" not in report.index)
        number = next(indexes, None)
        if number is not None:
            self.index_url = cluster(number).search_url(reports[number].index)
        dead_letters = next((report.dead_letters for report in reports if report.dead_letters), None)
        if dead_letters:
            self.dead_letters_url = dead_letters_url(store(), dead_letters)
        for report in reports:
            for remark in report.remarks:
                self.log.warning("%s", remark)
            objects = store() if report.dead_letters else None
            log_counts(self.log, f"{what} into {report.index}", report.counts, objects, report.dead_letters)

    @staticmethod
    def _measure(
        shard: Shard, reports: Sequence[IngestReport], layout: Layout, store: Objects, context: Context
    ) -> Iterator[Measurement]:
        """Yield what the ingest of a shard wrote, and how long its job took."""
        yield from ingest_measurements(shard, *reports)
        if shard.job:
            record, began = JobRecords(store, layout.job(shard.job)).read(), context["dag_run"].start_date
            yield from wait_measurements(record, since=began.timestamp() if began else 0.0)


class OpenSearchBatchIngestOperator(DocumentsOperator, IngestOperator):
    """Ingest shards: add their predictions to the prediction store, and write or delete their documents.

    Returns a list of ``{counts: {read, indexed, unchanged, dead_letters, …}, report, dead_letters}``, one for each
    shard; `report` and `dead_letters` are locations. Records without a prediction are left to `repair`; those that
    `repair` returned become dead letters. What an earlier attempt finished is counted as unchanged and not written
    again.

    Args:
        shards: a group of shards that `prepare` or `repair` returned.
        when: with processors, the condition that a row must meet to be written.
        poll: the task id of `poll`; its XCom (of the same map index) names the outputs.
        op_type: ``index`` replaces a document, ``create`` keeps an existing one, ``upsert`` updates its fields.
        on_missing: by field name, or ``*`` for all fields, what happens if a record lacks a mapped path. The default is
            a dead letter for a vector, null for anything else.
        on_unmatched: what happens to a record without a prediction.
        ingest_pipeline: an ingest pipeline of the cluster.
        load: index settings during the load.
        dead_letters: S3 prefix for dead letters; below `work_prefix` if None.
        max_body_bytes: maximum size of a bulk body.
        max_in_flight: maximum number of concurrent bulk requests.
        compress: whether bulk bodies are compressed.

    Raises:
        AirflowFailException: the index is missing or does not fit the documents, or the output lacks a row for a
            record.
        RetriableError: a server did not respond; the retry writes the same ids.
    """

    template_fields = ("shards", "work_prefix", "service", "index")

    def __init__(
        self,
        *,
        shards: Mapping[str, Any] | XComArg,
        when: str | None = None,
        poll: str = "poll",
        op_type: OpType = "index",
        on_missing: Mapping[str, OnMissing] | None = None,
        on_unmatched: OnUnmatched = "dead_letter",
        ingest_pipeline: str | None = None,
        load: LoadSettings | None = None,
        dead_letters: str | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_in_flight: int = MAX_IN_FLIGHT,
        compress: bool = False,
        **kwargs: Any,  # noqa: ANN401 - the arguments of DocumentsOperator
    ) -> None:
        super().__init__(**kwargs)
        self.shards = shards
        self.poll = poll
        self.dead_letters = dead_letters
        self.settings = {
            "op_type": op_type,
            "on_missing": dict(on_missing or {}),
            "on_unmatched": on_unmatched,
            "ingest_pipeline": ingest_pipeline,
            "load": load,
            "max_body_bytes": max_body_bytes,
            "max_in_flight": max_in_flight,
            "compress": compress,
            "when": when,
        }

    @translate_errors()
    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Ingest the staged records with the predictions of the shards' jobs, and with those in the store."""
        shards = msgspec.convert(self.shards, ShardGroup).shards
        if not shards:
            raise AirflowSkipException("an earlier attempt of this run had more shards")
        run_key, layout = run_key_of(context), layout_of(self.work_prefix, context)
        store = outputs_store(aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id)
        cluster = OpenSearchMLHook(self.opensearch_conn_id).cluster
        manifest = load_manifest(store, layout.manifest(run_key), Manifest)
        self.datasets = manifest.datasets
        ingest = StagedIngest(
            store,
            cluster,
            layout=layout,
            manifest=manifest,
            adapter=adapter_of(self.service),
            request=self.request(),
            dead_letters=self.dead_letters,
        )
        result, run_id = [], context["dag_run"].run_id
        for number, shard in enumerate(shards):
            output = self._output(shard, number, layout, store, context) if shard.job else None
            # Before the ingest: if this attempt dies after its writes, the next one finds them unchanged and adds no
            # event.
            event_uri = add_event(store, layout, shard.id, PendingEvent(run_id, self.index))
            report = ingest.run(shard, output)
            if event_uri is not None and not report.counts.indexed:
                store.delete(event_uri)
            self._log_reports(
                f"shard {shard.id}", [report], lambda _: cluster, lambda: object_storage(self.aws_conn_id)
            )
            emit(self._measure(shard, [report], layout, store, context), context, self.service)
            result.append(report_xcom(report, layout.ingest_report(run_key, shard.id)))
        return result

    def _output(self, shard: Shard, number: int, layout: Layout, store: Objects, context: Context) -> JobOutput:
        """Return the output of the shard's job, which `poll` or `repair` has waited for.

        Raise ConfigError if the job has not completed, because a user marked a task as success by hand.
        """
        folder = layout.job(shard.job)
        if shard.id != REPAIR:
            return polled_output(context, self.poll, number=number, objects=store, folder=folder, service=self.service)
        record = JobRecords(store, folder).read()
        if record is None or record.end is None or record.end.state in BAD_ENDS:
            raise ConfigError(f"{folder}: this job of repair has not completed; clear repair")
        outputs = output_uris(adapter_of(self.service), record, record.remote_job)
        return JobOutput(outputs, folder=folder, ml_task_id=record.ml_task_id, submission=record.submission)


class OpenSearchScanIngestOperator(ScanOperator, IngestOperator):
    """Ingest work items of a Data Prepper scan into every sink.

    Returns ``{sinks: [{index, counts, report, dead_letters}, …]}``. The task is skipped if there is nothing to read:
    the pipeline does not read the jobs' outputs, or the outputs are deleted or outdated. Rows that were written before
    are counted as unchanged.

    Args:
        work_items: the group of shards with jobs that `prepare` returned, or the ids of work items without a job.
        poll: the task id of `poll`; its XCom (of the same map index) names the outputs. None if there is no job.

    Raises:
        AirflowFailException: an index does not fit the documents, an output is missing, or an object changed since
            the scan.
        RetriableError: a server did not respond; the retry continues where this attempt stopped.
    """

    template_fields = ("work_items",)

    def __init__(
        self,
        *,
        work_items: Mapping[str, Any] | Sequence[str] | XComArg,
        poll: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - the arguments of ScanOperator
    ) -> None:
        super().__init__(**kwargs)
        self.work_items = work_items
        self.poll = poll

    @translate_errors()
    def execute(self, context: Context) -> dict[str, Any]:
        from opensearch_batch.core.data_prepper.scan_prepare import ScanManifest

        compiled, store, run_key = self._compiled(), self._store(), run_key_of(context)
        manifest = load_manifest(store, compiled.layout.manifest(run_key), ScanManifest)
        ingest, result, remarks = self._work_item_ingest(compiled, run_key, manifest.at), list[dict[str, Any]](), []
        all_reports = list[Sequence[IngestReport]]()
        for number, shard in enumerate(self._shards()):
            work_item = manifest.work_item(shard.id)
            output = self._job_output(compiled, shard, number, store, context)
            done = ingest.run(work_item, output, force=is_forced(context))
            for remark in done.remarks:
                self.log.warning("work item %s: %s", work_item.id, remark)
            remarks += done.remarks
            if done.reports:
                self._log_reports(f"work item {work_item.id}", done.reports, self._cluster, lambda: store)
                emit(self._measure(shard, done.reports, compiled.layout, store, context), context, compiled.service)
                all_reports.append(done.reports)
            uri = compiled.layout.ingest_report(run_key, work_item.id)
            result += [report_xcom(report, uri) for report in done.reports]
        if not result:
            raise AirflowSkipException("; ".join(remarks))
        self.datasets = self._datasets(compiled, all_reports)
        return {"sinks": result}

    def _shards(self) -> Sequence[Shard]:
        """Return the shards of the work items; without a job, they have an id only."""
        if isinstance(self.work_items, Mapping):
            return msgspec.convert(self.work_items, ShardGroup).shards
        return [Shard(item) for item in msgspec.convert(self.work_items, list[str])]

    def _job_output(
        self, compiled: CompiledPipeline, shard: Shard, number: int, store: Objects, context: Context
    ) -> JobOutput | None:
        """Return the outputs of a work item's job, None if there is no job."""
        if self.poll is None or compiled.ml is None:
            return None
        folder, service = compiled.layout.job(shard.job), compiled.ml.service_name
        return polled_output(context, self.poll, number=number, objects=store, folder=folder, service=service)
