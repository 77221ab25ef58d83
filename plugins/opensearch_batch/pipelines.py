"""A pipeline file becomes one DAG: prepare, then batch_predict, poll and ingest for each shard.

Read by Airflow's parser every few seconds, so only the spec is loaded here.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from airflow.sdk import DAG, Param, task_group

from opensearch_batch.batch_predict import OpenSearchBatchPredictOperator
from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.spec import PipelineSpec, load
from opensearch_batch.ingest import OpenSearchBatchIngestOperator
from opensearch_batch.poll import OpenSearchMLTaskSensor
from opensearch_batch.prepare import OpenSearchPrepareOperator
from opensearch_batch.repair import OpenSearchRepairOperator

FORCE = Param(
    default=False,
    type="boolean",
    title="force",
    description="Submit (and pay for) new batch jobs and write every document again, even where that is done.",
)


class Pipelines(NamedTuple):
    """What the files of a folder became: DAGs, and the reasons why some of them are none."""

    dags: list[DAG]
    refused: list[ConfigError]


def pipelines(folder: Path) -> Pipelines:
    """Return the DAGs of all files in a folder; a file with a mistake takes no other one with it."""
    found = Pipelines([], [])
    for path in sorted(folder.glob("*.yaml")):
        try:
            found.dags.append(pipeline_dag(path))
        except ConfigError as error:
            found.refused.append(error)
    return found


def pipeline_dag(path: Path) -> DAG:
    """Return the DAG of one pipeline file; the file's stem is the DAG's id.

    Raises:
        ConfigError: the file, or a file it names, says something a pipeline cannot.
    """
    spec = load(path)
    include = path.parent.parent
    with DAG(
        dag_id=path.stem,
        # Only the file that names it as its own gives it to Airflow.
        auto_register=False,
        description=spec.description,
        schedule=None,
        catchup=False,
        tags=["opensearch", spec.batch_predict.service, *spec.tags],
        params={"force": FORCE},
        default_args={"retries": 2, "retry_delay": timedelta(seconds=10)},
        doc_md=f"From `{spec.source.uri}` through {spec.batch_predict.service} into the index `{spec.ingest.index}`.",
    ) as dag:
        _stages(spec, include)
    return dag


def _stages(spec: PipelineSpec, include: Path) -> None:
    shared: dict[str, Any] = {
        "work": spec.work,
        "service": spec.batch_predict.service,
        "opensearch_conn_id": spec.connections.opensearch,
        "aws_conn_id": spec.connections.aws,
        "ai_conn_id": spec.connections.ai,
    }
    prepare = _prepare(spec, include, shared)

    @task_group(group_id="shard", prefix_group_id=False)
    def shard(shard: Any) -> None:  # noqa: ANN401 - the XComArg of one shard
        predict = spec.batch_predict
        model_id = f"{{{{ ti.xcom_pull(task_ids='{prepare.task_id}', key='run')['model_id'] }}}}"
        terms: dict[str, Any] = {
            "model_id": model_id,
            "parameters": predict.parameters,
            "inputs": predict.inputs,
            "max_jobs_in_flight": predict.max_jobs_in_flight,
            "retry_time_window_s": predict.retry_time_window_s,
            "retry_interval_s": predict.retry_interval_s,
        }
        watch: dict[str, Any] = {
            "poll_every_s": predict.poll_every_s,
            "poll_at_most_s": predict.poll_at_most_s,
            "deadline_s": predict.deadline_s,
        }
        submitted = OpenSearchBatchPredictOperator(task_id="batch_predict", shard=shard, **terms, **shared)
        ended = OpenSearchMLTaskSensor(
            task_id="poll",
            batch_predict=submitted.task_id,
            **watch,
            **{key: value for key, value in shared.items() if key != "work"},
        )
        repaired = OpenSearchRepairOperator(
            task_id="repair",
            shard=shard,
            poll=ended.task_id,
            rounds=predict.repair_rounds,
            **terms,
            **watch,
            **shared,
        )
        ingested = OpenSearchBatchIngestOperator(
            task_id="ingest",
            shard=shard,
            poll=ended.task_id,
            repair=repaired.task_id,
            # repair is skipped where nothing failed; a failed poll still ends the shard.
            trigger_rule="none_failed",
            index=spec.ingest.index,
            field_map=spec.ingest.field_map,
            ingest_fields=spec.ingest.ingest_fields,
            max_body_bytes=spec.ingest.max_body_bytes,
            **shared,
        )
        submitted >> ended >> repaired >> ingested

    shard.expand(shard=prepare.output)


def _prepare(spec: PipelineSpec, include: Path, shared: dict[str, Any]) -> OpenSearchPrepareOperator:
    predict, ingest = spec.batch_predict, spec.ingest
    return OpenSearchPrepareOperator(
        task_id="prepare",
        source=spec.source.uri,
        include=spec.source.include,
        exclude=spec.source.exclude,
        index=ingest.index,
        field_map=ingest.field_map,
        ingest_fields=ingest.ingest_fields,
        index_body=_body(include / "indexes", ingest.index_body),
        model_id=predict.model_id,
        stack=predict.stack,
        connector=_body(include / "connectors", predict.connector),
        values=predict.values,
        parameters=predict.parameters,
        inputs=predict.inputs,
        dimension=predict.dimension,
        max_records=spec.shard.max_records,
        max_bytes=spec.shard.max_bytes,
        **shared,
    )


def _body(folder: Path, name: str | None) -> dict[str, Any] | None:
    """Read a JSON body a pipeline names by its file's stem."""
    if name is None:
        return None
    path = folder / f"{name}.json"
    if not path.is_file():
        known = [found.stem for found in folder.glob("*.json")]
        raise ConfigError(f"no file {path}; known: {', '.join(known)}.{did_you_mean(name, known)}")
    try:
        body: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno} no JSON: {error.msg}") from error
    return body
