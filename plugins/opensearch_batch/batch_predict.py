"""batch_predict: a shard -> one batch job through ML Commons -> its task id. Only this stage submits, and so pays."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from airflow.sdk import BaseOperator

from opensearch_batch.core.errors import RemoteError
from opensearch_batch.core.job import Accepted, Asked, JobRecord, Ledger, Submission
from opensearch_batch.core.manifest import Shard
from opensearch_batch.core.ml_commons import MLCommons, Model
from opensearch_batch.hooks import AWS_CONN_ID, OPENSEARCH_CONN_ID, OpenSearchMLHook, objects
from opensearch_batch.links import MLTaskLink
from opensearch_batch.services import service
from opensearch_batch.services.base import Service, explain
from opensearch_batch.stage import errors_end_the_task, forced, run_key_of, work_of


class OpenSearchBatchPredictOperator(BaseOperator):
    """Submit one shard's batch job, at most once, or find the job that was submitted before.

    Returns ``{task_id, job, output}``: the ML Commons task, the folder of the job's record, the output prefix.
    An automatic retry or a second run reattaches; after a bad end only clearing this task (which a backfill that
    reprocesses does too), or a run with the param ``force``, submits again.

    Args:
        shard: one of the shards `prepare` returned.
        work: the same as in `prepare`.
        service: the AI service.
        model_id: the model registered with ML Commons.
        parameters: override the connector's parameters.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage.

    Raises:
        AirflowFailException: the job ended badly before, or the service refuses it.
        RetriableError: a server was away; the retry finds what was submitted.
    """

    template_fields = ("shard", "work", "service", "model_id", "parameters")
    operator_extra_links = (MLTaskLink(),)
    ui_color = "#fef7e0"

    def __init__(
        self,
        *,
        shard: Any,  # noqa: ANN401 - a shard, or the XComArg of one
        work: str,
        service: str,
        model_id: str,
        parameters: Mapping[str, Any] | None = None,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.work = work
        self.service = service
        self.model_id = model_id
        self.parameters = parameters or {}
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ANN401 - Airflow's context
        """Submit or reattach."""
        with errors_end_the_task():
            shard = msgspec.convert(self.shard, Shard)
            work, ml, adapter = (
                work_of(self.work, context),
                OpenSearchMLHook(self.opensearch_conn_id).ml,
                service(self.service),
            )
            folder = work.job(shard.job)
            cluster = _Cluster(ml, adapter, ml.model(self.model_id), self.parameters)
            submission = Submission(
                Ledger(objects(self.aws_conn_id), folder), cluster, clock=time.time, sleep=time.sleep
            )
            decision, record = submission.run(
                lambda generation: cluster.draft(shard, folder, work.pipeline, generation), self._asked(context)
            )
        self.ml_task_url = ml.task_url(str(record.task_id))
        self.log.info("%s: job %s, task %s", decision, record.name, record.task_id)
        return {"task_id": record.task_id, "job": folder, "output": record.output}

    def _asked(self, context: Any) -> Asked:  # noqa: ANN401 - Airflow's context
        """Say what a person asked: clearing a task raises its max_tries, a retry does not (Airflow 3.3)."""
        return Asked(cleared=context["ti"].max_tries > self.retries, force=forced(context), run_key=run_key_of(context))


class _Cluster:
    """Submits through ML Commons what the service's adapter says."""

    def __init__(self, ml: MLCommons, adapter: Service, model: Model, parameters: Mapping[str, Any]) -> None:
        self._ml = ml
        self._adapter = adapter
        self._model = model
        self._overrides = dict(parameters)

    def draft(self, shard: Shard, folder: str, pipeline: str, generation: int) -> JobRecord:

        return JobRecord(
            job=shard.job,
            name=self._adapter.job_name(pipeline, folder, generation),
            service=self._adapter.name,
            model_id=self._model.id,
            input=shard.input,
            output=f"{folder}/output/{generation}/",
            intended_at=time.time(),
            generation=generation,
        )

    def submit(self, record: JobRecord) -> Accepted:
        known = {**self._model.parameters, **self._overrides}
        parameters = self._overrides | self._adapter.batch_predict_parameters(record, known)
        try:
            return self._ml.batch_predict(record.model_id, parameters)
        except RemoteError as error:
            raise explain(self._adapter, error) from error

    def find(self, record: JobRecord) -> Accepted | None:

        for task in self._ml.tasks(record.model_id):
            if self._adapter.is_task_of(record, task.get("remote_job") or {}):
                return Accepted(task["task_id"], task["remote_job"])
        return None
