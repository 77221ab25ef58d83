"""Sensor that waits for batch jobs in the triggerer, without a worker.

The task starts and ends in its trigger (`start_from_trigger`, tested with Airflow 3.3.2). A trigger argument may be a
template, but not contain several, so `jobs` is one template that renders to JSON text.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import StartTriggerArgs, TaskSuccessEvent, TriggerEvent

from opensearch_batch.core.types.job import DEADLINE_S
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.triggers.ml_task import TRIGGER, MLTaskTrigger

if TYPE_CHECKING:
    from pydantic import JsonValue

GRACE = timedelta(hours=1)


class OpenSearchMLTaskSensor(BaseSensorOperator):
    """Wait for the batch jobs that `batch_predict` submitted; always deferred, so no worker is occupied.

    Returns a list of ``{task_id, state, outputs, reason, counts}``, one for each job. Fails if a job does not succeed;
    the error names the task to clear, which pays for a new job. Marking the task failed or success, or the run's
    timeout, cancels the jobs unless another run waits for them. Clearing the task reattaches to the running jobs.

    Args:
        batch_predict: the task id of `batch_predict`; its XCom (of the same map index) names the jobs.
        service: the AI service.
        poll_every_s: first interval between polls; intervals grow to a tenth of the job's age.
        poll_at_most_s: longest interval between polls.
        deadline_s: seconds after the submission when a job that still runs is cancelled.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage.
        ai_conn_id: the connection with the AI service's key; the service's default connection if None.
    """

    template_fields = ("jobs", "service")
    start_from_trigger = True
    ui_color = "#f3e8fd"

    def __init__(
        self,
        *,
        service: str,
        batch_predict: str = "batch_predict",
        poll_every_s: float = 30.0,
        poll_at_most_s: float = 300.0,
        deadline_s: float = DEADLINE_S,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        ai_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        # No retries: a TaskFailedEvent with retries left loses its XCom, and a retry would poll an ended job again; the
        # trigger retries errors. At the execution_timeout Airflow fails the task without cancelling its jobs, so the
        # timeout is later than the deadline of the jobs.
        timeout = timedelta(seconds=deadline_s) + GRACE
        super().__init__(**{**kwargs, "retries": 0, "execution_timeout": timeout})
        self.service = service
        self.batch_predict = batch_predict
        # A template renders to text, which the trigger decodes.
        self.jobs = f"{{{{ ti.xcom_pull(task_ids='{batch_predict}', map_indexes=ti.map_index) | tojson }}}}"
        self._arguments: dict[str, Any] = {
            "poll_every_s": poll_every_s,
            "poll_at_most_s": poll_at_most_s,
            "deadline_s": deadline_s,
            "opensearch_conn_id": opensearch_conn_id,
            "aws_conn_id": aws_conn_id,
            "ai_conn_id": ai_conn_id,
        }
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=TRIGGER,
            trigger_kwargs={"jobs": self.jobs, "service": service, **self._arguments},
            next_method="execute_complete",
        )

    def execute(self, context: Context) -> NoReturn:  # noqa: ARG002 - Airflow's signature
        """Defer at once; only called if a task cannot start from its trigger, as in ``airflow dags test``."""
        self.defer(trigger=self._trigger(), method_name="execute_complete")

    def execute_complete(self, context: Context, event: object) -> JsonValue:  # noqa: ARG002 - Airflow's signature
        """Return the results of the jobs, which have ended; only called after `execute`.

        The event contains only the state of the task, so the trigger reads the jobs' records once more.
        """
        ended = asyncio.run(self._ended())
        if not isinstance(ended, TaskSuccessEvent) or ended.xcoms is None:
            raise AirflowFailException("a job did not succeed; the log lines above name it, and the task to clear")
        return ended.xcoms["return_value"]

    async def _ended(self) -> TriggerEvent:
        return await anext(self._trigger().run())

    def _trigger(self) -> MLTaskTrigger:
        return MLTaskTrigger(jobs=self.jobs, service=self.service, **self._arguments)
