"""The settings of a pipeline that pages need, read from the serialized DAG: the api-server imports no DAG file.

A pipeline's `prepare` has the settings as templated fields, which Airflow stores with the DAG. For a Data Prepper
pipeline it has only the file, which is read where the settings are needed. A DAG of `_batch_ingestion` requests has no
settings but the work prefix, and each of its runs may have its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.layout import DEFAULT_WORK_PREFIX, Layout
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID, configured_work_prefix
from opensearch_batch.hooks.file_conn_ids import MODEL, SOURCE, file_conn_id
from opensearch_batch.hooks.pipeline_files import local_file

_PIPELINE_FIELDS, _SCAN_FIELDS = {"work_prefix", "service", "index"}, {"file", "pipeline"}


class PipelineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one pipeline.

    `index` is empty for a Data Prepper pipeline, which may have several, and for a DAG of requests (`is_request`), each
    of whose runs has its own.
    """

    dag_id: str
    work_prefix: str
    service: str = ""
    index: str = ""
    source: str = ""
    is_scan: bool = False
    is_request: bool = False
    shares_predictions: bool = False
    opensearch_conn_id: str = OPENSEARCH_CONN_ID
    aws_conn_id: str = AWS_CONN_ID
    ai_conn_id: str | None = None

    @property
    def layout(self) -> Layout:
        """The paths of the pipeline's files."""
        return Layout(self.work_prefix, self.dag_id)

    def of_run(self, run_conf: Mapping[str, Any]) -> PipelineSettings:
        """Return the settings of a run with this conf, which a DAG of requests has by run.

        The files are read with the same connection, because whoever starts a run chooses those in its conf.
        """
        prefix = run_conf.get("work_prefix")
        conn_id = run_conf.get("opensearch_conn_id")
        return msgspec.structs.replace(
            self,
            work_prefix=prefix if isinstance(prefix, str) and prefix.startswith("s3://") else self.work_prefix,
            opensearch_conn_id=conn_id if isinstance(conn_id, str) else self.opensearch_conn_id,
        )


def settings_of(dag_id: str, tasks: list[Mapping[str, Any]]) -> PipelineSettings | None:
    """Return the settings of a DAG, given its stored tasks; None if it is neither a pipeline nor runs requests.

    Raises:
        ConfigError: the Data Prepper file cannot be read here, or is invalid.
    """
    for task in tasks:
        if "prepare" not in str(task.get("task_type", "")).lower():
            continue
        if task.keys() >= _PIPELINE_FIELDS:
            return _of_prepare(dag_id, task)
        if task.keys() >= _SCAN_FIELDS:
            return _of_file(dag_id, str(task["file"]), str(task["pipeline"]))
    if len(tasks) == 1 and str(tasks[0].get("task_type", "")).endswith("BatchIngestionOperator"):
        prefix = str(tasks[0].get("work_prefix") or "")
        default = configured_work_prefix() or DEFAULT_WORK_PREFIX
        return PipelineSettings(
            dag_id=dag_id, work_prefix=prefix if prefix.startswith("s3://") else default, is_request=True
        )
    return None


def _of_prepare(dag_id: str, task: Mapping[str, Any]) -> PipelineSettings:
    # The fields of a pipeline's file are templates of the trigger form; `own` has the values of the file.
    values = {**task, **(task.get("own") or {})}
    return PipelineSettings(
        dag_id=dag_id,
        work_prefix=str(task["work_prefix"]),
        service=str(values["service"]),
        index=str(values["index"]),
        source=str(values.get("source", "")),
        shares_predictions=task.get("predictions") == "shared",
        opensearch_conn_id=str(task.get("opensearch_conn_id") or OPENSEARCH_CONN_ID),
        aws_conn_id=str(task.get("aws_conn_id") or AWS_CONN_ID),
        ai_conn_id=task.get("ai_conn_id"),
    )


def _of_file(dag_id: str, location: str, pipeline: str) -> PipelineSettings:
    from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline

    with local_file(location) as path:
        if not path.is_file():
            raise ConfigError(f"{path}: the api-server cannot read this file; mount it there as on the workers")
        compiled = CompiledPipeline.load(path, pipeline, location)
    return PipelineSettings(
        dag_id=dag_id,
        work_prefix=compiled.layout.root,
        service=compiled.ml.service_name if compiled.ml else "",
        source=path.name,
        is_scan=True,
        opensearch_conn_id=file_conn_id(location, pipeline, MODEL),
        aws_conn_id=file_conn_id(location, pipeline, SOURCE),
    )
