"""Runs a `_batch_ingestion` request as a task. Keys come from Airflow connections, never from the request.

Airflow stores a request with its run and shows it in the UI, so a credential in it is refused. Local files are refused
too: permission to start a run must not include permission to read the worker's files.

A request to the API may contain a credential. It is stored in a connection of that run alone (`run_conn_id`), and only
the sources are read with it; everything that this package stores is read and written with `aws_conn_id`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context

from opensearch_batch.core.errors import BatchError, ConfigError
from opensearch_batch.core.ingest.batch_ingestion import BatchIngestion, parse_request, refuse_local_files
from opensearch_batch.core.ingest.progress import progress_location
from opensearch_batch.core.ingest.request_ingest import ingest_prefix, run_batch_ingestion
from opensearch_batch.core.runs.request_runs import account_for_request, announce_request
from opensearch_batch.core.runs.run_summary import RunManifest
from opensearch_batch.core.storage.by_uri import Stores
from opensearch_batch.core.storage.conditional_writes import require_conditional_writes
from opensearch_batch.core.storage.dead_letters import refuse_dead_letters
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import DEFAULT_WORK_PREFIX, Layout
from opensearch_batch.core.types.counts import IngestCounts
from opensearch_batch.hooks.ai_services import outputs_store
from opensearch_batch.hooks.connections import (
    AWS_CONN_ID,
    OPENSEARCH_CONN_ID,
    refuse_unlisted_conn_ids,
    require_run_connection,
    run_conn_id,
)
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.operators.base import is_forced, layout_of, report_xcom, run_key_of, translate_errors
from opensearch_batch.operators.log_tables import log_counts
from opensearch_batch.services.openai import CONN_ID
from opensearch_batch.services.registry import row_errors

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

# Members of a run's conf that are not part of the request.
SETTINGS = frozenset({"opensearch_conn_id", "aws_conn_id", "openai_conn_id", "source_conn_id", "work_prefix", "force"})
# Members of the request's `data_source` that are separate fields of the form.
DATA_SOURCE_FIELDS = ("type", "source")
LOG_EVERY_ROWS = 100_000
# XComs for who asks for the state of the run: where its progress is, and why it failed.
PROGRESS, ERROR = "progress", "error"
MAX_ERROR_CHARACTERS = 2000


class OpenSearchBatchIngestionOperator(BaseOperator):
    """Run a `_batch_ingestion` request.

    Returns ``{index, state, counts: {read, indexed, unchanged, dead_letters, joined, …}, report, dead_letters}``;
    `report` and `dead_letters` are locations. A retried or cleared task resumes after the last checkpoint, and
    repeating the request writes nothing.

    The connections must be among those that a request may name (`refuse_unlisted_conn_ids`).

    Args:
        request: the body of the request; if None, the run's conf, or the run's params if the conf has no request.
        work_prefix: S3 prefix for all files that this task writes.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage, of the sources and of `work_prefix`.
        openai_conn_id: connection of type ``http`` or ``generic`` with OpenAI's key as password, and an optional API
            URL as host.
        source_conn_id: connection with the keys that read the sources; if None, `aws_conn_id` or `openai_conn_id`.

    Raises:
        ConfigError: `request` holds a credential; raised when the DAG is parsed.
        AirflowFailException: the request is invalid, a source is damaged, or too many rows are dead letters.
        RetriableError: a server did not respond; the retry continues where this attempt stopped.
    """

    template_fields = (
        "request",
        "work_prefix",
        "opensearch_conn_id",
        "aws_conn_id",
        "openai_conn_id",
        "source_conn_id",
    )
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        request: Mapping[str, Any] | None = None,
        work_prefix: str = DEFAULT_WORK_PREFIX,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        openai_conn_id: str = CONN_ID,
        source_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        # Airflow stores template fields before it runs the task.
        refuse_credential(request or {})
        self.request = request
        self.work_prefix = work_prefix
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id
        self.openai_conn_id = openai_conn_id
        self.source_conn_id = source_conn_id

    @translate_errors()
    def execute(self, context: Context) -> dict[str, Any]:
        self._refuse_conn_ids(context)
        try:
            return self._ingest(context)
        except BatchError as error:
            context["ti"].xcom_push(key=ERROR, value=str(error)[:MAX_ERROR_CHARACTERS])
            raise

    def _refuse_conn_ids(self, context: Context) -> None:
        """Raise ConfigError if the request may not use one of its connections; its run may use its own."""
        conn_ids = [self.opensearch_conn_id, self.aws_conn_id, self.openai_conn_id]
        if self.source_conn_id:
            run = context["dag_run"]
            is_own = self.source_conn_id == run_conn_id(run.dag_id, run.run_id)
            conn_ids += [] if is_own else [self.source_conn_id]
        refuse_unlisted_conn_ids(*conn_ids)

    def _store(self, batch: BatchIngestion, layout: Layout) -> Stores:
        """Return the store of the sources and of this package's files."""
        is_s3 = batch.type == "s3"
        if self.source_conn_id:
            require_run_connection(self.source_conn_id, "aws" if is_s3 else "http")
        return outputs_store(
            aws_conn_id=self.aws_conn_id,
            ai_conn_id=self.openai_conn_id if is_s3 else self.source_conn_id or self.openai_conn_id,
            services=["openai"],
            source_conn_id=self.source_conn_id if is_s3 else None,
            own_prefixes=[layout.root, *([batch.dead_letters] if batch.dead_letters else [])],
        )

    def _ingest(self, context: Context) -> dict[str, Any]:
        body = self.request or request_of(context["dag_run"].conf or {}, context["params"])
        batch = parse_remote_request(body)
        layout = layout_of(batch.work_prefix or self.work_prefix, context)
        store = self._store(batch, layout)
        require_conditional_writes(store, layout.conditional_writes())
        work_prefix = f"{layout.root}/{layout.pipeline}/ingested"
        location = progress_location(ingest_prefix(batch, work_prefix))
        context["ti"].xcom_push(key=PROGRESS, value=location)
        manifest = self._announce(batch, store, layout, context, location)
        report = run_batch_ingestion(
            batch,
            store,
            OpenSearchMLHook(self.opensearch_conn_id).cluster,
            work_prefix=work_prefix,
            row_errors=row_errors(),
            force=is_forced(context),
            on_progress=_progress_logger(self.log),
        )
        uri = _report_uri(layout, context)
        save(store, uri, report)
        if manifest is not None:
            account_for_request(store, layout, manifest, report, now=time.time())
        for remark in report.remarks:
            self.log.warning(remark)
        xcom = report_xcom(report, uri)
        log_counts(self.log, f"into {report.index}", report.counts, store, report.dead_letters)
        self.log.info("%s; report %s", report.state, uri)
        counts, max_share = report.counts, batch.max_dead_letters
        refuse_dead_letters(
            store, counts.dead_letters, read=counts.read, max_share=max_share, locations=[report.dead_letters]
        )
        return xcom

    def _announce(
        self, batch: BatchIngestion, store: Stores, layout: Layout, context: Context, progress: str
    ) -> RunManifest | None:
        """Begin the run in lists of runs, unless the DAG has other tasks, whose run this would hide."""
        dag, run, map_index = self.get_dag(), context["dag_run"], context["ti"].map_index
        if dag is None or list(dag.task_ids) != [self.task_id] or map_index not in (None, -1):
            return None
        return announce_request(
            store,
            layout,
            run_key_of(context),
            run_id=run.run_id,
            sources=batch.sources,
            index=batch.ingest.index,
            progress=progress,
            now=time.time(),
        )


def _progress_logger(log: Logger) -> Callable[[IngestCounts, int], None]:
    """Return a function that logs the progress of a long ingest."""
    next_log = LOG_EVERY_ROWS

    def log_progress(counts: IngestCounts, size_bytes: int) -> None:
        nonlocal next_log
        if counts.read >= next_log:
            next_log = counts.read + LOG_EVERY_ROWS
            log.info("%d rows, %d bytes read, %d dead letters", counts.read, size_bytes, counts.dead_letters)

    return log_progress


def request_of(conf: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request of a run: its conf, or its params if the conf has no member of a request.

    The defaults of the params are an example, so they must not complete a request in the conf. The form sends all
    members; its fields ``type`` and ``source`` are the members of `data_source`.
    """
    from_conf = {name: value for name, value in conf.items() if name not in SETTINGS and value is not None}
    body = from_conf or {name: value for name, value in params.items() if name not in SETTINGS and value is not None}
    fields = {name: body.pop(name) for name in DATA_SOURCE_FIELDS if name in body}
    return {**body, **({"data_source": fields} if fields and "data_source" not in body else {})}


def refuse_credential(body: Mapping[str, Any]) -> None:
    """Raise ConfigError if a request holds a credential; the error does not quote it."""
    if body.get("credential"):
        raise ConfigError(
            "credential: Airflow would store it with the run; remove it, and name Airflow connections that hold the "
            "keys: aws_conn_id for S3, openai_conn_id for OpenAI"
        )


def parse_remote_request(body: Mapping[str, Any]) -> BatchIngestion:
    """Parse a request that must use neither local files nor a credential.

    Raises:
        ConfigError: the request uses one of them, or is invalid.
    """
    refuse_credential(body)
    batch = parse_request(body)
    refuse_local_files(batch)
    return batch


def _report_uri(layout: Layout, context: Context) -> str:
    """Return the location of this task's report."""
    ti = context["ti"]
    mapped = "" if ti.map_index is None or ti.map_index < 0 else f"-{ti.map_index}"
    return f"{layout.run(run_key_of(context))}/{ti.task_id}{mapped}.json"
