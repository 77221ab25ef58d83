# ruff: noqa: INP001 - Airflow reads the folder file by file
"""Jobs that were submitted beforehand are waited for, each with a task behind its end; see `benchmarks.waiting`."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, task, task_group
from airflow.triggers.base import StartTriggerArgs

from opensearch_batch.sensors.ml_task import OpenSearchMLTaskSensor
from opensearch_batch.triggers.ml_task import TRIGGER


class WaitByNumber(OpenSearchMLTaskSensor):
    """The sensor as it is; its job is named by the map index, so that no worker has to run before it."""

    def __init__(self, *, folder: str, **kwargs: Any) -> None:  # noqa: ANN401 - the sensor's own
        super().__init__(**kwargs)
        self.job, self.ml_task_id = f"{folder}/{{{{ ti.map_index }}}}", ""
        own = {"job": self.job, "ml_task_id": self.ml_task_id}
        kwargs = (self.start_trigger_args and self.start_trigger_args.trigger_kwargs) or {}
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=TRIGGER, trigger_kwargs={**kwargs, **own}, next_method="execute_complete"
        )


with DAG(dag_id="waiting", schedule=None, catchup=False, description="Waits for many jobs.") as dag:

    @task_group(group_id="job", prefix_group_id=False)
    def job(number: int) -> None:  # noqa: ARG001 - mapped over
        """Wait for one job, then do something."""

        @task
        def then() -> None:
            """Be the next task: when it starts is measured."""

        WaitByNumber(task_id="poll", service="sagemaker", folder=os.environ["WAITING_FOLDER"]) >> then()

    job.expand(number=list(range(int(os.environ["WAITING_JOBS"]))))
