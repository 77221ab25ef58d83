"""Base classes and helpers of the stages: arguments, the current run, XComs of other stages, error translation."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec
from airflow.sdk import BaseOperator, Context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException

from opensearch_batch.core.errors import BatchError, ConfigError, FatalError, RetriableError, did_you_mean
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.jobs.output_rows import JobOutput
from opensearch_batch.core.runs.shard_groups import MAX_GROUPS
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import IngestReport
from opensearch_batch.core.types.identity import run_key
from opensearch_batch.core.types.job import ResubmitRequest
from opensearch_batch.core.types.manifest import Manifest, ShardGroup
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.hooks.job_handle import JobResult

if TYPE_CHECKING:
    from opensearch_batch.core.data_prepper.scan_prepare import ScanManifest

log = logging.getLogger(__name__)

# `map_index_template`: what Airflow shows instead of the index of a mapped task.
JOB_TASK_NAME = "shard {{ task.shards['id'] }}, {{ task.shards['records'] }} records"
INGEST_TASK_NAME = "shard {{ task.shards['id'] }}, {{ task.shards['documents'] }} documents"
FINAL_STATES = frozenset({"success", "failed"})


@contextmanager
def translate_errors() -> Iterator[None]:
    """Log an error of this package as one line, and raise it without its causes.

    An error that a retry cannot fix is raised as AirflowFailException. Airflow logs the tracebacks of the raised
    exception and of its causes, which would hide the message.
    """
    try:
        yield
    except BatchError as error:
        log.error("%s", error)  # noqa: TRY400 - the message is complete; the traceback is for debugging
        log.debug("traceback of the error above", exc_info=error)
        error_class = AirflowFailException if isinstance(error, ConfigError | FatalError) else RetriableError
        raise error_class(str(error)) from None


class PrepareOperator(BaseOperator):
    """Base of the `prepare` stages: returns groups of shards, over which the next stages are mapped."""

    ui_color = "#e8f0fe"

    @translate_errors()
    def execute(self, context: Context) -> list[dict[str, Any]]:
        refuse_unknown_conf(self, context)
        return [msgspec.to_builtins(group) for group in self._prepare(context)]

    def _prepare(self, context: Context) -> Sequence[ShardGroup]:
        """Implement in a subclass: return the groups of this run, none in a dry run."""
        raise NotImplementedError

    def _push(self, context: Context, uri: str, manifest: Manifest | ScanManifest, **members: object) -> None:
        """Push the XCom `run`, which later stages read; call this last, because later stages take it as success."""
        context["ti"].xcom_push(key="run", value={"manifest": uri, "model_id": manifest.model_id, **members})


class PipelineOperator(BaseOperator):
    """Base of the stages that use the AI service of a pipeline.

    Args:
        work_prefix: S3 prefix for all files that the pipeline writes.
        service: the AI service, such as ``sagemaker``.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage, and the credential of a connector to an AWS service.
        ai_conn_id: the connection with the AI service's key; the service's default connection if None.
    """

    def __init__(
        self,
        *,
        work_prefix: str,
        service: str,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        ai_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.work_prefix = work_prefix
        self.service = service
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id
        self.ai_conn_id = ai_conn_id


class DocumentsOperator(PipelineOperator):
    """Base of the stages that need the document options of a pipeline.

    Args:
        index: the index that `ingest` writes.
        field_map: field name -> ``$.path`` in a record, ``prediction[0]``, or a path in the service's output rows;
            ``_id`` is the document id.
        ingest_fields: paths of further fields, each named by the last part of its path.
        processors: Data Prepper processors instead of a field map; they process output rows that contain their records.
        routing: the path of a document's routing value.
    """

    def __init__(
        self,
        *,
        index: str,
        field_map: Mapping[str, Any],
        ingest_fields: Sequence[str] = (),
        processors: Sequence[Mapping[str, Any]] | None = None,
        routing: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - the arguments of PipelineOperator
    ) -> None:
        super().__init__(**kwargs)
        self.index = index
        self.field_map = field_map
        self.ingest_fields = ingest_fields
        self.processors = processors
        self.routing = routing
        self.settings: dict[str, Any] = {}

    def request(self) -> IngestRequest:
        """Return the ingest request; its index is a template until Airflow renders it."""
        return IngestRequest(
            self.index,
            dict(self.field_map),
            list(self.ingest_fields),
            routing=self.routing,
            processors=None if self.processors is None else [dict(processor) for processor in self.processors],
            **self.settings,
        )


def run_key_of(context: Context) -> str:
    """Return the run key. A cleared run keeps its key and files; two runs of one partition or date have their own."""
    run = context["dag_run"]
    return run_key(run.dag_id, run.run_id)


def run_template(name: str, prepare: str = "prepare") -> str:
    """Return the template of a value in the XCom `run` of `prepare`: empty text if that found nothing to do."""
    return f"{{{{ (ti.xcom_pull(task_ids='{prepare}', map_indexes=-1, key='run') or {{}}).get('{name}', '') }}}}"


def layout_of(work_prefix: str, context: Context) -> Layout:
    """Return the locations of this DAG's files below a work prefix."""
    return Layout(work_prefix, context["dag_run"].dag_id)


def refuse_unknown_conf(operator: BaseOperator, context: Context) -> None:
    """Raise ConfigError if the run's conf has a key that is not a param of the DAG; Airflow ignores such a key.

    A misspelled key would start a paid run with the default values. The error quotes the key, not its value.
    """
    params = list(operator.params)
    for name in context["dag_run"].conf or {}:
        if name not in params:
            hint = did_you_mean(name, params) or f" Its parameters are {', '.join(params)}."
            raise ConfigError(f"conf: this DAG has no parameter {name!r}, so nothing was started.{hint}")


def interval_start(context: Context, *, key_format: str, timezone: str) -> float | None:
    """Return the start of the run's partition, else its logical date (epoch seconds), None if it has neither.

    If a user triggers a run with a partition key, Airflow sets no partition date, so the key is parsed.
    """
    run = context["dag_run"]
    start, key = getattr(run, "partition_date", None), getattr(run, "partition_key", None)
    if start is None and key:
        try:
            start = datetime.strptime(key, key_format).replace(tzinfo=ZoneInfo(timezone))
        except ValueError:
            log.warning(
                "partition key %s does not match the format %s; the run is ordered by its own time", key, key_format
            )
    start = start or run.logical_date
    return None if start is None else float(start.timestamp())


def is_dry_run(context: Context) -> bool:
    """Whether a user started this run with ``dry_run``."""
    return bool(context["params"].get("dry_run"))


def is_forced(context: Context) -> bool:
    """Whether a user started this run with ``force``."""
    return bool(context["params"].get("force", False))


def resubmit_request(context: Context, retries: int | None) -> ResubmitRequest:
    """Return the new submission that a user requested by a clear or by ``force``, if any.

    A clear increases the task's max_tries, a retry does not (Airflow 3.3).
    """
    max_tries, run = context["ti"].max_tries, run_key_of(context)
    clear = f"{run} {max_tries}" if max_tries > (retries or 0) else ""
    return ResubmitRequest(clear=clear, force=run if is_forced(context) else "")


def run_end_check(context: Context) -> Callable[[str], bool]:
    """Return a function that returns whether a run, by id, has ended or was deleted.

    It raises RetriableError if Airflow does not answer: the claim of a run in progress must not be taken over.
    """
    ti = context["ti"]

    def is_over(run_id: str) -> bool:
        from airflow.sdk.exceptions import AirflowRuntimeError

        try:
            return ti.get_dagrun_state(dag_id=ti.dag_id, run_id=run_id) in FINAL_STATES
        except AirflowRuntimeError as error:
            if (error.error.detail or {}).get("status_code") == HTTPStatus.NOT_FOUND:
                return True
            raise RetriableError(f"Airflow does not return the state of run {run_id} ({error}); run again") from error

    return is_over


def polled_output(
    context: Context, poll: str, *, number: int, objects: Objects, folder: str, service: str
) -> JobOutput:
    """Return the output of the job whose record is in `folder`, from the XCom of the task `poll` of the same map index.

    `number` is the position of the job's shard in its group. Raise ConfigError if a user marked `poll` as success,
    which cancels its jobs: the XCom is missing or belongs to another job.
    """
    ti = context["ti"]
    value = ti.xcom_pull(task_ids=poll, map_indexes=ti.map_index)
    # Airflow 3.3.2 JSON-encodes an XCom from a trigger twice.
    results = msgspec.convert(json.loads(value) if isinstance(value, str) else value or [], list[JobResult])
    if number >= len(results):
        raise ConfigError(f"{poll} has no result, because it was marked as success by hand; clear batch_predict")
    return results[number].job_output(objects, folder, service)


def max_groups() -> int:
    """Return the maximum number of groups of a run."""
    return min(MAX_GROUPS, int(conf.getint("core", "max_map_length")))


def rendered_dict(value: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return an argument as a dict; Airflow may have rendered its template to JSON text."""
    if isinstance(value, str):
        value = json.loads(value) if value else None
    return dict(value or {})


def report_xcom(report: IngestReport, uri: str) -> dict[str, Any]:
    """Return the XCom of a report: index, state, total counts, and the locations of report and dead letters."""
    counts = msgspec.to_builtins(report.counts)
    del counts["sources"]
    return {
        "index": report.index,
        "state": report.state,
        "counts": counts,
        "report": uri,
        "dead_letters": report.dead_letters,
    }
