"""Builds a DAG from a pipeline file: prepare; batch_predict, poll, ingest of shards; repair; reconcile; publish.

Airflow parses DAG files again and again, so modules that only tasks need are not imported here.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from airflow.sdk import DAG, XComArg, get_parsing_context, task_group

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline.file import PipelineFile, pipeline_files
from opensearch_batch.core.pipeline.rules import is_template, mode_of, template_of
from opensearch_batch.core.pipeline.spec import ModelSpec, PipelineSpec
from opensearch_batch.core.transform.map_paths import ID_FIELD
from opensearch_batch.dag_factory.forms import form_of, source_of, task_defaults, value_for_service
from opensearch_batch.dag_factory.schedules import index_asset, schedule_of
from opensearch_batch.dag_factory.spread import SPLIT, spread_stages
from opensearch_batch.hooks.pipeline_files import local_folder, relocated
from opensearch_batch.hooks.pipeline_model import without_credential
from opensearch_batch.notifications.alerts import failure_notifier
from opensearch_batch.operators.base import INGEST_TASK_NAME, JOB_TASK_NAME
from opensearch_batch.operators.batch_predict import OpenSearchBatchPredictOperator
from opensearch_batch.operators.ingest import OpenSearchBatchIngestOperator
from opensearch_batch.operators.prepare import MODEL_ID, OpenSearchPrepareOperator
from opensearch_batch.operators.publish import OpenSearchPublishOperator
from opensearch_batch.operators.reconcile import OpenSearchReconcileOperator
from opensearch_batch.operators.repair import OpenSearchRepairOperator
from opensearch_batch.sensors.ml_task import OpenSearchMLTaskSensor
from opensearch_batch.services.registry import adapter_of

# Required keys of this package's pipeline files; a Data Prepper pipeline may also have the name `ingest`.
_PIPELINE_FILE_KEY = re.compile(rb"^(?:work_prefix|batch_predict|ingest)\s*:", re.MULTILINE)
# Every Data Prepper file has at least one of these keys.
_DATA_PREPPER_KEY = re.compile(rb"\b(?:version|extension|pipeline_configurations|sink)[\"']?\s*:")
# DAGs of this package without a pipeline file.
DAGS_WITHOUT_PIPELINE = ("batch_ingestion", "replay", "example_by_hand")
THIS_PACKAGE = Path("this package")
T = TypeVar("T")


class FolderDags(NamedTuple):
    """The DAGs of a folder's files, and the errors in these files."""

    dags: list[DAG]
    errors: list[ConfigError]


def dags_of(location: str) -> FolderDags:
    """Return the DAGs of all files in `pipelines/` of a folder or an S3 prefix; raise ConfigError if it has none."""
    # Tasks may run in another working directory.
    location = location.rstrip("/") if "://" in location else str(Path(location).absolute())
    with local_folder(location) as folder:
        folder_dags = dags_of_folder(folder / "pipelines", f"{location}/pipelines")
        return FolderDags(folder_dags.dags, [relocated(error, folder, location) for error in folder_dags.errors])


def dags_of_folder(folder: Path, location: str = "") -> FolderDags:
    """Return the DAGs of all files in a folder; an error in one file does not affect the others.

    A process that executes a task needs one DAG, so it reads only the file of the same name, if that defines the DAG.
    `location` is what the folder is a copy of.
    """
    files, dag_id = pipeline_files(folder), get_parsing_context().dag_id
    own = _built([path for path in files if path.stem == dag_id], files, location)
    return own if any(dag.dag_id == dag_id for dag in own.dags) else _built(files, files, location)


def _built(chosen: Sequence[Path], files: Sequence[Path], location: str) -> FolderDags:
    """Return the DAGs of some of the files in a folder."""
    result = FolderDags([], [])
    dags_by_id: dict[str, list[tuple[Path, DAG]]] = {}
    for path in chosen:
        try:
            for dag in _dags(path, f"{location}/{path.name}" if location else str(path)):
                dags_by_id.setdefault(dag.dag_id, []).append((path, dag))
        except ConfigError as error:
            result.errors.append(error)
        except Exception as error:  # noqa: BLE001 - no error in one file may affect the others
            result.errors.append(_unexpected(path, error))
    for dag_id, candidates in dags_by_id.items():
        # A DAG id belongs to the file of the same name, even while that file has a mistake and defines no DAG.
        # Otherwise a mistake in that file would let another file take over its running DAG.
        claimants = [path for path in files if path.stem == dag_id] or [path for path, _ in candidates]
        for path, dag in candidates:
            reserved = [THIS_PACKAGE] if dag_id in DAGS_WITHOUT_PIPELINE else []
            others = [each for each in (*claimants, *reserved) if each != path]
            if not others:
                result.dags.append(dag)
                continue
            text = f"{path}:1 {dag_id}: {others[0]} already uses this DAG id; rename this pipeline"
            result.errors.append(ConfigError(text))
    return result


def _unexpected(path: Path, error: Exception) -> ConfigError:
    """Return a ConfigError without the text of the original error, which may quote a secret of the file."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    location = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"
    return ConfigError(
        f"{path}:1 cannot build a DAG from this file ({location}); "
        "run opensearch-batch check on it, then correct or remove it"
    )


def _dags(path: Path, location: str) -> list[DAG]:
    """Return the DAGs of a file; the parser of Data Prepper files is loaded only if the file may be one."""
    if is_surely_pipeline_file(path):
        return [pipeline_dag(path)]
    from opensearch_batch.core.data_prepper.file.pipelines import is_data_prepper
    from opensearch_batch.dag_factory.data_prepper import data_prepper_dags

    return data_prepper_dags(path, location) if is_data_prepper(path) else [pipeline_dag(path)]


def is_surely_pipeline_file(path: Path) -> bool:
    """Return whether a file is certainly a pipeline file of this package; False if it may be a Data Prepper file.

    An unreadable file counts as a pipeline file of this package.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return True
    return _PIPELINE_FILE_KEY.search(content) is not None and _DATA_PREPPER_KEY.search(content) is None


def pipeline_dag(path: Path) -> DAG:
    """Return the DAG of a file, with its name; raise ConfigError if the file, or a file that it names, is invalid."""
    file = PipelineFile(path, adapter_of)
    spec = file.spec
    schedule = schedule_of(file.name, spec)
    with DAG(
        dag_id=file.name,
        # The DAG file registers the DAG by assigning it to a global variable.
        auto_register=False,
        description=spec.description,
        schedule=schedule,
        catchup=False,
        # Scheduled runs incur costs, so a user has to unpause the DAG.
        is_paused_upon_creation=None if schedule is None else True,
        tags=["opensearch", *spec.batch_predict.models, *spec.tags],
        params=form_of(spec),
        default_args=task_defaults(spec.owner, spec.task_timeout_s),
        on_failure_callback=failure_notifier(spec.alerts),
        doc_md=_doc(file),
    ) as dag:
        _Stages(file).create_tasks()
    return dag


def _doc(file: PipelineFile) -> str:
    spec = file.spec
    lines = [
        spec.description,
        f"From `{spec.source_uri}` through {spec.batch_predict.service} into the index `{spec.ingest.index}`.",
        f"Pipeline file: `{file.path.name}`. Its runs write below `{spec.work_prefix.rstrip('/')}/{file.name}/`.",
        # Airflow creates a new DAG version when doc_md changes, so every version shows the file that it was built from.
        f"~~~~yaml\n{file.path.read_text(encoding='utf-8').rstrip()}\n~~~~",
    ]
    return "\n\n".join(line for line in lines if line)


class _Stages:
    """Creates the stages of one pipeline in the current DAG."""

    def __init__(self, file: PipelineFile) -> None:
        self._file, self._spec = file, file.spec
        spec, predict = file.spec, file.spec.batch_predict
        self._shared: dict[str, Any] = {
            "work_prefix": spec.work_prefix,
            "service": "{{ params.service }}",
            "opensearch_conn_id": spec.connections.opensearch,
            "aws_conn_id": spec.connections.aws,
            "ai_conn_id": spec.connections.ai,
        }
        self._poll_arguments = _settings_of(predict, "poll_every_s", "poll_at_most_s", "deadline_s")
        self._job_arguments: dict[str, Any] = {
            "model_id": MODEL_ID,
            "parameters": self._model_setting(lambda model: model.parameters),
            **_settings_of(predict, "inputs", "max_jobs_in_flight", "retry_time_window_s", "retry_interval_s"),
            **self._poll_arguments,
        }
        self._document_arguments: dict[str, Any] = {
            "index": "{{ params.index }}",
            "field_map": spec.field_map,
            "routing": spec.routing,
            **_settings_of(spec.ingest, "ingest_fields", "processors"),
        }

    def create_tasks(self) -> None:
        """Create the tasks."""
        prepare = self._prepare()

        @task_group(group_id="shards", prefix_group_id=False)
        def stages(shards: XComArg) -> None:
            self._shard_stages(shards)

        repair = OpenSearchRepairOperator(
            task_id="repair",
            repair_at_most=self._spec.batch_predict.repair_at_most,
            # A shard of an earlier attempt is skipped.
            trigger_rule="none_failed",
            **self._job_arguments,
            **self._shared,
        )
        ingest_repaired = OpenSearchBatchIngestOperator.partial(
            task_id="ingest_repaired", **self._ingest_arguments()
        ).expand(shards=repair.output)
        work_prefix, connections = self._spec.work_prefix, self._spec.connections
        reconcile = OpenSearchReconcileOperator(
            task_id="reconcile",
            work_prefix=work_prefix,
            index="{{ params.index }}",
            opensearch_conn_id=connections.opensearch,
            retention_days=self._spec.retention_days,
            alerts=self._spec.alerts,
            max_dead_letters=self._spec.max_dead_letters,
            aws_conn_id=connections.aws,
            ai_conn_id=connections.ai,
            # repair, and everything before it, may be skipped.
            trigger_rule="none_failed",
        )
        publish = OpenSearchPublishOperator(
            task_id="publish",
            index="{{ params.index }}",
            work_prefix=work_prefix,
            aws_conn_id=connections.aws,
            outlets=[index_asset(connections.opensearch, self._spec.ingest.index)],
        )
        shared = {
            "work_prefix": work_prefix,
            "aws_conn_id": connections.aws,
            "opensearch_conn_id": connections.opensearch,
        }
        shards = stages.expand(shards=prepare.output)
        spread_stages(prepare, self._file.body("ingest", "index_body"), shared) >> shards >> repair
        ingest_repaired >> reconcile >> publish

    def _prepare(self) -> OpenSearchPrepareOperator:
        spec = self._spec
        ingest, uri = spec.ingest, template_of(spec.source_uri, spec.when.timezone)
        return OpenSearchPrepareOperator(
            task_id="prepare",
            source=source_of(spec),
            source_index=_source_index(spec),
            own={"source": uri, "index": ingest.index, "service": spec.batch_predict.service},
            partition=_settings_of(spec.when, "key_format", "timezone") if is_template(spec.source_uri) else None,
            mode=mode_of(spec)[0],
            max_removed=f"{{{{ params.max_removed or '{spec.source.max_removed}' }}}}",
            deleted=None if spec.source.deleted is None else msgspec.to_builtins(spec.source.deleted),
            predictions=spec.batch_predict.predictions,
            document_settings={
                "on_missing": spec.on_missing,
                **_settings_of(ingest, "when", "op_type", "on_unmatched", "ingest_pipeline"),
            },
            source_format=spec.source.format,
            passthrough=not spec.source.prepare,
            watched=spec.when.new_objects is not None,
            limit="{{ params.max_records or '' }}",
            index_body=self._file.body("ingest", "index_body"),
            model_id=self._model_setting(lambda model: model.model_id),
            stack=self._model_setting(lambda model: model.stack),
            connector=self._for_service(self._connectors()),
            values=self._model_setting(lambda model: model.values),
            parameters=self._model_setting(lambda model: model.parameters),
            inputs=spec.batch_predict.inputs,
            dimension=spec.batch_predict.dimension,
            split=SPLIT,
            split_bytes=spec.source.split_bytes,
            realtime_below=spec.batch_predict.realtime_below,
            max_dead_letters=spec.max_dead_letters,
            **_settings_of(spec.source, "include", "exclude", "on_empty", "on_removed"),
            **_settings_of(spec.shard, "max_records", "max_bytes"),
            **self._document_arguments,
            **self._shared,
        )

    def _shard_stages(self, shards: XComArg) -> None:
        without_work_prefix = {name: value for name, value in self._shared.items() if name != "work_prefix"}
        batch_predict = OpenSearchBatchPredictOperator(
            task_id="batch_predict",
            shards=shards,
            map_index_template=JOB_TASK_NAME,
            # The stages of a large source are skipped.
            trigger_rule="none_failed",
            **self._job_arguments,
            **self._shared,
        )
        poll = OpenSearchMLTaskSensor(task_id="poll", **self._poll_arguments, **without_work_prefix)
        ingest = OpenSearchBatchIngestOperator(
            task_id="ingest",
            shards=shards,
            # Without a job, batch_predict and poll are skipped; if poll fails, ingest does not run.
            trigger_rule="none_failed",
            **self._ingest_arguments(),
        )
        batch_predict >> poll >> ingest

    def _ingest_arguments(self) -> dict[str, Any]:
        ingest = self._spec.ingest
        return {
            "map_index_template": INGEST_TASK_NAME,
            "on_missing": self._spec.on_missing,
            **_settings_of(ingest, "when", "op_type", "on_unmatched", "ingest_pipeline", "load", "dead_letters"),
            **_settings_of(ingest, "max_body_bytes", "max_in_flight", "compress"),
            **self._document_arguments,
            **self._shared,
        }

    def _connectors(self) -> dict[str, Any]:
        predict = self._spec.batch_predict
        bodies = {predict.service: self._file.body("batch_predict", "connector")}
        bodies |= {name: self._file.body("batch_predict", "instead", name, "connector") for name in predict.instead}
        return {name: without_credential(body) for name, body in bodies.items()}

    def _model_setting(self, setting_of: Callable[[ModelSpec], T]) -> T | str:
        return self._for_service({name: setting_of(model) for name, model in self._spec.batch_predict.models.items()})

    def _for_service(self, values: dict[str, T]) -> T | str:
        return value_for_service(self._spec.batch_predict.service, values)


def _source_index(spec: PipelineSpec) -> dict[str, Any] | None:
    """Return the argument of `prepare` for a pipeline that reads an index."""
    if spec.source.index is None:
        return None
    settings = _settings_of(spec.source, "index", "query", "version_field")
    predictions = [name for name in spec.field_map if name != ID_FIELD]
    return {"conn_id": spec.source_conn_id, "in_place": spec.in_place, "predictions": predictions, **settings}


def _settings_of(settings: object, *names: str) -> dict[str, Any]:
    """Return settings of a pipeline file that an operator takes under the same names."""
    return {name: getattr(settings, name) for name in names}
